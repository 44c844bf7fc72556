"""The objective of pairs with all components outside a set ablated, for many sets and pairs at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, total_ordering
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.progress import Tick, portion
from negprobe.models import HookedEncoder
from negprobe.patching.edits import Edit
from negprobe.patching.effects import MIN_GAP
from negprobe.patching.engine import BaseRun, base_runs, chunks, run_edited
from negprobe.patching.margins import check_one_logit, foil_pairs
from negprobe.patching.objectives import Objective, Readout, readout_for, score_margin, single_logit
from negprobe.patching.replacements import Replacement, RoleMeans, base_activations, replacement, role_means
from negprobe.patching.runs import Direction, pair_batches, pair_runs
from negprobe.patching.sites import SITES
from negprobe.statements import Swap, Swappable

Ablation = Literal["swap", "mean", "zero"]
"""The output of a component outside a circuit. swap: its output in the source run, at aligned tokens; mean: its mean
output over the tokens of the same role; zero: zeros."""

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

_SITES = ("z", "mlp_out")

# Limit on the floats of activations kept between calls, and the floats per token and layer, in multiples of d_model.
_KEPT_BUDGET = 2**28
_KEPT_WIDTHS = 12


@checked
@total_ordering
@dataclass(frozen=True)
class Component:
    """A head (its z) or an MLP (its mlp_out); ordered by layer, with the heads of a layer before its MLP.

    Attributes:
        layer: The layer.
        head: The head in this layer; None for the MLP.
    """

    layer: int
    head: int | None

    def __str__(self) -> str:
        """A short name: "2.1" for head 1 of layer 2, "mlp 2" for the MLP."""
        return f"mlp {self.layer}" if self.head is None else f"{self.layer}.{self.head}"

    def __lt__(self, other: "Component") -> bool:
        return (self.layer, self.head is None, self.head or 0) < (other.layer, other.head is None, other.head or 0)

    @classmethod
    def named(cls, name: str) -> "Component":
        """The component with this short name.

        Raises:
            ValueError: if `name` is not the short name of a component.
        """
        if name.startswith("mlp "):
            return cls(int(name.removeprefix("mlp ")), None)
        layer, head = name.split(".")
        return cls(int(layer), int(head))


ComponentSet = frozenset[Component]


def all_components(n_layers: int, n_heads: int, mlps: bool) -> tuple[Component, ...]:
    """All heads and, if `mlps`, all MLPs, in order."""
    parts: list[int | None] = [*range(n_heads), *([None] if mlps else [])]
    return tuple(Component(layer, head) for layer in range(n_layers) for head in parts)


@dataclass(frozen=True)
class _Batch:
    """Pairs of similar length: indices, base run, new activations of ablated components, readout, source objectives."""

    indices: list[int]
    base: BaseRun
    new: dict[str, Replacement]
    readout: Readout
    source: Float[Tensor, " pair"]


@dataclass(frozen=True)
class AblatablePairs:
    """Pairs whose components are ready to be ablated.

    Attributes:
        model: The model.
        components: The components that can be in a set; nothing else is ever ablated.
        batches: Functions that return the pairs' runs and activations, from memory or by running the pairs again.
        full: The objective of each unpatched base run.
        ablated: The objective of each base run with all components ablated.
        source: The objective of each unpatched source run.
        clusters: The label of each pair's cluster.
        foils: For `score_margin`, the pairs with the foil as their document, whose objectives are subtracted.
    """

    model: HookedEncoder
    components: tuple[Component, ...]
    batches: tuple[Callable[[], _Batch], ...]
    full: Float[np.ndarray, " pair"]
    ablated: Float[np.ndarray, " pair"]
    source: Float[np.ndarray, " pair"]
    clusters: tuple[str, ...]
    foils: "AblatablePairs | None" = None

    @property
    def near_zero_gap(self) -> list[int]:
        """The pairs whose objective changes by less than `MIN_GAP`, or becomes NaN, when all components are ablated."""
        return np.flatnonzero(~(np.abs(self.full - self.ablated) >= MIN_GAP)).tolist()


@torch.no_grad()
def ablatable(
    model: HookedEncoder,
    pairs: Sequence[Swappable],
    components: Sequence[Component],
    *,
    direction: Direction,
    ablation: Ablation,
    objective: Objective,
    reference: Sequence[Swappable],
) -> AblatablePairs:
    """The pairs with the activations that their ablations need: about 12 × `d_model` floats per token and layer.

    Up to 1 GiB (in float32) is kept in memory; pairs beyond that are run again for each call of `set_objectives`.

    Args:
        model: The model.
        pairs: The pairs.
        components: The components that can be ablated.
        direction: Which run is the base, as in `patch_sweep`.
        ablation: The kind of ablation.
        objective: The objective.
        reference: The pairs whose two statements "mean" averages over.

    Raises:
        PatchingError: for an objective that the model or a pair does not have.
        StatementError, InputError: for a statement that cannot be run.
    """
    if objective is score_margin:
        check_one_logit(model)
        targets, foils = (
            ablatable(
                model,
                documents(pairs),
                components,
                direction=direction,
                ablation=ablation,
                objective=single_logit,
                reference=documents(reference),
            )
            for documents in (list, foil_pairs)
        )
        margins = {name: getattr(targets, name) - getattr(foils, name) for name in ("full", "ablated", "source")}
        return replace(targets, **margins, foils=foils)
    means = {site: role_means(model, reference, SITES[site]) for site in _SITES} if ablation == "mean" else {}
    prepare = partial(_prepared, model, pairs, direction=direction, ablation=ablation, objective=objective, means=means)
    outside = _outside(model, components, [frozenset(components), frozenset()])
    batches: list[Callable[[], _Batch]] = []
    full, ablated, source = (np.full(len(pairs), np.nan) for _ in range(3))
    budget = _KEPT_BUDGET
    for indices in pair_batches(model, pairs, _KEPT_WIDTHS):
        batch = prepare(indices)
        full[indices], ablated[indices] = _objectives(model, batch, outside).cpu().double().numpy()
        source[indices] = batch.source.cpu().double().numpy()
        budget -= batch.base.run.tokens.numel() * model.cfg.n_layers * model.cfg.d_model * _KEPT_WIDTHS
        batches.append(partial(_itself, batch) if budget >= 0 else partial(prepare, indices))
    clusters = tuple((pair.pair if isinstance(pair, Swap) else pair).cluster for pair in pairs)
    return AblatablePairs(model, tuple(components), tuple(batches), full, ablated, source, clusters)


def _itself(batch: _Batch) -> _Batch:
    return batch


@torch.no_grad()
def _prepared(
    model: HookedEncoder,
    pairs: Sequence[Swappable],
    indices: list[int],
    *,
    direction: Direction,
    ablation: Ablation,
    objective: Objective,
    means: Mapping[str, RoleMeans],
) -> _Batch:
    """The batch of the pairs at `indices`."""
    runs = pair_runs(model, [pairs[index] for index in indices], direction)
    base, source_run = base_runs(model, runs.base, runs.source)
    new = {
        site: replacement(
            model,
            runs,
            base_activations(model, base, SITES[site]),
            source_run,
            SITES[site],
            ablation,
            means=means.get(site),
        )
        for site in _SITES
    }
    all_pairs = torch.arange(len(indices), device=model.device)
    source = readout_for(objective, model, runs, runs.source)(source_run.resid[-1], all_pairs)
    return _Batch(indices, base, new, readout_for(objective, model, runs, runs.base), source)


def set_objectives(
    pairs: AblatablePairs, sets: Sequence[ComponentSet], tick: Tick | None = None
) -> Float[np.ndarray, "pair set"]:
    """The objective of each pair's base run with all components outside a set ablated, for each set."""
    known = {frozenset(pairs.components): pairs.full, frozenset[Component](): pairs.ablated}
    new = [members for members in dict.fromkeys(sets) if members not in known]
    values = np.full((len(new), len(pairs.full)), np.nan)
    outside = _outside(pairs.model, pairs.components, new)
    done, own_tick = 0, tick if pairs.foils is None else portion(tick, 0, 1, 2)
    for make_batch in pairs.batches:
        batch = make_batch()
        values[:, batch.indices] = _objectives(pairs.model, batch, outside).cpu().double().numpy()
        done += len(new) * len(batch.indices)
        if own_tick is not None:
            own_tick(done, values.size)
    if pairs.foils is not None and new:
        values -= set_objectives(pairs.foils, new, portion(tick, 1, 2, 2)).T
    known |= dict(zip(new, values, strict=True))
    return np.stack([known[members] for members in sets], axis=1)


