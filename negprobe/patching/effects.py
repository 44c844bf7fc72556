"""Normalised effects of patches: 0 where a patch changes nothing, 1 where it moves the objective all the way."""

import xarray as xr

MIN_GAP = 1e-3
"""A pair whose two runs differ by less than this in the objective has no swing to normalise by."""


def effect(results: xr.Dataset) -> xr.DataArray:
    """Each pair's effect, `(patched - base) / (source - base)`, in the dimensions of `patched`.

    NaN where the pair has no such part, and for the pairs named in the attribute `near_zero_gap`, whose unpatched runs
    differ by less than `MIN_GAP`.
    """
    gap = results["source"] - results["base"]
    usable = abs(gap) >= MIN_GAP
    values = ((results["patched"] - results["base"]) / gap).where(usable)
    return values.assign_attrs(results.attrs, near_zero_gap=_named(results, ~usable))


def mean_effect(results: xr.Dataset) -> xr.DataArray:
    """The effect over all pairs as a ratio of means: `mean(patched - base) / mean(source - base)`.

    Each cell uses the pairs that have that part. A pair whose swing goes down counts with both differences turned
    round, so that swings do not cancel; a pair weighs as much as its swing, so that those with hardly any do not
    dominate as they would in a mean of ratios. Pairs below `MIN_GAP` are left out all the same, and named in the
    attribute `near_zero_gap`. The coordinate `n_pairs` counts the pairs of each cell; a cell of none is NaN.
    """
    gap = results["source"] - results["base"]
    usable = abs(gap) >= MIN_GAP
    moved = ((results["patched"] - results["base"]) * xr.where(gap < 0, -1, 1)).where(usable)
    present = moved.notnull()
    values = moved.sum("pair") / abs(gap).where(present).sum("pair")
    n_pairs = present.sum("pair")
    named = values.where(n_pairs > 0).assign_coords(n_pairs=n_pairs)
    return named.assign_attrs(results.attrs, near_zero_gap=_named(results, ~usable))


def _named(results: xr.Dataset, which: xr.DataArray) -> list[int]:
    return results["pair"].values[which.values].tolist()
