"""A study measured by the workers of a cluster has the tables of one measured here, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from negprobe import HookedEncoder, builtin_pairs, mechanism, study
from negprobe.engines import cluster_device, in_process, on_ray
from negprobe.errors import StatementError, StudyError
from negprobe.shards import Sharding
from negprobe.study import run_study, write_study

PAIRS = dict(enumerate(builtin_pairs()[::25]))


def load(device: str = "cpu") -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device=device)


def embedded(model: HookedEncoder, pairs: list) -> xr.Dataset:
    """The sum of the first weights, which process read them, and by how many threads."""
    weights = np.full(len(pairs), float(model.embed.W_E[: len(pairs[0].original)].detach().sum()))
    told = {"process": os.getpid(), "threads": torch.get_num_threads()}
    return xr.Dataset({"weights": ("pair", weights)} | {k: ("pair", np.full(len(pairs), v)) for k, v in told.items()})


def refusing(model: HookedEncoder, pairs: list) -> xr.Dataset:
    raise StatementError("This pair cannot be measured; give another.")


def ending(deaths: Path, model: HookedEncoder, pairs: list) -> xr.Dataset:
    """What a worker without memory does."""
    (deaths / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_in_process_measures_every_shard_in_its_order() -> None:
    shards = [list(PAIRS.values())[:2], list(PAIRS.values())[2:]]
    found = list(in_process(load())(embedded, shards))
    assert [number for number, _ in found] == [0, 1]
    assert [dataset.sizes["pair"] for _, dataset in found] == [len(shard) for shard in shards]


def test_a_cluster_that_does_not_answer_is_an_error() -> None:
    pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    waits = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "1"}
    asking = subprocess.run(
        [sys.executable, "-c", "from negprobe.engines import cluster_device; cluster_device(None)"],
        env=os.environ | waits | {"RAY_ADDRESS": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        # Less than Ray would try by itself, which is twenty times.
        timeout=60,
    )
    assert "StudyError: There is no Ray cluster to be had: Failed to connect" in asking.stderr


@pytest.fixture(scope="module")
def ray():
    """A cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    here = str(Path(__file__).parent)
    python_path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"env_vars": {"PYTHONPATH": python_path}}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def workers(ray):
    """Two, as this process has one thread."""
    return on_ray(load)


def test_the_workers_of_a_cluster_without_gpus_are_on_cpus(ray) -> None:
    assert cluster_device(None) == cluster_device("cpu") == "cpu"
    with pytest.raises(StudyError, match=r"cuda:1; write 'cuda'"):
        cluster_device("cuda:1")
    with pytest.raises(StudyError, match="no GPU for a worker"):
        list(on_ray(load, "cuda")(embedded, [list(PAIRS.values())]))


def test_workers_find_what_this_process_finds(workers, tmp_path: Path) -> None:
    here = Sharding(in_process(load())).measured("m", embedded, PAIRS, 3)
    there = Sharding(workers, tmp_path).measured("m", embedded, PAIRS, 3).compute()
    xr.testing.assert_identical(here.drop_vars("process"), there.drop_vars("process"))
    assert set(here["process"].values) == {os.getpid()}
    assert len(set(there["process"].values)) == 2 and os.getpid() not in there["process"].values


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".parquet", ".nc")}


def test_a_study_on_workers_that_are_killed_has_the_tables_of_one_made_here(
    workers, without_figures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for constant in ("_PAIRS_IN_SHARD", "PATCHED_IN_SHARD"):
        monkeypatch.setattr(study, constant, 2)
    monkeypatch.setattr(mechanism, "PATCHED_IN_SHARD", 2)
    pairs = builtin_pairs()[::28]
    model = load()
    write_study(run_study(model, pairs, patch_pairs=4), tmp_path / "here")
    killed = []

    def kill_one(step: str, done: int, total: int) -> None:
        """In the middle of measuring the heads, and again of the first sweep."""
        if 0 < done < total and step in ("measuring every head", "patching resid_pre, noising") and step not in killed:
            killed.append(step)
            process = next(iter(workers(embedded, [pairs[:1]])))[1]["process"].item()
            os.kill(process, signal.SIGKILL)

    shards = tmp_path / "shards"
    there = run_study(model, pairs, patch_pairs=4, shards=shards, engine=workers, progress=kill_one)
    write_study(there, tmp_path / "there")
    assert len(killed) == 2
    assert len(tables(tmp_path / "here")) > 10
    assert tables(tmp_path / "there") == tables(tmp_path / "here")


def test_an_error_of_a_worker_is_ours(workers) -> None:
    with pytest.raises(StatementError, match=r"^This pair cannot be measured; give another\.$"):
        list(workers(refusing, [list(PAIRS.values())]))


def test_a_shard_that_ends_every_worker_is_an_error(workers, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="ended each worker that measured it"):
        list(workers(partial(ending, tmp_path), [list(PAIRS.values())]))
    assert 1 < len(list(tmp_path.iterdir())) < 9
    # The others are still there.
    assert len(list(workers(embedded, [list(PAIRS.values())] * 2))) == 2


def test_workers_that_cannot_be_had_are_told(ray, workers) -> None:
    list(workers(embedded, [list(PAIRS.values())]))
    with pytest.raises(StudyError, match=r"None of 2 workers was ready after 1 s: the Ray cluster is busy"):
        list(on_ray(load, patience=1.0)(embedded, [list(PAIRS.values())]))


def test_fewer_cpus_than_threads_are_one_worker_that_has_the_threads(ray, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    here = str(Path(__file__).parent)
    ray.init("local", num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": here}})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    with pytest.raises(StudyError, match=r"could not load the model: .*cannot be put on"):
        list(on_ray(partial(load, "nowhere"))(embedded, [list(PAIRS.values())]))
    ((_, found),) = on_ray(load)(embedded, [list(PAIRS.values())])
    assert set(found["threads"].values) == {5}
