"""The data of a study's figures, from its results or from the files in its folder."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import COMPARED, CONTRIBUTIONS, METRICS, Comparison
from negprobe.base.arguments import checked
from negprobe.base.files import read_bytes
from negprobe.patching import Circuit, Direction, mean_effect
from negprobe.patching.effects import NOT_NETCDF, RUN_NAMES
from negprobe.statements import ROLES
from negprobe.study.figure_file import FIGURE_FILE, FigureFile, read_figure_file
from negprobe.study.reading import damaged, read_table
from negprobe.study.results import StudyResults
from negprobe.study.saved import SavedStudy, metrics_dataset, read_study, sweep
from negprobe.study.summary_table import StudySummary, read_summary

_KNOCK_OUT = {"site": "attn_scores", "how": "knock_out", "direction": "denoising"}


@dataclass(frozen=True, repr=False)
class FigureData:
    """The data that the figures of a study show.

    Attributes:
        summary: The numbers that the report states.
        tests: `StudyResults.tests`.
        replications: `StudyResults.replications`.
        cue_shares: `StudyResults.cue_shares`.
        metrics: `attention_distance`, `norm_distance`, `uniform_distance` and `output_change_by_role` of
            `StudyResults.metrics`.
        attention_to_cue: `StudyResults.attention_to_cue`; None if nothing was patched.
        example: The pair shown as an example; None if it was not saved.
        mean_effects: `StudyResults.mean_effects`.
        position_effects: `StudyResults.position_effects`.
        mean_knock_out: `Mechanism.mean_knock_out`; None if nothing was patched.
        circuit: The circuit; None if no circuit was searched.
        readings: `Mechanism.readings`; None if nothing was patched, or they were not saved.
        not_saved: The names of figures that cannot be drawn, because the version of negprobe that ran the study did not
            save their data.
    """

    summary: StudySummary
    tests: xr.Dataset | None
    replications: Mapping[str, xr.Dataset]
    cue_shares: xr.DataArray
    metrics: xr.Dataset
    attention_to_cue: xr.DataArray | None
    example: Comparison | None
    mean_effects: Mapping[tuple[str, Direction], xr.DataArray]
    position_effects: Mapping[Direction, xr.DataArray]
    mean_knock_out: xr.DataArray | None
    circuit: Circuit | None
    readings: xr.Dataset | None
    not_saved: tuple[str, ...] = ()


def figure_data(results: StudyResults) -> FigureData:
    """The data of the figures, from the results of a study."""
    mechanism = results.mechanism
    return FigureData(
        summary=results.summary,
        tests=results.tests,
        replications=results.replications,
        cue_shares=results.cue_shares,
        metrics=results.metrics,
        attention_to_cue=results.attention_to_cue if results.patching else None,
        example=results.examples[0],
        mean_effects=results.mean_effects,
        position_effects=results.position_effects,
        mean_knock_out=None if mechanism is None else mechanism.mean_knock_out,
        circuit=None if mechanism is None else mechanism.circuit,
        readings=None if mechanism is None else mechanism.readings,
    )


@checked
def read_figure_data(folder: str | Path) -> FigureData:
    """The data of the figures, from the folder of a finished study.

    Raises:
        NegprobeError: as `read_study` and `read_summary`, and if another file is missing, damaged or of a newer
            format version.
    """
    folder = Path(folder)
    study, summary = read_study(folder), read_summary(folder)
    file = _figure_file(folder)
    patching = _mean_effects(study) if len(study.patching) else {}
    metrics = _metrics(study)
    missing: list[str] = []
    if file is None:
        missing = ["attention-distance", "heatmaps", "before-and-after-values"]
        missing += [f"positions-resid_pre-{way}" for way in ("noising", "denoising") if patching]
        missing += ["circuit"] if study.circuit is not None else []
        metrics = metrics.drop_vars(["attention_distance", "norm_distance"])
    else:
        metrics = metrics.assign(uniform_distance=file.uniform_distance)
    return FigureData(
        summary=summary,
        tests=_tests(study),
        replications=_replications(study),
        cue_shares=_cue_shares(study),
        metrics=metrics,
        attention_to_cue=_attention_to_cue(study) if patching else None,
        example=None if file is None else file.example,
        mean_effects=patching,
        position_effects={} if file is None else file.positions,
        mean_knock_out=_mean_knock_out(study, summary) if patching else None,
        circuit=study.circuit,
        readings=None if file is None else file.readings,
        not_saved=tuple(missing),
    )


def _figure_file(folder: Path) -> FigureFile | None:
    try:
        return read_figure_file(folder / FIGURE_FILE)
    except FileNotFoundError:
        return None


def _axes(study: SavedStudy) -> dict[str, Any]:
    layers, heads = study.shape
    return {"layer": list(range(layers)), "head": list(range(heads))}


def _read(study: SavedStudy, name: str, columns: Sequence[str]) -> pd.DataFrame:
    absent = f"{study.folder} has no {name}.parquet, which every study writes; run the study again."
    return read_table(study.folder / f"{name}.parquet", columns, absent=absent)


def _tests(study: SavedStudy) -> xr.Dataset | None:
    if "negation_effects.nc" not in study.manifest["files"]:
        return None
    path = study.folder / "negation_effects.nc"
    try:
        return xr.load_dataset(io.BytesIO(read_bytes(path)), engine="scipy")
    except NOT_NETCDF as error:
        raise damaged(path, str(error)) from error


def _replications(study: SavedStudy) -> dict[str, xr.Dataset]:
    table = _read(study, "replication", ("by", "group", "metric", "layer", "head"))
    found = {}
    for by, rows in table.groupby("by", sort=False):
        groups = rows.set_index(["group", "metric", "layer", "head"]).drop(columns="by").to_xarray()
        groups = groups.reindex(metric=list(METRICS))
        over_groups = ["n_groups", "replicated", "p_partial", "q_partial"]
        found[str(by)] = groups.assign({name: groups[name].isel(group=0, drop=True) for name in over_groups})
    return found


def _cue_shares(study: SavedStudy) -> xr.DataArray:
    dims = ("pair", "compared", "measure", "layer")
    table = _read(study, "cue_shares", (*dims, "share"))
    whole = {"compared": list(COMPARED), "measure": list(CONTRIBUTIONS), "layer": _axes(study)["layer"]}
    if table.empty:
        sizes = (0, *(len(values) for values in whole.values()))
        return xr.DataArray(np.empty(sizes), dims=dims, coords={"pair": [], **whole})
    return table.set_index(list(dims))["share"].to_xarray().reindex(whole)


def _metrics(study: SavedStudy) -> xr.Dataset:
    """The distances [pair layer head] and the output change by role [pair compared role layer head] of every pair."""
    whole = {"pair": study.pairs["pair"].to_numpy(), **_axes(study)}
    distances = _read(study, "distances", (*whole, "attention_distance", "norm_distance")).set_index([*whole])
    dims = ("pair", "compared", "role", "layer", "head")
    changes = _read(study, "metrics_by_role", (*dims, "output_change_by_role")).set_index([*dims])
    by_role = changes["output_change_by_role"].to_xarray()
    by_role = by_role.reindex({**whole, "compared": list(COMPARED), "role": list(ROLES)})
    return distances.to_xarray().reindex(whole).assign(output_change_by_role=by_role.transpose(*dims))


def _mean_effects(study: SavedStudy) -> dict[tuple[str, Direction], xr.DataArray]:
    found: dict[tuple[str, Direction], xr.DataArray] = {}
    for sweep_key, rows in study.patching.groupby(["site", "direction"], sort=False):
        site, direction = cast(tuple[str, Direction], sweep_key)
        by = str(rows["by"].iloc[0])
        axis = {by: _axes(study)["head"] if by == "head" else list(ROLES)}
        rows = rows.assign(**{by: rows["part"].astype(int) if by == "head" else rows["part"]})
        attrs = {"site": site, "how": "swap", "key_role": "", "direction": direction}
        found[site, direction] = _mean_effect(rows, {"layer": _axes(study)["layer"], **axis}, attrs)
    return found


def _mean_knock_out(study: SavedStudy, summary: StudySummary) -> xr.DataArray:
    differing = summary.row("differing_role")
    # Studies of older versions only knocked out cues.
    keys = "cue" if differing is None else differing["note"]
    rows = _read(study, "knock_out", ("pair", "layer", "head", "patched", "base", "source", *RUN_NAMES))
    return _mean_effect(rows, _axes(study), _KNOCK_OUT | {"key_role": keys})


def _mean_effect(rows: pd.DataFrame, axes: Mapping[str, Any], attrs: Mapping[str, Any]) -> xr.DataArray:
    """`patching.mean_effect` of a sweep, from the rows of its table."""
    by_pair = rows.drop_duplicates("pair").sort_values("pair")
    runs = {name: ("pair", by_pair[name].astype(str).to_numpy(dtype=str)) for name in RUN_NAMES}
    return mean_effect(sweep(rows, by_pair["pair"].tolist(), axes).assign_coords(runs).assign_attrs(attrs))


def _attention_to_cue(study: SavedStudy) -> xr.DataArray:
    """The same as `StudyResults.attention_to_cue`, from the tables."""
    patched = study.patching.query("site == 'z' and direction == 'denoising'")["pair"].unique().tolist()
    return metrics_dataset(study, patched)["norm_to_cue"].sel(compared="counterfactual", drop=True).mean("pair")
