"""Shards are read as they were written and not measured again, and an error names what is wrong with one."""

import errno
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from pyarrow import parquet

from negprobe.base.errors import StudyError
from negprobe.statements import StatementPair
from negprobe.study import shards as shards_module
from negprobe.study.formats import FORMAT
from negprobe.study.shards import Sharding, open_shards, write_shard
from negprobe.study.stages import STAGES, Stage

PAIRS = {3 * i: StatementPair(f"It is {'x' * i} so.", f"It is not {'x' * i} so.") for i in range(7)}


def measure(model: object, pairs: list[StatementPair]) -> xr.Dataset:
    """Numbers that tell the pairs apart, with NaN, text and several dtypes."""
    lengths = np.array([len(pair.original) for pair in pairs])
    values = lengths[:, None, None] * np.arange(6.0).reshape(2, 3)
    values[lengths % 2 == 0, 0, 0] = np.nan
    return xr.Dataset(
        {
            "wide": (("pair", "layer", "role"), values.astype(np.float32)),
            "deep": (("pair", "layer"), values[..., 1] / 3),
            "count": ("pair", lengths),
        },
        coords={"role": ["a", "b", "ü"], "layer": [0, 1], "why": ("pair", [pair.original for pair in pairs])},
        attrs={"rounding": 1e-7, "site": "z"},
    )


STAGE = Stage("m", "measuring, again", measure, "statements", 3)


class Engine:
    """Measures here, from the last shard to the first, and counts."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.measured = 0
        self.stop_after = stop_after

    def __call__(self, measure, jobs):
        for number in reversed(range(len(jobs))):
            if self.measured == self.stop_after:
                raise KeyboardInterrupt
            self.measured += 1
            yield number, measure(None, jobs[number])


def expected() -> xr.Dataset:
    return measure(None, list(PAIRS.values())).assign_coords(pair=list(PAIRS))


@pytest.mark.parametrize("kept", [True, False])
def test_shards_together_are_what_is_measured_at_once(tmp_path: Path, kept: bool) -> None:
    told = []
    sharding = Sharding(
        Engine(), tmp_path if kept else None, lambda step, done, total: told.append((step, done, total))
    )
    found = sharding.measured(STAGE, PAIRS)
    xr.testing.assert_identical(found.compute(), expected())
    for name, variable in expected().data_vars.items():
        assert found[name].dtype == variable.dtype
    assert told == [("measuring, again", done, 7) for done in (0, 1, 4, 7)]
    names = [f"m-0000{i}.parquet" for i in range(3)] if kept else []
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_every_stage_has_files_of_its_own() -> None:
    names = [stage.id for stage in STAGES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z_-]*", name) for name in names)


def test_wide_arrays_are_read_only_when_they_are_needed(tmp_path: Path) -> None:
    found = Sharding(Engine(), tmp_path).measured(STAGE, PAIRS)
    assert found["wide"].chunks == ((3, 3, 1), (2,), (3,)) and found["count"].chunks is None
    for path in tmp_path.iterdir():
        path.unlink()
    assert found["count"].sum() == expected()["count"].sum()
    with pytest.raises(StudyError, match="damaged"):
        found["wide"].compute()


def test_what_is_there_is_not_measured_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Sharding(Engine(stop_after=2), tmp_path).measured(STAGE, PAIRS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2
    engine = Engine()
    found = Sharding(engine, tmp_path).measured(STAGE, PAIRS)
    assert engine.measured == 1
    assert all(path.read_bytes() == content for path, content in before.items())
    xr.testing.assert_identical(found.compute(), expected())


def test_a_shard_of_other_pairs_is_an_error(tmp_path: Path) -> None:
    Sharding(Engine(), tmp_path).measured(STAGE, PAIRS)
    with pytest.raises(StudyError, match=r"m-00000\.parquet is damaged: it contains other pairs\. Delete it"):
        Sharding(Engine(), tmp_path).measured(STAGE, PAIRS, 4)


@pytest.mark.parametrize("spoil", [lambda data: data[:50], lambda data: b"", lambda data: b"not parquet" * 20])
def test_a_damaged_shard_is_named_and_the_others_stay(tmp_path: Path, spoil) -> None:
    Sharding(Engine(), tmp_path).measured(STAGE, PAIRS)
    path = tmp_path / "m-00001.parquet"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StudyError, match=r"m-00001\.parquet is damaged.*Delete it and run the same study again"):
        Sharding(Engine(), tmp_path).measured(STAGE, PAIRS)
    assert len(list(tmp_path.iterdir())) == 3
    path.unlink()
    engine = Engine()
    xr.testing.assert_identical(Sharding(engine, tmp_path).measured(STAGE, PAIRS).compute(), expected())
    assert engine.measured == 1


def test_a_flipped_bit_in_the_numbers_is_found(tmp_path: Path) -> None:
    found = Sharding(Engine(), tmp_path).measured(STAGE, PAIRS, 7)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    # In the first column, behind the magic number and the header of its page.
    data[60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StudyError, match="damaged"):
        for name in found.data_vars:
            open_shards([path])[name].compute()


def test_a_full_disk_leaves_what_is_there_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(expected(), tmp_path / "m-00000.parquet")
    before = (tmp_path / "m-00000.parquet").read_bytes()

    def full(table: object, where: Path, **options: object) -> None:
        where.write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards_module.parquet, "write_table", full)
    with pytest.raises(StudyError, match=r"No space left on device.*run the same study again to resume"):
        write_shard(expected(), tmp_path / "m-00000.parquet")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def with_format(path: Path, version: int | None) -> None:
    """The shard as a negprobe of another format version writes it."""
    table = parquet.read_table(path)
    layout = json.loads(table.schema.metadata[b"negprobe"])
    del layout["format"]
    written = json.dumps(layout if version is None else layout | {"format": version}).encode()
    checksum = hashlib.sha256(written).hexdigest()
    metadata = {"negprobe": written, "negprobe_sha256": checksum}
    parquet.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)


def test_shards_without_a_version_are_read_and_newer_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_shard(expected(), path)
    with_format(path, 1 + FORMAT)
    with pytest.raises(StudyError, match=rf"m\.parquet has format version {1 + FORMAT}, but .*Upgrade negprobe"):
        open_shards([path])
    write_shard(expected(), path)
    with_format(path, None)
    xr.testing.assert_identical(open_shards([path]).compute(), expected())
