"""The slow, obvious way to patch: whole forward passes of unpadded statements, entries overwritten one after another.

Of the package only the model and its hooks are used; hook names are written by hand, and so are the alignments and the
roles that the callers give.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from negprobe import HookedEncoder
from negprobe.statements import ROLES, StatementPair
from tests.support import tiny_models
from tests.support.sample_pairs import Known

EMBEDDINGS = {
    "embed": "embed.hook_embed",
    "pos_embed": "embed.hook_pos_embed",
    "token_type_embed": "embed.hook_token_type_embed",
    "full_embed": "hook_full_embed",
}
HEADS = {name: f"attn.hook_{name}" for name in ("q", "k", "v", "rot_q", "rot_k", "z", "result")}
MAPS = {name: f"attn.hook_{name}" for name in ("attn_scores", "pattern")}
VECTORS = (
    {
        name: f"hook_{name}"
        for name in ("resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post", "normalized_resid_post")
    }
    | {f"{norm}_out": f"{norm}.hook_out" for norm in ("ln1", "ln2")}
    | {f"mlp_{name}": f"mlp.hook_{name}" for name in ("pre", "pre_linear", "post")}
)
SITES = [*EMBEDDINGS, *HEADS, *MAPS, *VECTORS]
# Those of a model without rotary positions and with a plain MLP.
BERT_SITES = [site for site in SITES if site not in ("rot_q", "rot_k", "mlp_pre_linear")]

Write = Callable[[Tensor], None]
"""Changes the activation of one run in place: [pos ...], or [head query key] of a map."""
Read = Callable[[Tensor], Tensor]
"""One number of each of several outputs of the model."""
Cell = tuple[tuple[int, ...], list[int], list[int]]
"""Of a sweep: its index, its positions and its heads."""


def hook_name(site: str, layer: int) -> str:
    return EMBEDDINGS[site] if site in EMBEDDINGS else f"blocks.{layer}.{(HEADS | MAPS | VECTORS)[site]}"


def sites_of(model: HookedEncoder) -> list[str]:
    """The sites that a model has."""
    names = {name for name, _ in model.named_modules()}
    return [site for site in SITES if hook_name(site, 0) in names]


def n_layers(model: HookedEncoder, site: str) -> int:
    return 1 if site in EMBEDDINGS else model.cfg.n_layers


def parts_of(site: str) -> list[tuple[str, ...]]:
    """Everything a sweep of the site can go by, the finest first."""
    plain: list[tuple[str, ...]] = [("position",), ("role",)]
    return [("head", "position"), ("head", "role"), ("head",), *plain] if site in HEADS | MAPS else plain


def inputs(model: HookedEncoder, text: str) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, token types and mask of one statement, of one text or of two."""
    premise, _, hypothesis = text.partition(" [SEP] ")
    return model.to_tokens((premise, hypothesis) if hypothesis else text)


def runs(model: HookedEncoder, text: str, hook: str, writes: Sequence[Write]) -> Tensor:
    """The model's outputs of runs of one statement, each with its own write: one row a run, all rows computed whole."""

    def overwrite(activation: Tensor, hook: object) -> Tensor:
        activation = activation.clone()
        for row, write in zip(activation, writes, strict=True):
            write(row)
        return activation

    tokens, types, mask = (tensor.expand(len(writes), -1) for tensor in inputs(model, text))
    with torch.no_grad():
        return model.run_with_hooks(
            tokens, token_type_ids=types, one_zero_attention_mask=mask, fwd_hooks=[(hook, overwrite)]
        )


def unpatched(model: HookedEncoder, text: str, site: str) -> list[Tensor]:
    """A site's activation in every layer of an unpatched run, without the batch axis."""
    seen: list[Tensor] = []

    def look(activation: Tensor, hook: object) -> None:
        seen.append(activation[0].clone())

    tokens, types, mask = inputs(model, text)
    with torch.no_grad():
        model.run_with_hooks(
            tokens,
            token_type_ids=types,
            one_zero_attention_mask=mask,
            fwd_hooks=[(hook_name(site, layer), look) for layer in range(n_layers(model, site))],
        )
    return seen


def in_base_order(site: str, source: Tensor, source_of: dict[int, int], n_pos: int) -> Tensor:
    """The source's activation at the base's positions; NaN where there is none, so that it is noticed if used."""
    if site in MAPS:
        new = source.new_full((source.shape[0], n_pos, n_pos), torch.nan)
        for query in source_of:
            for key in source_of:
                new[:, query, key] = source[:, source_of[query], source_of[key]]
        return new
    new = source.new_full((n_pos, *source.shape[1:]), torch.nan)
    for position in source_of:
        new[position] = source[source_of[position]]
    return new


