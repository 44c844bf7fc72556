"""Exact patched runs: many runs per call, each computing only what the patch can change and the objective needs.

Three savings make a patched run cheaper than a full forward pass. It resumes at the first patched layer. It computes
only the rows (vectors of one run and token) that the patch can change: before the first attention after the patch,
those are the patched tokens alone. In the last block, it computes only the rows that the objective reads.

`run_hooked` is the simple version: hooks on the model and full forward passes. It is used whenever a part of the model
has hooks (`layers.is_hooked`), so that the caller's hooks act in patched runs as in any other run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from negprobe.models import HookedEncoder
from negprobe.models.attention import AttentionContext
from negprobe.models.block import Block
from negprobe.models.hooked import is_hooked
from negprobe.patching.edits import Edit, replaced, replaced_queries, replaced_rows, touched
from negprobe.patching.objectives import Readout
from negprobe.patching.runs import Run, cached
from negprobe.patching.sites import SITES

# Limits on the floats of one call: in the MLP's hidden layer (about the size of a CPU's cache), and in the patterns.
_HIDDEN_BUDGET = {"cpu": 2**22, "other": 2**28}
_PATTERN_BUDGET = 2**27

_INPUTS = ("q", "k", "v")
# The sites between attention's input and z, by how an edit there changes z: at the same token, or at all queries.
_MAPS = tuple(name for name, site in SITES.items() if site.is_map)
_QUERY_SITES, _KEY_SITES = ("q", "rot_q", *_MAPS), ("k", "rot_k", "v")
_KEPT = ("resid_pre", *_INPUTS, "z")


@dataclass(frozen=True)
class BaseRun:
    """Unpatched activations that patched runs resume from.

    Attributes:
        run: The statements.
        resid: The input of each block, followed by the last hidden states.
        q: The queries of each layer.
        k: The keys of each layer.
        v: The values of each layer.
        z: The head outputs of each layer, before W_O.
    """

    run: Run
    resid: tuple[Float[Tensor, "pair pos d_model"], ...]
    q: tuple[Float[Tensor, "pair pos head d_head"], ...]
    k: tuple[Float[Tensor, "pair pos head d_head"], ...]
    v: tuple[Float[Tensor, "pair pos head d_head"], ...]
    z: tuple[Float[Tensor, "pair pos head d_head"], ...]


@dataclass(frozen=True)
class _Rows:
    """The rows of the residual stream that can differ from the unpatched run, sorted by run and position."""

    run: Int[Tensor, " row"]
    pos: Int[Tensor, " row"]
    values: Float[Tensor, "row d_model"]

    def onto(
        self,
        unpatched: Float[Tensor, "pair pos *vector"],
        pair: Int[Tensor, " run"],
        values: Float[Tensor, "row *vector"],
    ) -> Float[Tensor, "run pos *vector"]:
        """The whole activation: the unpatched one, with `values` at these rows."""
        n_runs, n_pos = len(pair), unpatched.shape[1]
        if len(values) == n_runs * n_pos:
            return values.unflatten(0, (n_runs, n_pos))
        return unpatched[pair].index_put((self.run, self.pos), values)


@torch.no_grad()
def base_run(model: HookedEncoder, run: Run) -> BaseRun:
    """The unpatched activations of a run, from which patched runs resume."""
    layers = range(model.cfg.n_layers)
    if has_hooks(model):
        names = {kind: [SITES[kind].hook.format(layer=layer) for layer in layers] for kind in _KEPT}
        x, cache = cached(model, run, [name for names_of_kind in names.values() for name in names_of_kind])
        return BaseRun(run, *_with_final({kind: [cache[name] for name in names[kind]] for kind in _KEPT}, x))
    context = model.attention_context(run.mask)
    # The model computes its own embeddings, so that it checks the tokens as in any other run.
    x = model(run.tokens, token_type_ids=run.token_types, one_zero_attention_mask=run.mask, stop_at_layer=0)
    kept: dict[str, list[Tensor]] = {kind: [] for kind in _KEPT}
    for layer in layers:
        block = _block_of(model, layer)
        attn_in = block.attn_in(x)
        q, k, v = (block.attn.project(site, attn_in) for site in _INPUTS)
        z = block.attn.mix(block.attn.placed("q", q), block.attn.placed("k", k), v, context)
        for kind, activation in zip(_KEPT, (x, q, k, v, z), strict=True):
            kept[kind].append(activation)
        # Patched runs compute rows, so the same shapes are used here to round in the same way.
        rows = block.after_attention(x.flatten(0, 1), block.attn.out(z.flatten(0, 1)))
        x = rows.unflatten(0, x.shape[:2])
    return BaseRun(run, *_with_final(kept, x))


def base_runs(model: HookedEncoder, first: Run, second: Run) -> tuple[BaseRun, BaseRun]:
    """The unpatched activations of both sides of the same pairs, computed in one batch."""
    n_pairs, n_pos = len(first.statements), max(first.tokens.shape[1], second.tokens.shape[1])

    def both(name: str, padding: int) -> Int[Tensor, "run pos"]:
        rows = (getattr(side, name) for side in (first, second))
        return torch.cat([F.pad(row, (0, n_pos - row.shape[1]), value=padding) for row in rows])

    tokens, mask, types = both("tokens", model.cfg.pad_token_id), both("mask", 0), both("token_types", 0)
    together = base_run(model, Run((*first.statements, *second.statements), tokens, mask, types))
    first_base, second_base = (
        BaseRun(
            side,
            *(
                tuple(t[rows, : side.tokens.shape[1]] for t in getattr(together, name))
                for name in ("resid", *_KEPT[1:])
            ),
        )
        for side, rows in ((first, slice(n_pairs)), (second, slice(n_pairs, None)))
    )
    return first_base, second_base


def _with_final(kept: Mapping[str, Sequence[Tensor]], final: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The activations of a `BaseRun`, in the order of its fields; the last hidden states follow the blocks' inputs."""
    return (tuple((*kept[kind], final) if kind == "resid_pre" else kept[kind]) for kind in _KEPT)


