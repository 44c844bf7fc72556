"""The attention of each head from tokens of one role to tokens of another, averaged over pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from negprobe.attention.pair_metrics import COMPARED
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.statements import ROLES, PreparedPair

SIDES = ("original", *COMPARED)
"""The statements of a pair, in the order of the axis `side`."""

MAPS = ("raw", "norm")
"""The maps that readings are computed from: raw attention, and attention weighted by the norm of the values."""

_BASES = ("original", "control")
_CELL = ("layer", "head", "query", "key")


@dataclass(frozen=True)
class Reading:
    """The attention from tokens of one role to all tokens of another, in the counterfactual.

    Attributes:
        query: The role of the queries.
        key: The role of the keys.
        raw: The share of raw attention, 0 to 1.
        norm: The share of norm-weighted attention, 0 to 1.
        even: The share under uniform attention, 0 to 1.
        n: The number of pairs that have both roles.
    """

    query: str
    key: str
    raw: float
    norm: float
    even: float
    n: int


@dataclass(frozen=True)
class ReadingChange:
    """The change of the attention from `query` to `key`, from the control (or the original) to the counterfactual.

    Attributes:
        query: The role of the queries.
        key: The role of the keys.
        base: "control", or "original" if no pair has a control.
        raw: The difference of the shares of raw attention, -1 to 1.
        norm: The difference of the shares of norm-weighted attention, -1 to 1.
        n: The number of pairs that have both roles on both sides.
    """

    query: str
    key: str
    base: str
    raw: float
    norm: float
    n: int


@dataclass(frozen=True)
class HeadReading:
    """A summary of one head's attention between roles.

    Attributes:
        layer: The head's layer.
        head: The head's index in its layer.
        raw: The roles for which raw attention exceeds uniform attention most.
        norm: The roles for which norm-weighted attention exceeds uniform attention most.
        change: The roles for which norm-weighted attention changes most; None if no pair has roles in both runs.
    """

    layer: int
    head: int
    raw: Reading
    norm: Reading
    change: ReadingChange | None


@checked
def head_story(readings: xr.Dataset, layer: int, head: int) -> HeadReading:
    """The roles that a head attends to most in the counterfactual, and where this differs most from the control.

    Combinations of roles that occur in less than half as many pairs as the most frequent one are ignored, because a few
    pairs would decide them. Also ignored are attention from the first token or the separator to itself, which is high
    in many heads, and, for the change, the queries at the cue, which differ because the cue is another word.

    Args:
        readings: The result of `AttentionProbe.readings`.
        layer: The head's layer.
        head: The head's index in its layer.

    Raises:
        InputError: if there is no such head, or `readings` is another dataset.
    """
    if not {"side", "layer", "head", "query", "key", "measure"} <= set(readings.dims):
        raise InputError("readings must be the result of `AttentionProbe.readings`.")
    if layer not in readings["layer"] or head not in readings["head"]:
        n_layers, n_heads = readings.sizes["layer"], readings.sizes["head"]
        raise InputError(f"There is no head {layer}.{head}: there are {n_layers} layers of {n_heads} heads.")
    head_readings = readings.sel(layer=layer, head=head)
    counterfactual = head_readings.sel(side="counterfactual")
    above_even = (counterfactual["share"] - counterfactual["even"]).where(~_resting(counterfactual))
    raw, norm = (
        Reading(query, key, *_shares(counterfactual["share"], query, key), float(cell["even"]), int(cell["n"]))
        for measure in MAPS
        for query, key in [_largest(above_even.sel(measure=measure), counterfactual["n"])]
        for cell in [counterfactual.sel(query=query, key=key)]
    )
    base = "control" if readings["n_changed"].sel(base="control").any() else "original"
    n = head_readings["n_changed"].sel(base=base)
    if not n.any():
        return HeadReading(layer, head, raw, norm, None)
    change = head_readings["change"].sel(base=base)
    query, key = _largest(abs(change.sel(measure="norm")).where((change["query"] != "cue") & ~_resting(change)), n)
    changed = ReadingChange(query, key, base, *_shares(change, query, key), int(n.sel(query=query, key=key)))
    return HeadReading(layer, head, raw, norm, changed)


def _resting(cells: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Whether a cell is the attention of [CLS] or [SEP] to itself."""
    return (cells["query"] == cells["key"]) & cells["query"].isin(["cls", "sep"])


