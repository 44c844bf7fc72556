"""A study as it stands in its folder: the tables and the manifest that `study.write_study` wrote."""

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
from negprobe.study.formats import checked_format
from negprobe.study.reading import damaged, read_table

_NUMBERS = {
    "pairs": ("pair",),
    "answers": ("pair", "original", "counterfactual", "control"),
    "metrics": ("pair", "layer", "head", *METRICS),
    "patching": ("pair", "layer", "patched", "base", "source"),
    "knock_out_sets": ("pair", "patched", "base", "source"),
}
"""The columns of numbers that each table has."""

_WORDS = {
    "pairs": ("original", "counterfactual", "target", "foil", "control", "cue"),
    "answers": (),
    "metrics": ("compared",),
    "patching": ("site", "direction", "by", "part"),
    "knock_out_sets": ("patch",),
}
"""Its other columns."""

_KEYS = {
    "pairs": ["pair"],
    "answers": ["pair"],
    "metrics": ["pair", "compared", "layer", "head"],
    "patching": ["site", "direction", "by", "pair", "layer", "part"],
    "knock_out_sets": ["pair", "patch"],
}
"""The columns in which no two of its rows agree."""

_MANIFEST = {
    "model": ("name", "family", "head", "layers", "heads", "dtype"),
    "data": ("source", "pairs", "answered", "patched", "searched"),
    "versions": (),
}
"""What a manifest says of model and data."""


@dataclass(frozen=True, repr=False)
class SavedStudy:
    """What was read from a study's folder.

    Attributes:
        folder: Where it stands.
        manifest: How it was made, as `study.write_study` wrote it.
        pairs: The measured pairs, a row each; the column `pair` is what the other tables count by.
        answers: The objective of each pair's `original`, `counterfactual` and `control`.
        metrics: Every metric of every pair against counterfactual and control.
        patching: Every swap; empty if nothing was patched.
        knock_out_sets: Attention to the cue cut, by layer and role; empty if nothing was patched.
        circuit: The circuit; None if none was searched.
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
        """Layers, and heads in a layer."""
        return int(self.manifest["model"]["layers"]), int(self.manifest["model"]["heads"])

    @property
    def head(self) -> str:
        """What stands on the last block: "masked_lm", "classification" or "none"."""
        return str(self.manifest["model"]["head"])

    @property
    def has_one_logit(self) -> bool:
        """Whether the model gives a single score, not one of several labels."""
        # Studies of earlier versions do not name the labels.
        return len(self.manifest["model"].get("labels", ())) == 1

    @property
    def objective(self) -> str:
        """What its patches moved: "default" for the model's default objective."""
        # Studies of earlier versions had no other.
        return str(self.manifest.get("objective", DEFAULT_OBJECTIVE))

    @property
    def seed(self) -> int:
        """The seed of its intervals and tests."""
        return int(self.manifest["seed"])

    @property
    def rounding(self) -> float:
        """How far rounding may move a metric, as `AttentionProbe.metrics` says it."""
        return 8 * torch.finfo(getattr(torch, str(self.manifest["model"]["dtype"]))).eps


