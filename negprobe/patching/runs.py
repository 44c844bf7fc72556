"""A batch of pairs as two padded runs with aligned tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from negprobe.base.errors import InputError, PatchingError
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.models.layers import has_own_hooks
from negprobe.patching.sites import Site
from negprobe.statements import (
    ROLES,
    StatementPair,
    TokenizedStatement,
    align,
    complete,
    original_roles,
    readable_by,
    roles,
    tokenize_all,
)
from negprobe.statements.controls import is_from_control

# Limit on the floats kept as activations of one batch of pairs.
_KEPT_BUDGET = 2**27
_PAIRS_AT_ONCE = 32

Direction = Literal["noising", "denoising"]
"""noising: the counterfactual's activation is patched into the original's run; denoising: the reverse."""

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True)
class Run:
    """One side of a batch of pairs.

    Attributes:
        statements: The statements, unpadded.
        tokens: Their token ids, padded on the right.
        mask: 1 for real tokens.
        token_types: Which of two texts each token belongs to; 0 throughout for a single text.
    """

    statements: tuple[TokenizedStatement, ...]
    tokens: Int[Tensor, "pair pos"]
    mask: Int[Tensor, "pair pos"]
    token_types: Int[Tensor, "pair pos"]


@dataclass(frozen=True)
class PairRuns:
    """A batch of pairs as a base run, which is patched, and a source run, which provides the activations.

    Attributes:
        pairs: The pairs, with their cues found.
        base: The run that is patched.
        source: The run that the activations come from.
        source_of: The source position that each base position is aligned with; 0 where there is none.
        aligned: Whether a base position is aligned.
        role: The index in `ROLES` of the role of each base position; -1 for padding.
    """

    pairs: tuple[StatementPair, ...]
    base: Run
    source: Run
    source_of: Int[Tensor, "pair base_pos"]
    aligned: Bool[Tensor, "pair base_pos"]
    role: Int[Tensor, "pair base_pos"]


def run_names(pairs: Sequence[StatementPair], direction: Direction) -> dict[str, tuple[str, list[str]]]:
    """The coordinates `base_run` and `source_run` of a result: which statement of each pair is in each run.

    For a pair made by `from_control`, "control" replaces "original".
    """
    counterfactual = ("pair", ["counterfactual"] * len(pairs))
    other = ("pair", ["control" if is_from_control(pair) else "original" for pair in pairs])
    base, source = (other, counterfactual) if direction == "noising" else (counterfactual, other)
    return {"base_run": base, "source_run": source}


def chosen_pairs(pairs: StatementPair | Iterable[StatementPair]) -> list[StatementPair]:
    """One or several pairs as a list.

    Raises:
        PatchingError: for an empty list, or an item that is not a `StatementPair`.
    """
    chosen = [pairs] if isinstance(pairs, StatementPair) else list(pairs) if isinstance(pairs, Iterable) else []
    if not chosen:
        raise PatchingError("There are no pairs to patch; give at least one StatementPair.")
    for pair in chosen:
        if not isinstance(pair, StatementPair):
            raise PatchingError(f"{quoted(pair)} is not a StatementPair; use StatementPair(original, counterfactual).")
    return chosen


def pair_batches(model: HookedEncoder, pairs: Sequence[StatementPair], widths: int = 6) -> list[list[int]]:
    """The indices of the pairs in batches, from the shortest pair to the longest.

    Args:
        model: The model.
        pairs: The pairs.
        widths: The number of floats kept for each token and layer, in multiples of `d_model`.
    """
    # Characters bound the number of tokens well enough: only the batch size depends on this.
    lengths = [max(len(pair.original), len(pair.counterfactual)) for pair in pairs]
    n_tokens = min(model.cfg.n_ctx, max(lengths))
    per_pair = n_tokens * model.cfg.n_layers * model.cfg.d_model * widths
    return list(length_batches(lengths, max(1, min(_PAIRS_AT_ONCE, _KEPT_BUDGET // per_pair))))


def site_widths(model: HookedEncoder, pairs: Sequence[StatementPair], site: Site) -> int:
    """The number of floats that a site has for each token, in multiples of `d_model`."""
    if site.is_map:
        longest = min(model.cfg.n_ctx, max(max(len(pair.original), len(pair.counterfactual)) for pair in pairs))
        return 1 + model.cfg.n_heads * longest // model.cfg.d_model
    return {"result": model.cfg.n_heads, "mlp_pre": 4, "mlp_post": 4}.get(site.name, 1)


def pair_runs(model: HookedEncoder, pairs: Sequence[StatementPair], direction: Direction) -> PairRuns:
    """A batch of pairs, tokenized, aligned and padded.

    Roles are assigned in the counterfactual, which contains the cue, and transferred to the original by the alignment.
    For a model without a masked-LM head, the [MASK] of a pair is filled in first (see `statements.readable_by`).

    Raises:
        PatchingError: for a model without a tokenizer, or with a hook on the model itself.
        StatementError: for a statement that cannot be tokenized, or a span that contains no token.
        InputError: for a statement that is longer than the model's context.
    """
    pairs = readable_by(model.cfg.head, pairs, model.cfg.labels)
    original = tokenized_run(model, [pair.original for pair in pairs])
    counterfactual = tokenized_run(model, [pair.counterfactual for pair in pairs])
    # Cues and affected words are searched only now, when no statement is too long. The control is not run, so it needs
    # no tokenizer.
    pairs = [complete(pair) for pair in pairs]
    originals, counterfactuals = original.statements, counterfactual.statements
    assert model.tokenizer is not None
    alignments = [align(a, b) for a, b in zip(originals, counterfactuals, strict=True)]

    base, source = (original, counterfactual) if direction == "noising" else (counterfactual, original)
    source_of = torch.zeros_like(base.tokens)
    aligned = torch.zeros_like(base.tokens, dtype=torch.bool)
    role = torch.full_like(base.tokens, -1)
    for row, (pair, alignment) in enumerate(zip(pairs, alignments, strict=True)):
        links = list(zip(alignment.original, alignment.counterfactual, strict=True))
        to_source = dict(links) if direction == "noising" else {j: i for i, j in links}
        at = list(to_source)
        source_of[row, at] = torch.tensor(list(to_source.values()), device=source_of.device)
        aligned[row, at] = True
        names = roles(
            counterfactuals[row],
            model.tokenizer,
            cue_spans=pair.cue_spans,
            affected_spans=pair.affected_spans,
            target=pair.target,
        )
        if direction == "noising":
            names = original_roles(originals[row], names, alignment, model.tokenizer, pair.target)
        role[row, : len(names)] = torch.tensor([ROLES.index(name) for name in names], device=role.device)
    return PairRuns(tuple(pairs), base, source, source_of, aligned, role)


def tokenized_run(model: HookedEncoder, texts: Sequence[str]) -> Run:
    """Statements tokenized and padded, as one side of a batch.

    Raises:
        PatchingError: for a model without a tokenizer, or with a hook on the model itself.
        StatementError: for a statement that cannot be tokenized.
        InputError: for a statement that is longer than the model's context.
    """
    if model.tokenizer is None:
        raise PatchingError("The model has no tokenizer; pass one to HookedEncoder.from_pretrained.")
    if has_own_hooks(model):
        raise PatchingError(
            "The model itself has a hook (or a replaced forward), which would have no effect, because objectives read "
            "the last hidden states. Remove it, or hook a part such as model.unembed or model.blocks[0]."
        )
    statements = tuple(tokenize_all(texts, model.tokenizer))
    longest = max(statements, key=len)
    if len(longest) > model.cfg.n_ctx:
        raise InputError(
            f"A statement has {len(longest)} tokens, but the model reads at most {model.cfg.n_ctx}: "
            f"{longest.text[:60]!r}… Shorten it."
        )
    tokens, mask = pad_tokens([statement.ids for statement in statements], model.cfg.pad_token_id, model.device)
    types = pad_token_types([statement.token_types for statement in statements], [*map(len, statements)], model.device)
    return Run(statements, tokens, mask, types)


def cached(
    model: HookedEncoder, run: Run, names: Sequence[str]
) -> tuple[Float[Tensor, "pair pos d_model"], dict[str, Tensor]]:
    """The last hidden states of an unpatched run, and the activations at the hooks in `names`."""
    final, cache = model.run_with_cache(
        run.tokens,
        token_type_ids=run.token_types,
        one_zero_attention_mask=run.mask,
        stop_at_layer=model.cfg.n_layers,
        names_filter=list(names),
        return_cache_object=False,
    )
    assert isinstance(final, Tensor)
    return final, cache


def site_activations(
    model: HookedEncoder, run: Run, site: Site
) -> tuple[Float[Tensor, "pair pos d_model"], list[Float[Tensor, "pair ..."]]]:
    """The last hidden states of an unpatched run, and a site's activation in each layer (one entry for the embeddings).

    Raises:
        PatchingError: for an embedding that the model does not have.
    """
    if site.name == "token_type_embed" and not model.cfg.n_token_types:
        raise PatchingError(f"{model.cfg.model_name!r} has no token types, so there is no 'token_type_embed'.")
    names = [site.hook.format(layer=layer) for layer in range(model.cfg.n_layers if site.has_layers else 1)]
    found: dict[str, Tensor] = {}
    # A cache omits `hook_result` unless it was requested at loading; a forward hook on it always works.
    final = model.run_with_hooks(
        run.tokens,
        token_type_ids=run.token_types,
        one_zero_attention_mask=run.mask,
        stop_at_layer=model.cfg.n_layers,
        fwd_hooks=[(name, keep_in(found, name)) for name in names],
    )
    return final, [found[name] for name in names]


def keep_in(found: dict[str, Tensor], name: str) -> Callable[[Tensor, HookPoint], None]:
    """A hook that stores the activation in `found[name]`.

    The hook point's own name is not used, because it has a prefix if the model is part of another module.
    """

    def keep(activation: Tensor, hook: HookPoint) -> None:
        found[name] = activation

    return keep


def last_hidden_states(model: HookedEncoder, run: Run) -> Float[Tensor, "pair pos d_model"]:
    """The last hidden states of an unpatched run, which are the input of the model's head."""
    return cached(model, run, [])[0]
