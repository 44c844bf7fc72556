"""What a model still does when only some of its heads and MLPs do their work: many such sets on many pairs at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, total_ordering
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from negprobe.base.arguments import checked
from negprobe.base.progress import Tick
from negprobe.models import HookedEncoder
from negprobe.patching.edits import Edit
from negprobe.patching.effects import MIN_GAP
from negprobe.patching.engine import BaseRun, base_runs, chunks, run_edited
from negprobe.patching.objectives import Objective, Readout, readout_for
from negprobe.patching.replacements import Replacement, RoleMeans, base_activations, replacement, role_means
from negprobe.patching.runs import Direction, pair_batches, pair_runs
from negprobe.patching.sites import SITES
from negprobe.statements import Swappable

Ablation = Literal["swap", "mean", "zero"]
"""What a component outside a circuit writes: what it writes in the pair's other run, at aligned tokens; the mean over
the tokens of that role; nothing."""

ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

_SITES = ("z", "mlp_out")

# Floats of activations that stay from one call to the next, and how many times `d_model` a token and layer has.
_KEPT_BUDGET = 2**28
_KEPT_WIDTHS = 12


@checked
@total_ordering
@dataclass(frozen=True)
class Component:
    """A head (its z) or an MLP (its mlp_out); in order of layers, the heads of a layer before its MLP.

    Attributes:
        layer: Its layer.
        head: Its number in the layer; None for the MLP.
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
        """The component of a short name.

        Raises:
            ValueError: if it is not the name of one.
        """
        if name.startswith("mlp "):
            return cls(int(name.removeprefix("mlp ")), None)
        layer, head = name.split(".")
        return cls(int(layer), int(head))


ComponentSet = frozenset[Component]


def all_components(n_layers: int, n_heads: int, mlps: bool) -> tuple[Component, ...]:
    """Every head and, if asked for, every MLP, in order."""
    parts: list[int | None] = [*range(n_heads), *([None] if mlps else [])]
    return tuple(Component(layer, head) for layer in range(n_layers) for head in parts)


@dataclass(frozen=True)
class _Batch:
    """Pairs of like length: where they are among all, their base run, what ablated components become, and the objective
    of their source run."""

    indices: list[int]
    base: BaseRun
    new: dict[str, Replacement]
    read: Readout
    source: Float[Tensor, " pair"]


@dataclass(frozen=True)
class AblatablePairs:
    """Pairs whose components are ready to be ablated.

    Attributes:
        model: The model.
        components: What can be in a set; everything else is never ablated.
        batches: The pairs' runs, with all their activations: kept where they fit, else made again at each call.
        full: The objective of each base run as it is.
        ablated: The objective with every component ablated.
        source: The objective of each source run as it is.
    """

    model: HookedEncoder
    components: tuple[Component, ...]
    batches: tuple[Callable[[], _Batch], ...]
    full: Float[np.ndarray, " pair"]
    ablated: Float[np.ndarray, " pair"]
    source: Float[np.ndarray, " pair"]

    @property
    def near_zero_gap(self) -> list[int]:
        """The pairs that all components together move by less than `MIN_GAP`, or not to a number."""
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
    """Run pairs, and keep what all their ablations need: some twelve vectors of `d_model` a token and layer.

    What does not fit in 1 GiB (in float32) is not kept: those pairs are run again whenever sets of them are.

    Args:
        model: The model.
        pairs: The pairs.
        components: What can be ablated.
        direction: Whose run is the base.
        ablation: What ablated components become.
        objective: What is read from a run.
        reference: The statements "mean" is taken over.

    Raises:
        PatchingError: for an objective that the model or a pair does not have.
        StatementError, InputError: for a statement that cannot be run.
    """
    means = {site: role_means(model, reference, SITES[site]) for site in _SITES} if ablation == "mean" else {}
    prepare = partial(_prepared, model, pairs, direction=direction, ablation=ablation, objective=objective, means=means)
    outside = _outside(model, components, [frozenset(components), frozenset()])
    batches: list[Callable[[], _Batch]] = []
    full, ablated, source = (np.full(len(pairs), np.nan) for _ in range(3))
    left = _KEPT_BUDGET
    for indices in pair_batches(model, pairs, _KEPT_WIDTHS):
        batch = prepare(indices)
        full[indices], ablated[indices] = _objectives(model, batch, outside).cpu().double().numpy()
        source[indices] = batch.source.cpu().double().numpy()
        left -= batch.base.run.tokens.numel() * model.cfg.n_layers * model.cfg.d_model * _KEPT_WIDTHS
        batches.append(partial(_itself, batch) if left >= 0 else partial(prepare, indices))
    return AblatablePairs(model, tuple(components), tuple(batches), full, ablated, source)


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
    """Some of the pairs, run."""
    runs = pair_runs(model, [pairs[index] for index in indices], direction)
    base, there = base_runs(model, runs.base, runs.source)
    new = {
        site: replacement(
            model,
            runs,
            base_activations(model, base, SITES[site]),
            there,
            SITES[site],
            ablation,
            means=means.get(site),
        )
        for site in _SITES
    }
    every = torch.arange(len(indices), device=model.device)
    source = readout_for(objective, model, runs, runs.source)(there.resid[-1], every)
    return _Batch(indices, base, new, readout_for(objective, model, runs, runs.base), source)