def chunks(model: HookedEncoder, n_runs: int, n_pos: int) -> Iterator[slice]:
    """Slices of `n_runs` runs of `n_pos` tokens, each as large as is fastest in one call."""
    assert model.cfg.d_mlp is not None
    hidden = _HIDDEN_BUDGET.get(str(model.device), _HIDDEN_BUDGET["other"]) // (n_pos * model.cfg.d_mlp)
    step = max(1, min(hidden, _PATTERN_BUDGET // (model.cfg.n_heads * n_pos**2)))
    for start in range(0, n_runs, step):
        yield slice(start, min(start + step, n_runs))


def run_edited(
    model: HookedEncoder, base: BaseRun, pair: Int[Tensor, " run"], edits: Sequence[Edit], readout: Readout
) -> Float[Tensor, " run"]:
    """The objective of patched runs.

    Args:
        model: The model.
        base: The unpatched runs.
        pair: The row of `base` that each patched run starts from.
        edits: The edits of all layers; each edit covers all patched runs.
        readout: The objective's readout for the base side.
    """
    if has_hooks(model):
        return run_hooked(model, base, pair, edits, readout)
    first = min((edit.layer for edit in edits), default=model.cfg.n_layers)
    last = model.cfg.n_layers - 1
    real = base.run.mask[pair]
    context = model.attention_context(real)
    read_positions = None if readout.positions is None else readout.positions[pair]
    rows = _embedded(model, base, pair, edits, real.bool())
    for layer in range(first, model.cfg.n_layers):
        layer_edits = {
            site: [edit for edit in edits if edit.site == site and edit.layer == layer]
            for site in SITES
            if SITES[site].has_layers
        }
        rows = _block(
            _block_of(model, layer),
            layer,
            base,
            pair,
            layer_edits,
            rows,
            real.bool(),
            context,
            read_positions if layer == last else None,
        )
    if read_positions is None:
        return readout.evaluate(
            base.resid[-1][pair] if rows is None else rows.onto(base.resid[-1], pair, rows.values), pair
        )
    final = base.resid[-1][pair[:, None], read_positions]
    if rows is not None:
        row, slot = (read_positions[rows.run] == rows.pos[:, None]).nonzero(as_tuple=True)
        final = final.index_put((rows.run[row], slot), rows.values[row])
    return readout.evaluate(final, pair)


def run_hooked(
    model: HookedEncoder, base: BaseRun, pair: Int[Tensor, " run"], edits: Sequence[Edit], readout: Readout
) -> Float[Tensor, " run"]:
    """The objective of patched runs, as `run_edited`, computed with hooks on the model.

    Used for models that have hooks, and to test `run_edited`. Without hooks or edited embeddings, runs resume at the
    first edited layer. All rows are computed.
    """

    def hook_of(edit: Edit) -> tuple[str, Callable[[Tensor, HookPoint], Tensor]]:
        return SITES[edit.site].hook.format(layer=edit.layer), lambda activation, hook: replaced(activation, edit)

    run = base.run
    resume: dict[str, Any] = {"one_zero_attention_mask": run.mask[pair], "stop_at_layer": model.cfg.n_layers}
    # The kept activations already include the effect of the caller's hooks, so hooked models start from the tokens.
    if has_hooks(model) or any(not SITES[edit.site].has_layers for edit in edits):
        start = run.tokens[pair]
        resume["token_type_ids"] = run.token_types[pair]
    else:
        resume["start_at_layer"] = min((edit.layer for edit in edits), default=model.cfg.n_layers - 1)
        start = base.resid[resume["start_at_layer"]][pair]
    final = model.run_with_hooks(start, fwd_hooks=[hook_of(edit) for edit in edits], **resume)
    return readout(final, pair)


def _block_of(model: HookedEncoder, layer: int) -> Block:
    block = model.blocks[layer]
    assert isinstance(block, Block)
    return block


def has_hooks(model: HookedEncoder) -> bool:
    """Whether a part of the model has hooks, which `run_edited` would bypass."""
    return is_hooked(*model.children())


def _embedded(
    model: HookedEncoder,
    base: BaseRun,
    pair: Int[Tensor, " run"],
    edits: Sequence[Edit],
    real: Bool[Tensor, "run pos"],
) -> _Rows | None:
    """The rows of the first block's input that edits of the embeddings can change; None without such edits."""
    embeddings = [edit for edit in edits if not SITES[edit.site].has_layers]
    if not embeddings:
        return None
    total = model.embed.summands(base.run.tokens[pair], base.run.token_types[pair])
    for edit in embeddings:
        if edit.site in total:
            total[edit.site] = replaced(total[edit.site], edit)
    resid = model.embed_project(model.embed.ln(sum(total.values())))
    for edit in embeddings:
        if edit.site == "full_embed":
            resid = replaced(resid, edit)
    run, pos = (touched(embeddings, real) & real).nonzero(as_tuple=True)
    return _Rows(run, pos, resid[run, pos])


def _block(
    block: Block,
    layer: int,
    base: BaseRun,
    pair: Int[Tensor, " run"],
    layer_edits: Mapping[str, Sequence[Edit]],
    rows: _Rows | None,
    real: Bool[Tensor, "run pos"],
    context: AttentionContext,
    read_positions: Int[Tensor, "run query"] | None,
) -> _Rows | None:
    """The rows of a block's output that can differ from the unpatched run: all, or those at `read_positions`."""
    x = base.resid[layer]
    if layer_edits["resid_pre"]:
        rows = _edited_input(x, pair, layer_edits["resid_pre"], rows, real)
    edits = [edit for site_edits in layer_edits.values() for edit in site_edits]
    if rows is None and not edits:
        return None
    read = None if rows is None else replace(rows, values=block.attn_in(rows.values))
    if block.is_pre_norm and layer_edits["ln1_out"]:
        read = _edited_input(block.attn_in(x), pair, layer_edits["ln1_out"], read, real)
    attention_changes = read is not None or any(layer_edits[site] for site in _KEY_SITES)
    if attention_changes and read_positions is not None:
        # A changed key can change the output at every query, so every position that is needed is computed.
        run = torch.arange(len(pair), device=pair.device).repeat_interleave(read_positions.shape[1])
        pos = read_positions.flatten()
        z = _mixed(block, layer, base, pair, layer_edits, read, context, read_positions).flatten(0, 1)
    else:
        changed = real if attention_changes else touched(edits, real) & real
        if read_positions is not None:
            changed = changed & torch.zeros_like(real).scatter(1, read_positions, True)
        run, pos = changed.nonzero(as_tuple=True)
        if attention_changes or any(layer_edits[site] for site in _QUERY_SITES):
            z = _at(_mixed(block, layer, base, pair, layer_edits, read, context, None), run, pos)
        else:
            z = base.z[layer][pair[run], pos]
    if rows is None:
        x_rows = x[pair[run], pos]
    elif len(rows.values) == len(run) and read_positions is None:
        x_rows = rows.values
    else:
        whole = rows.onto(x, pair, rows.values)
        # `read_positions` may be in any order.
        x_rows = _at(whole, run, pos) if read_positions is None else whole[run, pos]

    def edit(site: str, activation: Tensor) -> Tensor:
        for site_edit in layer_edits[site]:
            activation = replaced_rows(activation, site_edit, run, pos)
        return activation

    attn_out = block.attn.out(z, edit, by_head=bool(layer_edits["result"]))
    return _Rows(run, pos, block.after_attention(x_rows, attn_out, edit))


def _at(whole: Float[Tensor, "run pos *vector"], run: Int[Tensor, " row"], pos: Int[Tensor, " row"]) -> Tensor:
    """The rows at these runs and positions. If these are all rows, in order, nothing is copied."""
    return whole.flatten(0, 1) if len(run) == whole.shape[0] * whole.shape[1] else whole[run, pos]


def _edited_input(
    x: Float[Tensor, "pair pos d_model"],
    pair: Int[Tensor, " run"],
    edits: Sequence[Edit],
    rows: _Rows | None,
    real: Bool[Tensor, "run pos"],
) -> _Rows:
    """The rows of an input, of a block or of its attention, that can differ from the unpatched one, after its edits."""
    changed = touched(edits, real) & real
    if rows is None:
        run, pos = changed.nonzero(as_tuple=True)
        values = x[pair[run], pos]
    else:
        changed[rows.run, rows.pos] = True
        run, pos = changed.nonzero(as_tuple=True)
        values = rows.onto(x, pair, rows.values)[run, pos]
    for edit in edits:
        values = replaced_rows(values, edit, run, pos)
    return _Rows(run, pos, values)


def _mixed(
    block: Block,
    layer: int,
    base: BaseRun,
    pair: Int[Tensor, " run"],
    layer_edits: Mapping[str, Sequence[Edit]],
    read: _Rows | None,
    context: AttentionContext,
    queries: Int[Tensor, "run query"] | None,
) -> Float[Tensor, "run query head d_head"]:
    """The heads' outputs z before edits of z, at the given queries or at all; `read` is the changed input."""
    n_pos = base.resid[layer].shape[1]
    whole = read is not None and len(read.values) == len(pair) * n_pos
    maps = any(layer_edits[site] for site in _MAPS)
    folds = block.architecture.linear_keys and not any(layer_edits[site] for site in (*_QUERY_SITES, *_KEY_SITES))
    if folds and queries is not None and whole and 2 * queries.shape[1] < n_pos:
        assert read is not None
        return block.attn.mix_of_few(read.values.unflatten(0, (len(pair), n_pos)), queries, context)

    def edit(site: str, activation: Tensor) -> Tensor:
        for site_edit in layer_edits[site]:
            activation = replaced(activation, site_edit)
        return activation

    def projected(site: str) -> Float[Tensor, "run pos head d_head"]:
        unpatched = getattr(base, site)[layer]
        if read is None:
            return edit(site, unpatched[pair])
        return edit(site, read.onto(unpatched, pair, block.attn.project(site, read.values)))

    q, k, v = map(projected, _INPUTS)
    q, k = block.attn.placed("q", q, edit), block.attn.placed("k", k, edit)
    rows_of_maps = torch.arange(n_pos, device=pair.device).expand(len(pair), -1) if queries is None else queries
    if queries is not None:
        q = torch.take_along_dim(q, rearrange(queries, "run query -> run query 1 1"), dim=1)

    def edit_map(site: str, attention: Tensor) -> Tensor:
        for site_edit in layer_edits[site]:
            attention = replaced_queries(attention, site_edit, rows_of_maps)
        return attention

    return block.attn.mix(q, k, v, context, edit_map if maps else None, queries)
