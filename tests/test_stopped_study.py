"""A study that Ctrl-C or SIGTERM stops says how to go on, and the same command ends with the same tables."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from negprobe import study
from negprobe.cli import app

STUDY = """
import os, resource
import transformers.models.auto.modeling_auto
import negprobe.study as study
# After the imports, as PyTorch's may write files of their own.
if os.environ.get("FILE_LIMIT"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["FILE_LIMIT"]),) * 2)
study._PAIRS_IN_SHARD = study.PATCHED_IN_SHARD = 2
study.study_figures = lambda results: {}
study.study_report = lambda results, figures, manifest: ""
from negprobe.cli import app
app()
"""


def command_of(out: Path, *options: str) -> list[str]:
    return ["study", "--limit", "12", "--patch-pairs", "4", "--circuit-pairs", "4", "--out", str(out), *options]


def start(out: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STUDY, *command_of(out, *options)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def finish(out: Path) -> None:
    """The same here, which saves the seconds of the imports, with nothing to stop it."""
    with pytest.MonkeyPatch.context() as patch:
        for constant in ("_PAIRS_IN_SHARD", "PATCHED_IN_SHARD"):
            patch.setattr(study, constant, 2)
        patch.setattr(study, "study_figures", lambda results: {})
        patch.setattr(study, "study_report", lambda results, figures, manifest: "")
        result = CliRunner().invoke(app, command_of(out))
    assert result.exit_code == 0, (result.output, result.exception)


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
    process = start(out, "--engine", engine, **machine_whose_cluster_is_gone)
    while not any(out.glob("shards/*/*.parquet")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "the same command goes on from there" in " ".join(errors.split())
    assert "Traceback" not in errors
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*/*.parquet")}
    assert kept and not (out / "manifest.json").exists()
    finish(out)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert tables(out) == undisturbed


@pytest.mark.parametrize("limit", ["2000", "20000"])
def test_a_disk_that_is_full_is_an_error_after_which_the_study_goes_on(
    undisturbed: dict[str, bytes], tmp_path: Path, limit: str
) -> None:
    out = tmp_path / "out"
    full = start(out, FILE_LIMIT=limit)
    _, errors = full.communicate(timeout=120)
    assert full.returncode == 1
    assert errors.startswith("Error:") and "Traceback" not in errors, errors
    assert not list(out.rglob("*.part"))
    for name, table in tables(out).items():
        assert table == undisturbed[name]
    finish(out)
    assert tables(out) == undisturbed
