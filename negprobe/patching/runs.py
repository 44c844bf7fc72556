"""A batch of pairs as two padded runs with aligned tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformers import PreTrainedTokenizerBase

from negprobe.base.errors import InputError, PatchingError
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.models.batching import length_batches, pad_token_types, pad_tokens
from negprobe.models.hooked import has_own_hooks
from negprobe.patching.sites import SITES, Site
from negprobe.statements import (
    ROLES,
    StatementPair,
    Swap,
    Swappable,
    TokenizedStatement,
    complete,
    readable_by,
    tokenize_all,
)
from negprobe.statements.controls import is_from_control
from negprobe.statements.prepared import aligned_swap

# Limit on the floats of the activations kept for one batch of pairs.
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
        swaps: Their two statements, tokenized and aligned.
        base: The run that is patched.
        source: The run that the activations come from.
        source_of: The source position that each base position is aligned with; 0 where there is none.
        aligned: Whether a base position is aligned.
        role: The index in `ROLES` of the role of each base position; -1 for padding.
    """

    pairs: tuple[StatementPair, ...]
    swaps: tuple[Swap, ...]
    base: Run
    source: Run
    source_of: Int[Tensor, "pair base_pos"]
    aligned: Bool[Tensor, "pair base_pos"]
    role: Int[Tensor, "pair base_pos"]


def pair_coordinates(pairs: Sequence[Swappable], direction: Direction) -> dict[str, tuple[str, list[str]]]:
    """The coordinates of a result along `pair`: the statement in each run and the cluster of each pair.

    For a pair made by `from_control`, "control" replaces "original" in `base_run` and `source_run`.
    """
    counterfactual = ("pair", ["counterfactual"] * len(pairs))
    plain = [pair.pair if isinstance(pair, Swap) else pair for pair in pairs]
    other = ("pair", ["control" if is_from_control(pair) else "original" for pair in plain])
    base, source = (other, counterfactual) if direction == "noising" else (counterfactual, other)
    return {"base_run": base, "source_run": source, "cluster": ("pair", [pair.cluster for pair in plain])}


def chosen_pairs(pairs: Swappable | Iterable[Swappable]) -> list[Swappable]:
    """One or several pairs as a list.

    Raises:
        PatchingError: for an empty list, or an item that is not a `StatementPair`.
    """
    chosen = [pairs] if isinstance(pairs, Swappable) else list(pairs) if isinstance(pairs, Iterable) else []
    if not chosen:
        raise PatchingError("There are no pairs to patch; give at least one StatementPair.")
    for pair in chosen:
        if not isinstance(pair, Swappable):
            raise PatchingError(f"{quoted(pair)} is not a StatementPair; use StatementPair(original, counterfactual).")
    return chosen


def pair_batches(model: HookedEncoder, pairs: Sequence[Swappable], widths: int = 6) -> list[list[int]]:
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


def site_widths(model: HookedEncoder, pairs: Sequence[Swappable], site: Site) -> int:
    """The number of floats that a site has for each token, in multiples of `d_model`."""
    if site.is_map:
        longest = min(model.cfg.n_ctx, max(max(len(pair.original), len(pair.counterfactual)) for pair in pairs))
        return 1 + model.cfg.n_heads * longest // model.cfg.d_model
    return {"result": model.cfg.n_heads, "mlp_pre": 4, "mlp_post": 4}.get(site.name, 1)


def pair_runs(model: HookedEncoder, pairs: Sequence[Swappable], direction: Direction) -> PairRuns:
    """A batch of pairs, tokenized, aligned and padded.

    Roles are assigned in the counterfactual, which contains the cue, and transferred to the original by the alignment.
    For a model without a masked-LM head, the [MASK] of a pair is filled in first (see `statements.readable_by`).

    Raises:
        PatchingError: for a model without a tokenizer, or with a hook on the model itself.
        StatementError: for a statement that cannot be tokenized, or a span that contains no token.
        InputError: for a statement that is longer than the model's context.
    """
    swaps = _swaps(model, pairs)
    original, counterfactual = (padded_run(model, [swap.statements[side] for swap in swaps]) for side in (0, 1))
    base, source = (original, counterfactual) if direction == "noising" else (counterfactual, original)
    # Many small writes are faster in NumPy than in torch.
    shape = tuple(base.tokens.shape)
    source_of, aligned, role = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool), np.full(shape, -1)
    for row, swap in enumerate(swaps):
        links = swap.alignment.original, swap.alignment.counterfactual
        at, there = links if direction == "noising" else links[::-1]
        source_of[row, list(at)] = there
        aligned[row, list(at)] = True
        names = swap.roles[0 if direction == "noising" else 1]
        role[row, : len(names)] = [ROLES.index(name) for name in names]
    of_tokens = (torch.from_numpy(array).to(base.tokens.device) for array in (source_of, aligned, role))
    return PairRuns(tuple(swap.pair for swap in swaps), tuple(swaps), base, source, *of_tokens)