@checked
def read_study(folder: str | Path) -> SavedStudy:
    """Read the folder of a study.

    Raises:
        NegprobeError: for a folder that no study was written to, for a file of it that is missing or damaged (a
            circuit: as in `Circuit.load`), and for the folder of a newer negprobe.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    patched = manifest["data"]["patched"] > 0
    tables = {name: _table(folder, name) for name in ("pairs", "answers", "metrics")}
    # A folder may hold files of an earlier study that had more to write.
    for name in ("patching", "knock_out_sets"):
        tables[name] = _table(folder, name) if patched else pd.DataFrame(columns=[*_WORDS[name], *_NUMBERS[name]])
    # The manifest is written last: another count is that of a study that was broken off.
    if len(tables["pairs"]) != manifest["data"]["pairs"]:
        why = f"it has {len(tables['pairs'])} pairs and manifest.json {manifest['data']['pairs']}"
        raise damaged(folder / "pairs.parquet", why)
    known = set(tables["pairs"]["pair"])
    for name, table in tables.items():
        if not set(table["pair"]) <= known:
            raise damaged(folder / f"{name}.parquet", "it has pairs that are not in pairs.parquet")
        for axis in {"layer", "head"} & set(_NUMBERS[name]):
            # No range is made of the number before it is compared: a damaged one may be of any size.
            found, size = set(table[axis]), manifest["model"][f"{axis}s"]
            all_there = len(found) == size if name == "metrics" else True
            if not all_there or any(not 0 <= index < size or index != int(index) for index in found):
                raise damaged(folder / f"{name}.parquet", f"it has other {axis}s than the model's {size}")
    circuit = Circuit.load(folder / "circuit.json") if manifest["data"]["searched"] > 0 else None
    return SavedStudy(folder=folder, manifest=manifest, circuit=circuit, **tables)


def sweep(table: pd.DataFrame, pairs: Sequence[int], coords: Mapping[str, Sequence[Any]]) -> xr.Dataset:
    """Some pairs' rows of a table of swaps as the dataset that they were, for `patching.averages` and `mean_effect`.

    Args:
        table: Rows of one sweep with `pair`, `patched`, `base`, `source` and the dimensions.
        pairs: The pairs, in the order that the result has them.
        coords: Its dimensions beside `pair`, with their coordinates.

    Returns:
        `patched` [pair, and the dimensions], NaN where a pair has no such part; `base` and `source` [pair].
    """
    rows = table[table["pair"].isin(pairs)]
    cells = rows.set_index(["pair", *coords])["patched"].to_xarray().reindex({"pair": pairs, **coords})
    runs = rows.drop_duplicates("pair").set_index("pair")[["base", "source"]].reindex(list(pairs))
    return xr.Dataset(
        {"patched": cells, **{name: ("pair", runs[name].to_numpy(dtype=float)) for name in ("base", "source")}}
    )


def metrics_dataset(study: SavedStudy, pairs: Sequence[int]) -> xr.Dataset:
    """Some pairs' metrics [pair, compared, layer, head] as `AttentionProbe.metrics` gave them.

    Args:
        study: The study.
        pairs: The pairs, in the order that the result has them.
    """
    layers, heads = study.shape
    rows = study.metrics[study.metrics["pair"].isin(pairs)].set_index(["pair", "compared", "layer", "head"])
    found = rows[list(METRICS)].to_xarray()
    whole = {"pair": pairs, "compared": list(COMPARED), "layer": np.arange(layers), "head": np.arange(heads)}
    return found.reindex(whole).assign_attrs(rounding=study.rounding)


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
        raise damaged(path, f"it is no manifest of a study ({error!r})") from error
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise damaged(path, "its seed, and the counts of its model and data, are not all whole numbers")
    if not isinstance(getattr(torch, str(manifest["model"]["dtype"]), None), torch.dtype):
        raise damaged(path, f"its model has no known dtype but {quoted(manifest['model']['dtype'])}")
    return manifest


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    absent = f"{folder} lacks the table {path.name} that a study writes; run the study again."
    table = read_table(path, (*_NUMBERS[name], *_WORDS[name]), absent=absent)
    for column in _NUMBERS[name]:
        if not pd.api.types.is_numeric_dtype(table[column]) and len(table):
            raise damaged(path, f"its column {column} holds no numbers")
    for column in _WORDS[name]:
        cells = table[column].dropna()
        if len(cells) and not pd.api.types.is_string_dtype(cells):
            raise damaged(path, f"its column {column} holds no text")
    if table.duplicated(_KEYS[name]).any():
        raise damaged(path, f"two of its rows have the same {', '.join(_KEYS[name])}")
    return table
