"""Shards: the results for many pairs, stored as parquet files with a row per pair.

Shards that are written are kept, so a stopped study resumes with the missing ones. They are read back one at a time, so
memory does not grow with the number of pairs. The arrays over all shards are dask arrays inside xarray datasets.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from pyarrow import parquet

from negprobe.base.errors import StudyError
from negprobe.base.files import check_file, whole_file
from negprobe.base.progress import Progress
from negprobe.study.engines import Engine
from negprobe.study.formats import FORMAT, checked_format
from negprobe.study.stages import Stage

# The schema keys of a shard's layout and of its checksum; parquet's own checksums cover only its pages.
_LAYOUT, _CHECKSUM = b"negprobe", b"negprobe_sha256"

# The errors that reading a file with a wrong byte can raise.
_UNREADABLE = (OSError, pa.ArrowException, KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Sharding:
    """How and where a study measures its stages.

    Attributes:
        engine: The execution backend.
        folder: The folder of the shards; None to keep them in memory.
        progress: Called after each shard.
    """

    engine: Engine
    folder: Path | None = None
    progress: Progress = lambda step, done, total: None

    def measured(self, stage: Stage, pairs: Mapping[int, Any], size: int | None = None) -> xr.Dataset:
        """The results of a stage for the pairs; shards that are already in the folder are not measured again.

        Args:
            stage: The stage; its `id` names the files, and progress shows its `title`.
            pairs: The pairs by their number, which becomes the coordinate `pair` of the result.
            size: The number of pairs per shard; by default the stage's own.

        Returns:
            The dataset of all pairs, in the given order. If there is a folder, arrays with more dimensions than `pair`
            are read only when needed, one shard at a time.

        Raises:
            StudyError: for a shard that is damaged, contains other pairs or cannot be written.
        """
        size = size or stage.pairs_in_shard
        numbers = list(pairs)
        shards = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        paths = [] if self.folder is None else [self.folder / _file_name(stage, i) for i in range(len(shards))]
        for path, shard in zip(paths, shards, strict=False):
            if path.exists() and _layout(path)["pair"] != shard:
                raise damaged_checkpoint(path, "it contains other pairs")
        missing = [i for i in range(len(shards)) if not (paths and paths[i].exists())]
        done = len(numbers) - sum(len(shards[i]) for i in missing)
        self.progress(stage.title, done, len(numbers))
        kept: dict[int, xr.Dataset] = {}
        for job, found in self.engine(stage.measure, [[pairs[number] for number in shards[i]] for i in missing]):
            i = missing[job]
            dataset = found.assign_coords(pair=shards[i])
            if paths:
                write_shard(dataset, paths[i])
            else:
                kept[i] = dataset
            done += len(shards[i])
            self.progress(stage.title, done, len(numbers))
        return open_shards(paths) if paths else _joined([kept[i] for i in range(len(shards))])


def write_shard(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset along `pair` as a parquet file with a row per pair; the file is written completely or not at all.

    Raises:
        StudyError: if it cannot be written.
    """
    along = {str(name): variable for name, variable in dataset.variables.items() if variable.dims[:1] == ("pair",)}
    layout = {
        "format": FORMAT,
        "dims": {name: list(variable.dims) for name, variable in along.items()},
        "variables": [name for name in along if name in dataset.data_vars],
        "coords": {str(name): _plain(dataset[name].values) for name in dataset.coords if name not in along},
        "pair": _plain(dataset["pair"].values),
        "attrs": {name: _plain(value) for name, value in dataset.attrs.items()},
    }
    table = pa.table({name: _column(variable.values) for name, variable in along.items()})
    encoded = json.dumps(layout).encode()
    table = table.replace_schema_metadata({_LAYOUT: encoded, _CHECKSUM: _checksum(encoded)})
    try:
        with whole_file(path) as part:
            parquet.write_table(table, part, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be written: {error}. Earlier results are kept: free some space and run the "
            "same study again to resume it."
        ) from error


def open_shards(paths: Sequence[Path]) -> xr.Dataset:
    """The shards as one dataset; arrays with more dimensions than `pair` are read only when needed.

    Raises:
        StudyError: for a damaged shard; damaged arrays are found when they are read.
    """
    return _joined([_opened(path) for path in paths])


def _joined(shards: Sequence[xr.Dataset]) -> xr.Dataset:
    return xr.concat(shards, "pair", data_vars="minimal", coords="minimal", compat="override", combine_attrs="override")


def _opened(path: Path) -> xr.Dataset:
    # Slow to import, and needed only for a study in a folder.
    from dask import array as dask_array
    from dask import delayed

    layout = _layout(path)
    dims, coords = layout["dims"], layout["coords"]
    n_pairs = len(layout["pair"])
    arrays: dict[str, Any] = {name: _read(path, name, (n_pairs,)) for name in dims if len(dims[name]) == 1}
    for name in set(dims) - set(arrays):
        shape = (n_pairs, *(len(coords[dim]) for dim in dims[name][1:]))
        dtype = _type_of(path, name)
        read = delayed(partial(_read, path, name, shape), pure=True)
        arrays[name] = dask_array.from_delayed(read(), shape, dtype)
    variables = {name: (dims[name], arrays[name]) for name in dims}
    return xr.Dataset(
        {name: variables[name] for name in layout["variables"]},
        coords=coords | {name: variables[name] for name in dims if name not in layout["variables"]},
        attrs=layout["attrs"],
    )


def _layout(path: Path) -> dict[str, Any]:
    try:
        check_file(path)
        metadata = parquet.read_schema(path).metadata
        if _checksum(metadata[_LAYOUT]) != metadata[_CHECKSUM]:
            raise ValueError("its layout does not match its checksum")
        layout = json.loads(metadata[_LAYOUT])
    except _UNREADABLE as error:
        raise damaged_checkpoint(path, f"it cannot be read as a shard ({error})") from error
    # Version 1 has the same layout.
    checked_format(path, layout.get("format"))
    return layout


def _checksum(layout: bytes) -> bytes:
    return hashlib.sha256(layout).hexdigest().encode()


def _read(path: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A column as an array; the checksums of its pages are verified."""
    try:
        column = parquet.read_table(path, columns=[name], page_checksum_verification=True)[name].combine_chunks()
        values = column.flatten() if len(shape) > 1 else column
        return values.to_numpy(zero_copy_only=False).reshape(shape)
    except _UNREADABLE as error:
        raise damaged_checkpoint(path, str(error)) from error


def _type_of(path: Path, name: str) -> np.dtype:
    try:
        return np.dtype(parquet.read_schema(path).field(name).type.value_type.to_pandas_dtype())
    except _UNREADABLE as error:
        raise damaged_checkpoint(path, str(error)) from error


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values.tolist() if values.dtype.kind in "OU" else values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), int(np.prod(values.shape[1:])))


def _plain(value: Any) -> Any:
    """The value in a form that JSON can represent."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _file_name(stage: Stage, number: int) -> str:
    return f"{stage.id}-{number:05d}.parquet"


def damaged_checkpoint(path: Path, why: str) -> StudyError:
    """The error for a damaged file of results that a study resumes from."""
    return StudyError(
        f"{path} is damaged: {why}. Delete it and run the same study again; only this file is recomputed."
    )
