"""Normalised effects of patches: 0 where a patch changes nothing, 1 where it moves the objective all the way."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Int
from numpy.typing import ArrayLike

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.files import read_bytes, whole_file
from negprobe.base.texts import quoted
from negprobe.statistics.clusters import cluster_codes, cluster_sums
from negprobe.statistics.effects import MAX_RESAMPLES
from negprobe.statistics.resampling import draw_counts

RUN_NAMES = ("base_run", "source_run")
"""The coordinates that name which statement of each pair is in the base run and which in the source run."""

# What scipy's and xarray's readers of NetCDF raise for a file that is damaged or of another kind.
NOT_NETCDF = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError, MemoryError)

MIN_GAP = 1e-3
"""The smallest gap, the difference of a pair's two unpatched runs in the objective, that effects are divided by."""


@checked
def effect(results: xr.Dataset) -> xr.DataArray:
    """Each pair's effect, `(patched - base) / (source - base)`, in the dimensions of `patched`.

    NaN where the pair does not have the part, and for pairs with a gap (source - base) below `MIN_GAP`. The attribute
    `near_zero_gap` lists these pairs.

    Raises:
        PatchingError: if `results` is not a result of patching.
    """
    _check(results)
    gap = results["source"] - results["base"]
    usable = abs(gap) >= MIN_GAP
    values = ((results["patched"] - results["base"]) / gap).where(usable)
    return values.assign_attrs(results.attrs, near_zero_gap=_pairs_where(results, ~usable))


@checked
def mean_effect(results: xr.Dataset) -> xr.DataArray:
    """The mean effect over all pairs as a ratio of means: `mean(patched - base) / mean(source - base)`.

    Both differences change sign for a pair with a negative gap (source - base), so that gaps of opposite sign do not
    cancel. A ratio of means weights each pair by its gap; in a mean of ratios, pairs with a small gap would dominate.
    Each cell uses the pairs that have that part. Pairs with a gap below `MIN_GAP` are left out and listed in the
    attribute `near_zero_gap`. The coordinate `n_pairs` counts the pairs of each cell; a cell without pairs is NaN. The
    coordinates `base_run` and `source_run` have one name for all pairs, "control or original" if pairs differ.

    Raises:
        PatchingError: if `results` is not a result of patching.
    """
    _check(results)
    change, gap = _change_and_gap(results)
    present = change.notnull()
    n_pairs = present.sum("pair")
    values = change.sum("pair") / gap.where(present).sum("pair")
    runs = {name: one_name(results[name]) for name in RUN_NAMES if name in results.coords}
    named = values.where(n_pairs > 0).assign_coords({"n_pairs": n_pairs} | runs)
    return named.assign_attrs(results.attrs, near_zero_gap=_pairs_where(results, ~(gap >= MIN_GAP)))