def _largest(values: xr.DataArray, n: xr.DataArray) -> tuple[str, str]:
    """The query and key role of the largest value, among cells with at least half the maximum number of pairs."""
    cells = values.where(2 * n >= n.max()).stack(cell=("query", "key"))
    query, key = cells["cell"].values[int(cells.argmax("cell"))]
    return str(query), str(key)


def _shares(shares: xr.DataArray, query: str, key: str) -> tuple[float, float]:
    raw, norm = (float(shares.sel(measure=measure, query=query, key=key)) for measure in MAPS)
    return raw, norm


def role_matrices(
    pairs: Sequence[PreparedPair], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "side batch pos role"]:
    """One-hot roles of the tokens of a batch of pairs that all have the same number of sides; 0 for padding."""
    matrices = np.zeros((len(pairs[0].sides), len(pairs), max(map(len, pairs)), len(ROLES)))
    for row, pair in enumerate(pairs):
        # A control has the same positions as the counterfactual.
        side_roles = [pair.roles[0], *[pair.roles[1]] * (len(pair.sides) - 1)]
        for side, names in enumerate(side_roles):
            matrices[side, row, np.arange(len(names)), [ROLES.index(name) for name in names]] = 1
    return torch.from_numpy(matrices).to(device, dtype)


def role_shares(
    rows: Float[Tensor, "*batch head query key"], role: Float[Tensor, "*batch pos role"]
) -> Float[Tensor, "*batch head role other"]:
    """The attention to all tokens of role `other`, averaged over the queries of role `role`; 0 without such queries."""
    mean = role / role.sum(dim=-2, keepdim=True).clamp(min=1)
    given = einsum(rows, role, "... head query key, ... key other -> ... head query other")
    return einsum(mean, given, "... query role, ... head query other -> ... head role other")


def no_readings(n_layers: int, n_heads: int) -> xr.Dataset:
    """A dataset of zeros to which `add_readings` adds the shares of each batch."""
    sizes = {"measure": len(MAPS), "side": len(SIDES), "base": len(_BASES), "layer": n_layers, "head": n_heads}
    sizes |= {"query": len(ROLES), "key": len(ROLES)}
    shapes = {
        "share": ("measure", "side", *_CELL),
        "change": ("measure", "base", *_CELL),
        "even": ("side", "query", "key"),
        "n": ("side", "query", "key"),
        "n_changed": ("base", "query", "key"),
    }
    return xr.Dataset(
        {
            name: (dims, np.zeros([sizes[dim] for dim in dims], dtype=int if name.startswith("n") else float))
            for name, dims in shapes.items()
        },
        coords={
            "measure": list(MAPS),
            "side": list(SIDES),
            "base": list(_BASES),
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
            "query": list(ROLES),
            "key": list(ROLES),
        },
    )


def add_readings(
    sums: xr.Dataset,
    shares: Float[Tensor, "measure side batch layer head query_role key_role"],
    role: Float[Tensor, "side batch pos role"],
) -> None:
    """Add a batch of pairs, all with the same number of sides, to the sums in place.

    A share is 0 where a role has no token, so only the changes need a mask.
    """
    shares, role = shares.cpu().double(), role.cpu().double()
    n_sides, tokens = len(role), role.sum(dim=-2)
    present = tokens.clamp(max=1)
    both = einsum(present, present, "side batch query, side batch key -> side batch query key")
    even = tokens / tokens.sum(dim=-1, keepdim=True)
    bases, counterfactual = [0, *range(2, n_sides)], 1
    matched = both[bases] * both[counterfactual]
    change = shares[:, [counterfactual]] - shares[:, bases]
    in_all_heads = rearrange(matched, "base batch query key -> base batch 1 1 query key")
    sums["share"].values[:, :n_sides] += shares.sum(dim=2).numpy()
    sums["change"].values[:, : len(bases)] += (change * in_all_heads).sum(dim=2).numpy()
    sums["even"].values[:n_sides] += einsum(present, even, "side batch query, side batch key -> side query key").numpy()
    sums["n"].values[:n_sides] += both.sum(dim=1).long().numpy()
    sums["n_changed"].values[: len(bases)] += matched.sum(dim=1).long().numpy()


def mean_readings(sums: xr.Dataset) -> xr.Dataset:
    """The means over the added pairs; NaN where there are none."""
    n, n_changed = (sums[name].where(sums[name] > 0) for name in ("n", "n_changed"))
    means = {"share": sums["share"] / n, "change": sums["change"] / n_changed, "even": sums["even"] / n}
    return sums.assign({name: values.transpose(*sums[name].dims) for name, values in means.items()})