def writing(
    site: str,
    new: Tensor,
    positions: Sequence[int],
    heads: Sequence[int],
    keys: Sequence[int],
    renormalize: bool = False,
) -> Write:
    """Puts the new values into these positions (of a map, queries) of these heads (and keys)."""

    def write(row: Tensor) -> None:
        for position in positions:
            if site in MAPS:
                for head in heads:
                    row[head, position, keys] = new[head, position, keys]
                    if renormalize:
                        row[head, position] /= row[head, position].sum()
            elif site in HEADS:
                for head in heads:
                    row[position, head] = new[position, head]
            else:
                row[position] = new[position]

    return write


def cells(
    by: tuple[str, ...], roles: Sequence[str], n_heads: int
) -> Iterator[tuple[tuple[int, ...], list[int], list[int]]]:
    """Every cell of a sweep."""
    every = list(range(len(roles)))
    tokens = {
        "position": [[position] for position in every],
        "role": [[position for position in every if roles[position] == role] for role in ROLES],
    }.get(by[-1], [every])
    heads = [[head] for head in range(n_heads)] if "head" in by else [list(range(n_heads))]
    for h, of_heads in enumerate(heads):
        for t, of_tokens in enumerate(tokens):
            index = [h] if by == ("head",) else [h, t] if "head" in by else [t]
            yield tuple(index), of_tokens, of_heads


def sweep(
    model: HookedEncoder,
    text: str,
    site: str,
    by: tuple[str, ...],
    roles: Sequence[str],
    new: Sequence[Tensor],
    available: Collection[int],
    read: Read,
    *,
    keys: Collection[int] | None = None,
    renormalize: bool = False,
) -> np.ndarray:
    """The objective of every patch, `[layer (head) (position|role)]`; NaN where there is nothing to replace.

    Args:
        model: The model.
        text: The base.
        site: The site.
        by: What varies, heads first.
        roles: The roles of the base's tokens.
        new: For each layer what the activation becomes, at the base's positions.
        available: The base's positions that have a replacement.
        read: The objective.
        keys: Of a map, the keys whose edges are replaced; by default those available.
        renormalize: Whether patched rows are scaled to sum 1.
    """
    key_list = sorted(available if keys is None else set(keys) & set(available))
    found = []
    for layer in range(n_layers(model, site)):
        everything = list(cells(by, roles, model.cfg.n_heads))
        shape = np.array([index for index, _, _ in everything]).max(axis=0) + 1
        values = np.full(shape, np.nan)
        chosen = [(index, [p for p in positions if p in available], heads) for index, positions, heads in everything]
        chosen = [cell for cell in chosen if cell[1] and (key_list or site not in MAPS)]
        if chosen:
            writes = [writing(site, new[layer], tokens, heads, key_list, renormalize) for _, tokens, heads in chosen]
            outputs = read(runs(model, text, hook_name(site, layer), writes))
            for (index, _, _), value in zip(chosen, outputs.tolist(), strict=True):
                values[index] = value
        found.append(values)
    return np.stack(found)


def swaps(
    model: HookedEncoder,
    of: Known,
    site: str,
    by: tuple[str, ...],
    direction: str,
    *,
    keys: str | None = None,
    renormalize: bool = False,
    objective: Callable[[HookedEncoder, StatementPair, str], Read] | None = None,
) -> np.ndarray:
    """`sweep` with the other run's activations."""
    base, source = of.texts(direction)
    roles, source_of = of.base_roles(direction), of.source_of(direction)
    new = [in_base_order(site, found, source_of, len(roles)) for found in unpatched(model, source, site)]
    return sweep(
        model,
        base,
        site,
        by,
        roles,
        new,
        source_of,
        (objective or default)(model, of.pair, base),
        keys=None if keys is None else [at for at, role in enumerate(roles) if role == keys],
        renormalize=renormalize,
    )


def default(model: HookedEncoder, pair: StatementPair, text: str) -> Read:
    """What negprobe reads by default, from the model's full output."""
    if model.cfg.head == "masked_lm":
        assert model.tokenizer is not None
        position = inputs(model, text)[0][0].tolist().index(model.tokenizer.mask_token_id)
        target, foil = model.tokenizer.convert_tokens_to_ids([pair.target, pair.foil])
        return lambda logits: logits[:, position, target] - logits[:, position, foil]
    if model.cfg.head == "classification":
        target, foil = (list(model.cfg.labels).index(label) for label in (pair.target, pair.foil))
        return lambda logits: logits[:, target] - logits[:, foil]
    with torch.no_grad():
        original, counterfactual = model(pair.original), model(pair.counterfactual)
    return lambda e: cosine_similarity(e, original) - cosine_similarity(e, counterfactual)


def tiny_model(family: str, head: str, dtype: torch.dtype = torch.float64) -> HookedEncoder:
    """A model of one's own, to be changed."""
    return tiny_models.pair(family, head, dtype)[1]


def pre_norm_model(**changes: object) -> HookedEncoder:
    """A random model whose norms precede attention and the MLP, with BERT's tokenizer."""
    _, bert = tiny_models.pair("bert", "masked_lm", torch.float64)
    model = HookedEncoder(replace(bert.cfg, norms="pre", **changes), bert.tokenizer).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(1 + noise if name.endswith(".w") else noise)
    return model