def _swaps(model: HookedEncoder, all_pairs: Sequence[Swappable]) -> list[Swap]:
    """The prepared pairs; pairs that are already prepared are used as they are."""
    pairs = readable_by(
        model.cfg.head, [pair for pair in all_pairs if isinstance(pair, StatementPair)], model.cfg.labels
    )
    # Statements first: cues and affected words are searched only when no statement is too long. The control is not run,
    # so it needs no tokenizer.
    sides = [tokenized(model, [getattr(pair, side) for pair in pairs]) for side in ("original", "counterfactual")]
    made = (
        aligned_swap(complete(pair), original, counterfactual, tokenizer_of(model))
        for pair, original, counterfactual in zip(pairs, *sides, strict=True)
    )
    return [pair if isinstance(pair, Swap) else next(made) for pair in all_pairs]


def tokenizer_of(model: HookedEncoder) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        PatchingError: for a model without one.
    """
    if model.tokenizer is None:
        raise PatchingError("The model has no tokenizer; pass one to HookedEncoder.from_pretrained.")
    return model.tokenizer


def tokenized(model: HookedEncoder, texts: Sequence[str]) -> list[TokenizedStatement]:
    """The tokenized statements.

    Raises:
        PatchingError: for a model without a tokenizer, or with a hook on the model itself.
        StatementError: for a statement that cannot be tokenized.
        InputError: for a statement that is longer than the model's context.
    """
    tokenizer = tokenizer_of(model)
    _check_hooks(model)
    statements = tokenize_all(texts, tokenizer)
    longest = max(statements, key=len, default=None)
    if longest is not None and len(longest) > model.cfg.n_ctx:
        raise InputError(
            f"A statement has {len(longest)} tokens, but the model reads at most {model.cfg.n_ctx}: "
            f"{longest.text[:60]!r}… Shorten it."
        )
    return statements


def tokenized_run(model: HookedEncoder, texts: Sequence[str]) -> Run:
    """The statements, tokenized and padded, as one side of a batch.

    Raises:
        PatchingError, StatementError, InputError: as `tokenized`.
    """
    return padded_run(model, tokenized(model, texts))


def padded_run(model: HookedEncoder, statements: Sequence[TokenizedStatement]) -> Run:
    """The tokenized statements, padded, as one side of a batch.

    Raises:
        PatchingError: for a model with a hook on the model itself.
    """
    _check_hooks(model)
    tokens, mask = pad_tokens([statement.ids for statement in statements], model.cfg.pad_token_id, model.device)
    types = pad_token_types([statement.token_types for statement in statements], [*map(len, statements)], model.device)
    return Run(tuple(statements), tokens, mask, types)


def _check_hooks(model: HookedEncoder) -> None:
    if has_own_hooks(model):
        raise PatchingError(
            "The model itself has a hook (or a replaced forward), which would have no effect, because objectives use "
            "the last hidden states. Remove it, or hook a part such as model.unembed or model.blocks[0]."
        )


def cached(
    model: HookedEncoder, run: Run, names: Sequence[str]
) -> tuple[Float[Tensor, "pair pos d_model"], dict[str, Tensor]]:
    """The last hidden states of an unpatched run, and the activations at the hooks in `names`."""
    found: dict[str, Tensor] = {}
    # A cache omits some hooks unless they were requested; a forward hook on them always works.
    final = model.run_with_hooks(
        run.tokens,
        token_type_ids=run.token_types,
        one_zero_attention_mask=run.mask,
        stop_at_layer=model.cfg.n_layers,
        fwd_hooks=[(name, keep_in(found, name)) for name in names],
    )
    return final, found


def has_site(model: HookedEncoder, site: Site) -> bool:
    """Whether a model computes the activation of a site."""
    module, _, hook = site.hook.format(layer=0).rpartition(".")
    return hasattr(model.get_submodule(module), hook)


def check_site(model: HookedEncoder, site: Site) -> None:
    """Check that a model computes the activation of a site.

    Raises:
        PatchingError: if it does not.
    """
    if not has_site(model, site):
        existing = ", ".join(name for name, other in SITES.items() if has_site(model, other))
        raise PatchingError(f"{model.cfg.model_name!r} has no {site.name!r}; its sites are {existing}.")


def site_activations(
    model: HookedEncoder, run: Run, site: Site
) -> tuple[Float[Tensor, "pair pos d_model"], list[Float[Tensor, "pair ..."]]]:
    """The last hidden states of an unpatched run, and a site's activation in each layer (one entry for the embeddings).

    Raises:
        PatchingError: for a site that the model does not have.
    """
    check_site(model, site)
    names = [site.hook.format(layer=layer) for layer in range(model.cfg.n_layers if site.has_layers else 1)]
    final, found = cached(model, run, names)
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
