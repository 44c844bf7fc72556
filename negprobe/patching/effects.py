"""Normalised effects of patches: 0 where a patch changes nothing, 1 where it moves the objective all the way."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from negprobe.base.arguments import checked
from negprobe.base.errors import PatchingError
from negprobe.base.files import read_bytes, whole_file
from negprobe.base.texts import quoted
from negprobe.statistics.effects import MAX_RESAMPLES

RUN_NAMES = ("base_run", "source_run")
"""The coordinates that say which statement of each pair is patched, and which one the activations are from."""

# What scipy's and xarray's readers of NetCDF raise for a file that is damaged or of another kind.
NOT_NETCDF = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, EOFError, MemoryError)

MIN_GAP = 1e-3
"""A pair whose two runs differ by less than this in the objective has no swing to normalise by."""


@checked
def effect(results: xr.Dataset) -> xr.DataArray:
    """Each pair's effect, `(patched - base) / (source - base)`, in the dimensions of `patched`.

    NaN where the pair has no such part, and for the pairs named in the attribute `near_zero_gap`, whose unpatched runs
    differ by less than `MIN_GAP`.

    Raises:
        PatchingError: for anything but the results of patches.
    """
    _check(results)
    gap = results["source"] - results["base"]
    usable = abs(gap) >= MIN_GAP
    values = ((results["patched"] - results["base"]) / gap).where(usable)
    return values.assign_attrs(results.attrs, near_zero_gap=_named(results, ~usable))


@checked
def mean_effect(results: xr.Dataset) -> xr.DataArray:
    """The effect over all pairs as a ratio of means: `mean(patched - base) / mean(source - base)`.

    Each cell uses the pairs that have that part. A pair whose swing goes down counts with both differences turned
    round, so that swings do not cancel; a pair weighs as much as its swing, so that those with hardly any do not
    dominate as they would in a mean of ratios. Pairs below `MIN_GAP` are left out all the same, and named in the
    attribute `near_zero_gap`. The coordinate `n_pairs` counts the pairs of each cell; a cell of none is NaN. The
    coordinates `base_run` and `source_run` are single names here, "control or original" if pairs differ.

    Raises:
        PatchingError: for anything but the results of patches.
    """
    _check(results)
    moved, swing = _moved_and_swing(results)
    present = moved.notnull()
    n_pairs = present.sum("pair")
    values = moved.sum("pair") / swing.where(present).sum("pair")
    runs = {name: one_name(results[name]) for name in RUN_NAMES if name in results.coords}
    named = values.where(n_pairs > 0).assign_coords({"n_pairs": n_pairs} | runs)
    return named.assign_attrs(results.attrs, near_zero_gap=_named(results, ~(swing >= MIN_GAP)))


@checked
def averages(results: xr.Dataset, *, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> xr.Dataset:
    """`mean_effect` with its bootstrap interval.

    Pairs are drawn with replacement, the same draws for every cell; the interval is that of the percentiles of the
    ratio of means.

    Args:
        results: A sweep's results.
        n_resamples: Draws of as many pairs as there are.
        confidence: Share of the draws inside the interval.
        seed: Of the draws.

    Returns:
        `effect`, `low`, `high` and `n_pairs`, each in the dimensions of `mean_effect`, such as `[layer role]`; the
        interval is NaN for a cell of fewer than two pairs. `.to_dataframe().reset_index()` has one row per cell.

    Raises:
        PatchingError: for anything but the results of patches of some pairs, a confidence that is no share, no
            resamples or more than a million, or a seed below 0.
    """
    if not 0 < confidence < 1 or not 1 <= n_resamples <= MAX_RESAMPLES or seed < 0:
        raise PatchingError(
            f"An interval needs 0 < confidence < 1, 1 to {MAX_RESAMPLES} resamples and a seed of 0 or more, not "
            f"{quoted(confidence)}, {quoted(n_resamples)} and {quoted(seed)}."
        )
    mean = mean_effect(results)
    if not results.sizes["pair"]:
        raise PatchingError("The results are of no pairs, so there is nothing to average. Patch some pairs first.")
    moved, swing = _moved_and_swing(results)
    cells = moved.transpose("pair", ...).values.reshape(results.sizes["pair"], -1)
    present = ~np.isnan(cells)
    drawn = np.random.default_rng(seed).integers(len(cells), size=(n_resamples, len(cells)))
    # How often each pair was drawn: a resampled sum is a matrix product with the counts.
    counts = np.stack([np.bincount(draw, minlength=len(cells)) for draw in drawn]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (counts @ np.nan_to_num(cells)) / (counts @ (present * swing.values[:, None]))
    enough = present.sum(axis=0) > 1
    bounds = np.full((2, cells.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    bounds[:, enough] = np.nanquantile(ratios[:, enough], [tail, 1 - tail], axis=0)
    low, high = (mean.copy(data=bound.reshape(mean.shape)) for bound in bounds)
    variables = {"effect": mean, "low": low, "high": high, "n_pairs": mean["n_pairs"]}
    return xr.Dataset({name: values.reset_coords(drop=True) for name, values in variables.items()}, attrs=mean.attrs)


@checked
def save_results(results: xr.Dataset, path: str | Path) -> None:
    """Write a sweep's results: as they are to `.nc` (NetCDF), or as a tidy table to `.parquet`.

    Raises:
        PatchingError: for another kind of file, one that cannot be written, or anything but the results of runs.
    """
    path = Path(path)
    if "patched" not in results:
        raise PatchingError("Results to save are a dataset with `patched`; `averages` gives the effects.")
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

    A `.parquet` file is a table without the cells that a pair lacks; read it with `pandas.read_parquet`.

    Raises:
        PatchingError: for another kind of file, one that cannot be read, or one that `save_results` did not write.
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
        raise _not_results(path, f"it does not name its {', '.join(missing)}")
    # NetCDF 3 holds integers of 32 bits.
    narrow = {name: coord for name, coord in results.coords.items() if coord.dtype.kind == "i"}
    return results.assign_coords({name: coord.astype(np.int64) for name, coord in narrow.items()})


def _not_results(path: Path, why: str) -> PatchingError:
    return PatchingError(f"{path} is not a file that save_results wrote: {why[:300]}. Give another, or save it again.")


def tidy(results: xr.Dataset) -> pd.DataFrame:
    """A sweep's results as a table: a row per pair, layer and part that the pair has."""
    table = results.to_dataframe().reset_index().dropna(subset=["patched"]).reset_index(drop=True)
    return table.assign(**results.attrs)


def _check(results: xr.Dataset) -> None:
    missing = [name for name in ("patched", "base", "source") if name not in results]
    if missing or "pair" not in results["patched"].dims:
        lack = ", ".join(missing) or "dimension `pair`"
        raise PatchingError(f"The results have no {lack}; give the dataset that `patch_sweep` returns.")


def _moved_and_swing(results: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """How far each patch moves the objective towards the source, and each pair's whole swing, at least 0."""
    gap = results["source"] - results["base"]
    moved = (results["patched"] - results["base"]) * xr.where(gap < 0, -1, 1)
    return moved.where(abs(gap) >= MIN_GAP), abs(gap)


def one_name(names: ArrayLike) -> str:
    """The name of a run over pairs: "control or original" where pairs differ."""
    return " or ".join(sorted(set(map(str, np.ravel(names)))))


def _named(results: xr.Dataset, which: xr.DataArray) -> list[int]:
    return results["pair"].values[which.values].tolist()