def set_results(pairs: AblatablePairs, sets: Sequence[ComponentSet], tick: Tick | None = None) -> xr.Dataset:
    """`set_objectives` as a dataset; its `effect` is the faithfulness of each set.

    Returns:
        A dataset with `patched` `[pair set]`, `base` `[pair]` (all components ablated) and `source` `[pair]` (nothing
        ablated). `effects.effect` is then `(m(C) - m(∅)) / (m(N) - m(∅))`, `mean_effect` the ratio of means, and
        `averages` adds its bootstrap interval.
    """
    values = set_objectives(pairs, sets, tick)
    return xr.Dataset(
        {"patched": (("pair", "set"), values), "base": ("pair", pairs.ablated), "source": ("pair", pairs.full)},
        coords={
            "pair": np.arange(len(values)),
            "set": np.arange(len(sets)),
            "cluster": ("pair", list(pairs.clusters)),
        },
    )


def _outside(
    model: HookedEncoder, components: Sequence[Component], sets: Sequence[ComponentSet]
) -> Bool[Tensor, "set layer part"]:
    """The components that each set ablates; a layer's parts are its heads and, last, its MLP."""
    outside = np.zeros((len(sets), model.cfg.n_layers, model.cfg.n_heads + 1), dtype=bool)
    for row, members in enumerate(sets):
        for component in components:
            part = model.cfg.n_heads if component.head is None else component.head
            outside[row, component.layer, part] = component not in members
    return torch.from_numpy(outside).to(model.device)


