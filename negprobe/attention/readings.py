"""What each head reads: how much of its attention tokens of one role give to tokens of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from negprobe.attention.frames import Tokenized
from negprobe.attention.pair_metrics import COMPARED
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.statements import ROLES, align, original_roles

SIDES = ("original", *COMPARED)
"""The statements of a pair, in the order in which they are run."""

MAPS = ("raw", "norm")
"""The maps that readings are told of: attention, and attention weighted by the norm of the values."""

_BASES = ("original", "control")
_CELL = ("layer", "head", "query", "key")


@dataclass(frozen=True)
class Reading:
    """The attention that tokens of one role give to all tokens of another, in the counterfactual.

    Attributes:
        query: The role that reads.
        key: The role that is read.
        raw: The share of attention, 0 to 1.
        norm: The same after the values.
        even: The share if every token were read alike.
        n: How many pairs have both roles.
    """

    query: str
    key: str
    raw: float
    norm: float
    even: float
    n: int


@dataclass(frozen=True)
class ReadingChange:
    """How much more of `key` is read at `query` in the counterfactual than in the control, or the original.

    Attributes:
        query: The role that reads.
        key: The role that is read.
        base: "control", or "original" if no pair has a control.
        raw: The difference of the shares of attention, -1 to 1.
        norm: The same after the values.
        n: How many pairs have both roles on both sides.
    """

    query: str
    key: str
    base: str
    raw: float
    norm: float
    n: int


@dataclass(frozen=True)
class HeadReading:
    """What one head reads, in short.

    Attributes:
        layer: Its layer.
        head: Its number there.
        raw: Where its attention is farthest above an even share.
        norm: Where its attention after the values is.
        change: Where its attention after the values changes most; None if no roles are in both runs.
    """

    layer: int
    head: int
    raw: Reading
    norm: Reading
    change: ReadingChange | None


@checked
def head_story(readings: xr.Dataset, layer: int, head: int) -> HeadReading:
    """What a head reads most in the counterfactual, and what it reads otherwise than in the control.

    Only roles that at least half as many pairs have as any are compared, so that a single pair makes no story. Two
    things that tell little are left out: that the first token or the separator reads itself, where many heads rest, and
    of the change the cue's own row, which differs because the cue is another word.

    Args:
        readings: What `AttentionProbe.readings` returns.
        layer: The head's layer.
        head: Its number there.

    Raises:
        InputError: if there is no such head, or the readings are something else.
    """
    if not {"side", "layer", "head", "query", "key", "measure"} <= set(readings.dims):
        raise InputError("These are no readings of heads; give what `AttentionProbe.readings` returns.")
    if layer not in readings["layer"] or head not in readings["head"]:
        n_layers, n_heads = readings.sizes["layer"], readings.sizes["head"]
        raise InputError(f"There is no head {layer}.{head}: there are {n_layers} layers of {n_heads} heads.")
    of_head = readings.sel(layer=layer, head=head)
    here = of_head.sel(side="counterfactual")
    above_even = (here["share"] - here["even"]).where(~_resting(here))
    raw, norm = (
        Reading(query, key, *_shares(here["share"], query, key), float(cell["even"]), int(cell["n"]))
        for measure in MAPS
        for query, key in [_largest(above_even.sel(measure=measure), here["n"])]
        for cell in [here.sel(query=query, key=key)]
    )
    base = "control" if readings["n_changed"].sel(base="control").any() else "original"
    n = of_head["n_changed"].sel(base=base)
    if not n.any():
        return HeadReading(layer, head, raw, norm, None)
    change = of_head["change"].sel(base=base)
    query, key = _largest(abs(change.sel(measure="norm")).where((change["query"] != "cue") & ~_resting(change)), n)
    changed = ReadingChange(query, key, base, *_shares(change, query, key), int(n.sel(query=query, key=key)))
    return HeadReading(layer, head, raw, norm, changed)


def _resting(cells: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Which cells are special tokens that read themselves."""
    return (cells["query"] == cells["key"]) & cells["query"].isin(["cls", "sep"])


def _largest(values: xr.DataArray, n: xr.DataArray) -> tuple[str, str]:
    """The query and key role of the largest value that enough pairs have."""
    cells = values.where(2 * n >= n.max()).stack(cell=("query", "key"))
    query, key = cells["cell"].values[int(cells.argmax("cell"))]
    return str(query), str(key)


def _shares(shares: xr.DataArray, query: str, key: str) -> tuple[float, float]:
    raw, norm = (float(shares.sel(measure=measure, query=query, key=key)) for measure in MAPS)
    return raw, norm


def role_matrices(
    pairs: Sequence[Tokenized], tokenizer: PreTrainedTokenizerBase, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "side batch pos role"]:
    """1 where a token has a role, for every side of a batch of pairs with as many sides; padding has none."""
    matrices = np.zeros((len(pairs[0].sides), len(pairs), max(map(len, pairs)), len(ROLES)))
    for row, pair in enumerate(pairs):
        # A control shares the counterfactual's positions.
        original, counterfactual = pair.sides[:2]
        here = original_roles(original, pair.roles, align(original, counterfactual), tokenizer, pair.pair.target)
        of_sides = [here, *[pair.roles] * (len(pair.sides) - 1)]
        for side, names in enumerate(of_sides):
            matrices[side, row, np.arange(len(names)), [ROLES.index(name) for name in names]] = 1
    return torch.from_numpy(matrices).to(device, dtype)


def role_shares(
    rows: Float[Tensor, "*batch head query key"], role: Float[Tensor, "*batch pos role"]
) -> Float[Tensor, "*batch head role other"]:
    """What a token of a role gives to all tokens of another, the mean over the role's tokens; 0 without any."""
    mean = role / role.sum(dim=-2, keepdim=True).clamp(min=1)
    given = einsum(rows, role, "... head query key, ... key other -> ... head query other")
    return einsum(mean, given, "... query role, ... head query other -> ... head role other")


def no_readings(n_layers: int, n_heads: int) -> xr.Dataset:
    """The sums that readings are the means of, before any pair is added."""
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
    """Add a batch of pairs, all of as many sides, to the sums.

    A share is 0 where a role has no token, so that the sum over pairs needs no mask; only changes do.
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
    """The means over the pairs that were added; NaN where there are none."""
    n, n_changed = (sums[name].where(sums[name] > 0) for name in ("n", "n_changed"))
    means = {"share": sums["share"] / n, "change": sums["change"] / n_changed, "even": sums["even"] / n}
    return sums.assign({name: values.transpose(*sums[name].dims) for name, values in means.items()})
