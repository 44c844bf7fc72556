"""Saved studies: the tables, manifest and circuit in a study's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from negprobe.attention import COMPARED, METRICS
from negprobe.base.arguments import checked
from negprobe.base.errors import NegprobeError
from negprobe.base.files import read_bytes
from negprobe.base.reprs import short_repr
from negprobe.base.texts import quoted
from negprobe.patching import Circuit
from negprobe.study.folder import DEFAULT_OBJECTIVE
from negprobe.study.formats import FORMAT, checked_format
from negprobe.study.reading import damaged, read_table

_NUMBERS = {
    "pairs": ("pair",),
    "answers": ("pair", "original", "counterfactual", "control"),
    "metrics": ("pair", "layer", "head", *METRICS),
    "patching": ("pair", "layer", "patched", "base", "source"),
    "knock_out_sets": ("pair", "patched", "base", "source"),
}
"""The numeric columns of each table."""

_WORDS = {
    "pairs": ("original", "counterfactual", "target", "foil", "control", "cue", "cluster"),
    "answers": (),
    "metrics": ("compared",),
    "patching": ("site", "direction", "by", "part"),
    "knock_out_sets": ("patch",),
}
"""The text columns of each table."""

_KEYS = {
    "pairs": ["pair"],
    "answers": ["pair"],
    "metrics": ["pair", "compared", "layer", "head"],
    "patching": ["site", "direction", "by", "pair", "layer", "part"],
    "knock_out_sets": ["pair", "patch"],
}
"""The columns that identify a row of each table."""

_MANIFEST = {
    "model": ("name", "family", "head", "layers", "heads", "dtype"),
    "data": ("source", "pairs", "answered", "patched", "searched"),
    "versions": (),
}
"""The required entries of each part of a manifest."""


@dataclass(frozen=True, repr=False)
class SavedStudy:
    """The contents of a study's folder.

    Attributes:
        folder: The folder.
        manifest: How the study was made, from manifest.json.
        pairs: The measured pairs, one per row, numbered by the column `pair` in all tables.
        answers: The objective of each pair's `original`, `counterfactual` and `control`.
        metrics: All metrics of the pairs, original against counterfactual and against control.
        patching: All swaps; empty if nothing was patched.
        knock_out_sets: Knock-outs of attention to the cue by layer and role; empty if nothing was patched.
        circuit: The circuit; None if there was no search.
    """

    folder: Path
    manifest: Mapping[str, Any]
    pairs: pd.DataFrame
    answers: pd.DataFrame
    metrics: pd.DataFrame
    patching: pd.DataFrame
    knock_out_sets: pd.DataFrame
    circuit: Circuit | None

    __repr__ = short_repr

    @property
    def shape(self) -> tuple[int, int]:
        """The number of layers, and of heads per layer."""
        return int(self.manifest["model"]["layers"]), int(self.manifest["model"]["heads"])

    @property
    def head(self) -> str:
        """The model's head: "masked_lm", "classification" or "none"."""
        return str(self.manifest["model"]["head"])

    @property
    def has_one_logit(self) -> bool:
        """Whether the model is a classifier with a single logit."""
        # Earlier versions did not record the labels.
        return len(self.manifest["model"].get("labels", ())) == 1

    @property
    def objective(self) -> str:
        """The objective that was patched: "default" for the model's default."""
        # Earlier versions had only the default objective.
        return str(self.manifest.get("objective", DEFAULT_OBJECTIVE))

    @property
    def seed(self) -> int:
        """The seed of its intervals and tests."""
        return int(self.manifest["seed"])

    @property
    def rounding(self) -> float:
        """The largest rounding difference of a metric, as in `AttentionProbe.metrics`."""
        return 8 * torch.finfo(getattr(torch, str(self.manifest["model"]["dtype"]))).eps