def set_objectives(
    pairs: AblatablePairs, sets: Sequence[ComponentSet], tick: Tick | None = None
) -> Float[np.ndarray, "pair set"]:
    """The objective of each pair's base run with every component outside a set ablated, for every set."""
    known = {frozenset(pairs.components): pairs.full, frozenset[Component](): pairs.ablated}
    new = [members for members in dict.fromkeys(sets) if members not in known]
    values = np.full((len(new), len(pairs.full)), np.nan)
    outside = _outside(pairs.model, pairs.components, new)
    done = 0
    for made in pairs.batches:
        batch = made()
        values[:, batch.indices] = _objectives(pairs.model, batch, outside).cpu().double().numpy()
        done += len(new) * len(batch.indices)
        if tick is not None:
            tick(done, values.size)
    known |= dict(zip(new, values, strict=True))
    return np.stack([known[members] for members in sets], axis=1)


def set_results(pairs: AblatablePairs, sets: Sequence[ComponentSet], tick: Tick | None = None) -> xr.Dataset:
    """`set_objectives` as results whose effect is the faithfulness of a set.

    Returns:
        A dataset with `patched` `[pair set]`, and as `base` `[pair]` the objective with every component ablated, as
        `source` that of the whole model: `effects.effect` is then `(m(C) - m(∅)) / (m(N) - m(∅))`, `mean_effect` the
        ratio of means, and `averages` its bootstrap interval.
    """
    values = set_objectives(pairs, sets, tick)
    return xr.Dataset(
        {"patched": (("pair", "set"), values), "base": ("pair", pairs.ablated), "source": ("pair", pairs.full)},
        coords={"pair": np.arange(len(values)), "set": np.arange(len(sets))},
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
    # Runs resume at the first layer that any of their chunk changes, so those that start late go together.
    touched = outside.any(dim=2)
    first = torch.where(touched.any(dim=1), touched.long().argmax(dim=1), model.cfg.n_layers)
    number = first.argsort(stable=True).repeat_interleave(n_pairs)
    pair = torch.arange(n_pairs, device=model.device).repeat(n_sets)
    values = torch.empty(n_sets, n_pairs, device=model.device, dtype=batch.base.resid[-1].dtype)
    for some in chunks(model, len(pair), n_pos):
        edits = _edits(batch, outside[number[some]], pair[some])
        values[number[some], pair[some]] = run_edited(model, batch.base, pair[some], edits, batch.read)
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
