"""A study stopped by Ctrl-C or SIGTERM prints how to resume it, and the same command then writes the same tables."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.small_study import start


def finish(out: Path) -> None:
    said = out.with_name("said")
    process = start(out, said)
    process.join(120)
    assert process.exitcode == 0, said.read_text()


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    finish(out)
    return tables(out)


@pytest.fixture
def machine_whose_cluster_is_gone() -> Iterator[dict[str, str]]:
    """The environment in which Ray finds the address of a cluster that no longer is there."""
    # Not `tmp_path`, whose name is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        address = Path(folder, "ray", "ray_current_cluster")
        address.parent.mkdir()
        address.write_text("127.0.0.1:9")
        yield {"RAY_TMPDIR": folder, "RAY_ADDRESS": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "number", "status"),
    [("local", signal.SIGINT, 130), ("local", signal.SIGTERM, 143), ("ray", signal.SIGTERM, 143)],
)
def test_a_stopped_study_goes_on(
    undisturbed: dict[str, bytes],
    machine_whose_cluster_is_gone: dict[str, str],
    tmp_path: Path,
    engine: str,
    number: int,
    status: int,
) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    out = tmp_path / "out"
    said = tmp_path / "said"
    process = start(out, said, "--engine", engine, **machine_whose_cluster_is_gone)
    assert process.pid is not None
    while not any(out.glob("shards/*/*.parquet")):
        assert process.is_alive(), said.read_text()
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == status, said.read_text()
    assert "run the same command again to resume" in " ".join(said.read_text().split())
    assert "Traceback" not in said.read_text()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/*.parquet")}
    assert kept and not (out / "manifest.json").exists()
    finish(out)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert tables(out) == undisturbed


# In bytes: less than any shard has, and more than all shards, but less than the largest tables have.
@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_000, 50_000])
def test_a_disk_that_is_full_is_an_error_after_which_the_study_goes_on(
    undisturbed: dict[str, bytes], tmp_path: Path, limit: int
) -> None:
    out = tmp_path / "out"
    said = tmp_path / "said"
    full = start(out, said, file_limit=limit)
    full.join(120)
    assert full.exitcode == 1
    assert said.read_text().startswith("Error:") and "Traceback" not in said.read_text(), said.read_text()
    assert not list(out.rglob("*.part"))
    assert bool(list(out.glob("shards/*/*.parquet"))) == (limit > 2_000)
    for name, table in tables(out).items():
        assert table == undisturbed[name]
    finish(out)
    assert tables(out) == undisturbed
