"""The file `figure_data.npz` of a study: the data of its figures that no table has, such as the maps of the example."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from negprobe.attention import Comparison, StatementAttention
from negprobe.base.errors import StudyError
from negprobe.base.files import check_file, whole_file
from negprobe.patching import Direction
from negprobe.statements import Alignment, StatementPair, TokenizedStatement
from negprobe.study.reading import damaged
from negprobe.study.results import StudyResults

FIGURE_FILE = "figure_data.npz"
"""The name of the file in the folder of a study."""

_FORMAT = 1
_MAPS = ("raw", "similarity", "norm")
_SIDES = ("original", "counterfactual")

# The errors that reading damaged files has raised in tests.
_UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OSError, zipfile.BadZipFile)


@dataclass(frozen=True, repr=False)
class FigureFile:
    """The content of the file.

    Attributes:
        example: The pair shown as an example, with the maps of the shown head; the maps of other heads are NaN.
        positions: `StudyResults.position_effects`.
        uniform_distance: The attention distance of uniform attention in each original, `[pair]`.
        readings: `Mechanism.readings`; None if nothing was patched.
    """

    example: Comparison
    positions: dict[Direction, xr.DataArray]
    uniform_distance: xr.DataArray
    readings: xr.Dataset | None


def write_figure_file(results: StudyResults, path: Path) -> None:
    """Write the file.

    Raises:
        OSError: if it cannot be written.
    """
    datasets = {
        f"positions {way}": effects.to_dataset(name="effect").assign_attrs(effects.attrs)
        for way, effects in results.position_effects.items()
    }
    datasets["distance"] = results.metrics[["uniform_distance"]].reset_coords(drop=True).compute()
    if results.mechanism is not None:
        datasets["readings"] = results.mechanism.readings
    shown = results.summary.rows("shown_head").iloc[0]
    arrays, example = _packed_example(results.examples[0], int(shown["layer"]), int(shown["head"]))
    layouts = {}
    for name, dataset in datasets.items():
        variables = {str(key): variable for key, variable in dataset.variables.items()}
        arrays |= {f"{name}/{key}": _storable(variable.values) for key, variable in variables.items()}
        layouts[name] = {
            "dims": {key: list(variable.dims) for key, variable in variables.items()},
            "coords": [str(key) for key in dataset.coords],
            "attrs": dataset.attrs,
        }
    meta = {"format": _FORMAT, "example": example, "datasets": layouts}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]


def read_figure_file(path: Path) -> FigureFile:
    """The content of the file.

    Raises:
        FileNotFoundError: if there is no such file; early versions of negprobe did not write it.
        NegprobeError: if the file is damaged or of a newer format version.
    """
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            meta = json.loads(str(arrays["meta"]))
            if isinstance(meta["format"], int) and meta["format"] > _FORMAT:
                raise StudyError(
                    f"{path} has format version {meta['format']}, but this version of negprobe reads only versions up "
                    f"to {_FORMAT}. Upgrade negprobe to read it."
                )
            datasets = {name: _dataset(name, layout, arrays) for name, layout in meta["datasets"].items()}
            positions: dict[Direction, xr.DataArray] = {}
            for way in ("noising", "denoising"):
                if f"positions {way}" in datasets:
                    found = datasets[f"positions {way}"]
                    positions[way] = found["effect"].assign_attrs(found.attrs)
            return FigureFile(
                example=_example(meta["example"], arrays),
                positions=positions,
                uniform_distance=datasets["distance"]["uniform_distance"],
                readings=datasets.get("readings"),
            )
    except _UNREADABLE as error:
        raise damaged(path, str(error)) from error


def _storable(values: np.ndarray) -> np.ndarray:
    """The values, with text as fixed-width strings, which can be saved without pickle."""
    return values if values.dtype.kind in "biuf" else values.astype(str)


def _dataset(name: str, layout: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    variables = {key: (dims, arrays[f"{name}/{key}"]) for key, dims in layout["dims"].items()}
    return xr.Dataset(variables, attrs=layout["attrs"]).set_coords(layout["coords"])


def _packed_example(example: Comparison, layer: int, head: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The maps of one head as arrays, and the rest of the example as values for JSON."""
    sides = {name: getattr(example, name) for name in _SIDES}
    arrays = {
        f"{name}/{kind}": getattr(side, kind)[layer, head].numpy() for name, side in sides.items() for kind in _MAPS
    }
    meta = {
        "head": [layer, head],
        "pair": asdict(example.pair),
        "statements": {name: asdict(side.statement) for name, side in sides.items()},
        "alignment": asdict(example.alignment),
        "cue_positions": example.cue_positions,
    }
    return arrays, meta


def _example(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Comparison:
    layer, head = meta["head"]
    sides = {}
    for name in _SIDES:
        statement = TokenizedStatement(**{key: _tuples(value) for key, value in meta["statements"][name].items()})
        maps = {}
        for kind in _MAPS:
            values = torch.from_numpy(arrays[f"{name}/{kind}"])
            maps[kind] = torch.full((layer + 1, head + 1, *values.shape), torch.nan, dtype=values.dtype)
            maps[kind][layer, head] = values
        nothing = torch.empty(layer + 1, head + 1, len(statement), 0)
        sides[name] = StatementAttention(statement=statement, **maps, value=nothing, z=nothing)
    return Comparison(
        pair=StatementPair(**{key: _tuples(value) for key, value in meta["pair"].items()}),
        **sides,
        alignment=Alignment(**{key: _tuples(value) for key, value in meta["alignment"].items()}),
        metrics=xr.Dataset(),
        cue_positions=tuple(meta["cue_positions"]),
    )


def _tuples(value: Any) -> Any:
    """The value with lists, which JSON makes of tuples, converted back to tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