@checked
def read_study(folder: str | Path) -> SavedStudy:
    """The study saved in a folder.

    Raises:
        NegprobeError: for a folder that is not a study's, for missing or damaged files, and for files written by a
            newer version of negprobe.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    patched = manifest["data"]["patched"] > 0
    older = checked_format(folder / "manifest.json", manifest.get("format")) < FORMAT
    # Without a cluster, a pair stands alone.
    tables = {"pairs": _table(folder, "pairs", {"cluster": ""} if older else {}), "answers": _table(folder, "answers")}
    # A metric that was added since the study was written is undefined in it.
    tables["metrics"] = _table(folder, "metrics", dict.fromkeys(METRICS, np.nan) if older else {})
    # The folder may contain files of an earlier study, which this one did not overwrite.
    for name in ("patching", "knock_out_sets"):
        tables[name] = _table(folder, name) if patched else pd.DataFrame(columns=[*_WORDS[name], *_NUMBERS[name]])
    # The manifest is written last: if the numbers of pairs differ, a later study was interrupted.
    if len(tables["pairs"]) != manifest["data"]["pairs"]:
        why = f"it has {len(tables['pairs'])} pairs and manifest.json {manifest['data']['pairs']}"
        raise damaged(folder / "pairs.parquet", why)
    known = set(tables["pairs"]["pair"])
    for name, table in tables.items():
        if not set(table["pair"]) <= known:
            raise damaged(folder / f"{name}.parquet", "it has pairs that are not in pairs.parquet")
        for axis in {"layer", "head"} & set(_NUMBERS[name]):
            # Values are compared one by one, because a damaged number could make a range of any size.
            found, size = set(table[axis]), manifest["model"][f"{axis}s"]
            all_there = len(found) == size if name == "metrics" else True
            if not all_there or any(not 0 <= index < size or index != int(index) for index in found):
                raise damaged(folder / f"{name}.parquet", f"it has other {axis}s than the model's {size}")
    circuit = Circuit.load(folder / "circuit.json") if manifest["data"]["searched"] > 0 else None
    return SavedStudy(folder=folder, manifest=manifest, circuit=circuit, **tables)


def sweep(table: pd.DataFrame, pairs: Sequence[int], coords: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """The swaps of some pairs as a dataset, for `patching.averages` and `mean_effect`.

    Args:
        table: Rows of one sweep with `pair`, `patched`, `base`, `source` and the dimensions.
        pairs: The numbers of the pairs, in the order of the result.
        coords: The coordinates of the other dimensions.

    Returns:
        `patched` [pair, ...], NaN where a pair does not have the part; `base` and `source` [pair].
    """
    rows = table[table["pair"].isin(pairs)]
    cells = rows.set_index(["pair", *coords])["patched"].to_xarray().reindex({"pair": pairs, **coords})
    runs = rows.drop_duplicates("pair").set_index("pair")[["base", "source"]].reindex(list(pairs))
    return xr.Dataset(
        {"patched": cells, **{name: ("pair", runs[name].to_numpy(dtype=float)) for name in ("base", "source")}}
    )


def metrics_dataset(study: SavedStudy, pairs: Sequence[int]) -> xr.Dataset:
    """The metrics of some pairs [pair, compared, layer, head], as returned by `AttentionProbe.metrics`.

    Coordinates along `pair` are `cue` and `cluster`.

    Args:
        study: The study.
        pairs: The numbers of the pairs, in the order of the result.
    """
    layers, heads = study.shape
    rows = study.metrics[study.metrics["pair"].isin(pairs)].set_index(["pair", "compared", "layer", "head"])
    found = rows[list(METRICS)].to_xarray()
    whole = {"pair": pairs, "compared": list(COMPARED), "layer": np.arange(layers), "head": np.arange(heads)}
    about = study.pairs.set_index("pair").loc[list(pairs), ["cue", "cluster"]].fillna("")
    return (
        found.reindex(whole)
        .assign_coords({name: ("pair", values.tolist()) for name, values in about.items()})
        .assign_attrs(rounding=study.rounding)
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(read_bytes(path).decode())
        # Version 1 has the same tables.
        checked_format(path, manifest.get("format"))
        for part, names in _MANIFEST.items():
            missing = [name for name in names if name not in manifest[part]]
            if missing:
                raise damaged(path, f"its {part} has no {', '.join(missing)}")
        numbers = [manifest["seed"], *(manifest["model"][name] for name in ("layers", "heads"))]
        numbers += [manifest["data"][name] for name in ("pairs", "answered", "patched", "searched")]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NegprobeError(
            f"{folder} is not the folder of a study: it has no manifest.json. Give the folder of a finished study."
        ) from error
    except OSError as error:
        raise NegprobeError(f"{path} cannot be read: {error}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"it is not a study's manifest ({error!r})") from error
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise damaged(path, "its seed, and the counts of its model and data, are not all whole numbers")
    if not isinstance(getattr(torch, str(manifest["model"]["dtype"]), None), torch.dtype):
        raise damaged(path, f"its model has an unknown dtype, {quoted(manifest['model']['dtype'])}")
    return manifest


def _table(folder: Path, name: str, defaults: Mapping[str, str | float] | None = None) -> pd.DataFrame:
    """A table with its columns checked; a column with a default may be missing and then has that value."""
    defaults = defaults or {}
    path = folder / f"{name}.parquet"
    absent = f"{folder} is missing the table {path.name}; run the study again."
    required = [column for column in (*_NUMBERS[name], *_WORDS[name]) if column not in defaults]
    table = read_table(path, required, absent=absent)
    table = table.assign(**{column: value for column, value in defaults.items() if column not in table})
    for column in _NUMBERS[name]:
        if not pd.api.types.is_numeric_dtype(table[column]) and len(table):
            raise damaged(path, f"its column {column} is not numeric")
    for column in _WORDS[name]:
        cells = table[column].dropna()
        if len(cells) and not pd.api.types.is_string_dtype(cells):
            raise damaged(path, f"its column {column} is not text")
    if table.duplicated(_KEYS[name]).any():
        raise damaged(path, f"two of its rows have the same {', '.join(_KEYS[name])}")
    return table