@checked
def averages(results: xr.Dataset, *, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> xr.Dataset:
    """`mean_effect` with its percentile bootstrap interval.

    Clusters of pairs are resampled with replacement, and all cells use the same resamples. The coordinate `cluster` has
    the clusters; without it, and where it is "", each pair is its own.

    Args:
        results: A sweep's results.
        n_resamples: The number of resamples.
        confidence: The confidence level of the interval, between 0 and 1.
        seed: Seed of the resampling.

    Returns:
        `effect`, `low`, `high` and `n_pairs`, each in the dimensions of `mean_effect`, such as `[layer role]`; the
        interval is NaN for a cell with pairs of fewer than two clusters. `.to_dataframe().reset_index()` has a row for
        each cell.

    Raises:
        PatchingError: if `results` is not a result of patching or has no pairs, or for a confidence outside (0, 1),
            fewer than one or more than a million resamples, or a negative seed.
    """
    if not 0 < confidence < 1 or not 1 <= n_resamples <= MAX_RESAMPLES or seed < 0:
        raise PatchingError(
            f"An interval needs 0 < confidence < 1, 1 to {MAX_RESAMPLES} resamples and a seed of 0 or more, not "
            f"{quoted(confidence)}, {quoted(n_resamples)} and {quoted(seed)}."
        )
    mean = mean_effect(results)
    if not results.sizes["pair"]:
        raise PatchingError("The results have no pairs, so there is nothing to average. Patch at least one pair first.")
    change, gap = _change_and_gap(results)
    cells = change.transpose("pair", ...).values.reshape(results.sizes["pair"], -1)
    present = ~np.isnan(cells)
    codes = clusters_of(results)
    # A resampled sum is a matrix product with how often each pair was drawn.
    counts = draw_counts(codes, n_resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (counts @ np.nan_to_num(cells)) / (counts @ (present * gap.values[:, None]))
    enough = (cluster_sums(cells, codes)[1] > 0).sum(axis=0) > 1
    bounds = np.full((2, cells.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    bounds[:, enough] = np.nanquantile(ratios[:, enough], [tail, 1 - tail], axis=0)
    low, high = (mean.copy(data=bound.reshape(mean.shape)) for bound in bounds)
    variables = {"effect": mean, "low": low, "high": high, "n_pairs": mean["n_pairs"]}
    return xr.Dataset({name: values.reset_coords(drop=True) for name, values in variables.items()}, attrs=mean.attrs)


@checked
def save_results(results: xr.Dataset, path: str | Path) -> None:
    """Write a sweep's results to `.nc` (NetCDF, everything) or `.parquet` (a tidy table).

    Raises:
        PatchingError: for another file type, a file that cannot be written, or anything but a result of patching.
    """
    path = Path(path)
    if "patched" not in results:
        raise PatchingError("The results have no variable `patched`; give the dataset that `patch_sweep` returns.")
    if path.suffix not in (".nc", ".parquet"):
        raise PatchingError(f"{path} is neither a .nc nor a .parquet file; give it one of these endings.")
    try:
        with whole_file(path) as part:
            if path.suffix == ".nc":
                results.to_netcdf(part, engine="scipy")
            else:
                tidy(results).to_parquet(part, index=False)
    except OSError as error:
        raise PatchingError(f"{path} cannot be written: {error}.") from error


@checked
def read_results(path: str | Path) -> xr.Dataset:
    """The results that `save_results` wrote to a `.nc` file, with their coordinates and attributes.

    A `.parquet` file holds a plain table; read it with `pandas.read_parquet`.

    Raises:
        PatchingError: for another file type, or a file that cannot be read or was not written by `save_results`.
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise PatchingError(f"{path} is not a .nc file; give one that save_results wrote as .nc.")
    try:
        results = xr.load_dataset(io.BytesIO(read_bytes(path)), engine="scipy")
    except OSError as error:
        raise PatchingError(f"{path} cannot be read: {error}.") from error
    except NOT_NETCDF as error:
        raise _not_results(path, str(error) or type(error).__name__) from error
    if "patched" not in results:
        raise _not_results(path, "it has no variable `patched`")
    if missing := [name for name in ("direction", "objective", "model") if name not in results.attrs]:
        raise _not_results(path, f"it is missing attributes {', '.join(missing)}")
    # NetCDF 3 stores integers in 32 bits.
    narrow = {name: coord for name, coord in results.coords.items() if coord.dtype.kind == "i"}
    return results.assign_coords({name: coord.astype(np.int64) for name, coord in narrow.items()})


def _not_results(path: Path, why: str) -> PatchingError:
    return PatchingError(
        f"{path} is not a file that save_results wrote: {why[:300]}. Give another file, or save the results again."
    )


def tidy(results: xr.Dataset) -> pd.DataFrame:
    """A sweep's results as a tidy table: a row per pair, layer and part that the pair has."""
    table = results.to_dataframe().reset_index().dropna(subset=["patched"]).reset_index(drop=True)
    return table.assign(**results.attrs)


def _check(results: xr.Dataset) -> None:
    missing = [name for name in ("patched", "base", "source") if name not in results]
    if missing or "pair" not in results["patched"].dims:
        lack = ", ".join(missing) or "dimension `pair`"
        raise PatchingError(f"The results have no {lack}; give the dataset that `patch_sweep` returns.")


def _change_and_gap(results: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """How far each patch moves the objective towards the source, and the size of each pair's gap."""
    gap = results["source"] - results["base"]
    change = (results["patched"] - results["base"]) * xr.where(gap < 0, -1, 1)
    return change.where(abs(gap) >= MIN_GAP), abs(gap)


def clusters_of(results: xr.Dataset) -> Int[np.ndarray, " pair"]:
    """The number of each pair's cluster."""
    return cluster_codes(results["cluster"] if "cluster" in results.coords else None, results.sizes["pair"])[0]


def one_name(names: ArrayLike) -> str:
    """The name of a run for all pairs: "control or original" if pairs differ."""
    return " or ".join(sorted(set(map(str, np.ravel(names)))))


def _pairs_where(results: xr.Dataset, mask: xr.DataArray) -> list[int]:
    return results["pair"].values[mask.values].tolist()