@torch.no_grad()
def _objectives(
    model: HookedEncoder, batch: _Batch, outside: Bool[Tensor, "set layer part"]
) -> Float[Tensor, "set pair"]:
    n_sets, (n_pairs, n_pos) = len(outside), batch.base.run.tokens.shape
    # A chunk resumes at its first changed layer, so runs with the same first changed layer are put together.
    touched = outside.any(dim=2)
    first = torch.where(touched.any(dim=1), touched.long().argmax(dim=1), model.cfg.n_layers)
    number = first.argsort(stable=True).repeat_interleave(n_pairs)
    pair = torch.arange(n_pairs, device=model.device).repeat(n_sets)
    values = torch.empty(n_sets, n_pairs, device=model.device, dtype=batch.base.resid[-1].dtype)
    for chunk in chunks(model, len(pair), n_pos):
        edits = _edits(batch, outside[number[chunk]], pair[chunk])
        values[number[chunk], pair[chunk]] = run_edited(model, batch.base, pair[chunk], edits, batch.readout)
    return values


def _edits(batch: _Batch, outside: Bool[Tensor, "run layer part"], pair: Int[Tensor, " run"]) -> list[Edit]:
    heads, mlp = outside[..., :-1], outside[..., -1]
    z, mlp_out = (batch.new[site] for site in _SITES)
    edits = []
    for layer in range(outside.shape[1]):
        if bool(heads[:, layer].any()):
            tokens = rearrange(z.available[pair], "run pos -> run pos 1")
            where = tokens & rearrange(heads[:, layer], "run head -> run 1 head")
            edits.append(Edit("z", layer, where, z.values[layer], pair))
        if bool(mlp[:, layer].any()):
            where = mlp_out.available[pair] & rearrange(mlp[:, layer], "run -> run 1")
            edits.append(Edit("mlp_out", layer, where, mlp_out.values[layer], pair))
    return edits
