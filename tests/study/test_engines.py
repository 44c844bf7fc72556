"""A study measured by the workers of a cluster has the same tables as one measured in this process."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from negprobe import HookedEncoder, builtin_pairs
from negprobe.base.errors import StatementError, StudyError
from negprobe.statements import StatementPair, english_lexicon, find_cues, use_lexicon
from negprobe.study import engines, run_study
from negprobe.study.engines import cluster_device, in_process, on_ray, release
from negprobe.study.shards import Sharding
from negprobe.study.stages import STAGES, Stage
from negprobe.views import write_study
from tests.support import ROOT

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


def dawdling(model: HookedEncoder, pairs: list) -> xr.Dataset:
    time.sleep(1)
    return embedded(model, pairs)


def ended(process: int) -> bool:
    """Whether a process is gone in half a minute."""
    for _ in range(300):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_in_process_measures_every_shard_in_its_order() -> None:
    shards = [list(PAIRS.values())[:2], list(PAIRS.values())[2:]]
    found = list(in_process(load())(embedded, shards))
    assert [number for number, _ in found] == [0, 1]
    assert [dataset.sizes["pair"] for _, dataset in found] == [len(shard) for shard in shards]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_is_an_error_at_once_and_not_lines_of_rays_log(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(StudyError, match=r"nothing answers at 127\.0\.0\.1:9\. Set RAY_ADDRESS.*The local engine"):
        cluster_device(None)
    # Ray itself tries for more than two minutes.
    assert time.monotonic() - began < 30
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def ray():
    """A cluster of two CPUs on this machine."""
    ray = pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
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
    with pytest.raises(StudyError, match=r"cannot be 'cuda:1'; use 'cuda'"):
        cluster_device("cuda:1")
    with pytest.raises(StudyError, match="no GPU for a worker"):
        list(on_ray(load, "cuda")(embedded, [list(PAIRS.values())]))


def test_workers_find_what_this_process_finds(workers, tmp_path: Path) -> None:
    here = Sharding(in_process(load())).measured(Stage("m", "embedding", embedded, "statements", 3), PAIRS)
    there = Sharding(workers, tmp_path).measured(Stage("m", "embedding", embedded, "statements", 3), PAIRS).compute()
    xr.testing.assert_identical(here.drop_vars("process"), there.drop_vars("process"))
    assert set(here["process"].values) == {os.getpid()}
    assert len(set(there["process"].values)) == 2 and os.getpid() not in there["process"].values


def cues(model: HookedEncoder, pairs: list) -> xr.Dataset:
    """The number of cues in the counterfactual of each pair."""
    return xr.Dataset({"n": ("pair", [len(find_cues(pair.counterfactual)) for pair in pairs])})


def test_workers_search_for_the_cues_of_the_lexicon_in_use(workers) -> None:
    pairs = [StatementPair("It has doors.", "It lacks doors.")]
    for classes, expected in (((), 0), (("lexical",), 1), ((), 0)):
        use_lexicon(english_lexicon(classes=classes))
        try:
            ((_, found),) = workers(cues, [pairs])
        finally:
            use_lexicon(None)
        assert found["n"].item() == expected


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".parquet", ".nc")}


@pytest.mark.slow
def test_a_study_on_workers_that_are_killed_has_the_tables_of_one_made_here(
    workers, without_figures, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for stage in STAGES:
        monkeypatch.setitem(vars(stage), "pairs_in_shard", 2)
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


@pytest.mark.slow
def test_a_shard_that_ends_every_worker_is_an_error(workers, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^Every worker that measured a certain shard ended"):
        list(workers(partial(ending, tmp_path), [list(PAIRS.values())]))
    assert 1 < len(list(tmp_path.iterdir())) < 9
    # The others are still there.
    assert len(list(workers(embedded, [list(PAIRS.values())] * 2))) == 2


@pytest.mark.slow
def test_a_lost_head_is_an_error_that_says_what_to_do(ray, workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_POLL", 0.05)
    shards = [list(PAIRS.values())]
    assert len(list(workers(dawdling, shards))) == 1
    monkeypatch.setattr(engines, "_answers", lambda address: False)
    with pytest.raises(StudyError, match=r"^The head node .* no longer answers.*kept.*or use the local engine"):
        list(workers(dawdling, shards))


@pytest.mark.slow
def test_released_workers_are_ended_and_a_users_own_cluster_is_left(ray, workers) -> None:
    before = next(iter(workers(embedded, [list(PAIRS.values())])))[1]["process"].values[0]
    workers.release()
    assert ray.is_initialized()
    assert ended(before)
    after = next(iter(workers(embedded, [list(PAIRS.values())])))[1]["process"].values[0]
    assert after != before


@pytest.mark.slow
def test_workers_that_cannot_be_had_are_told(ray, workers) -> None:
    list(workers(embedded, [list(PAIRS.values())]))
    with pytest.raises(StudyError, match=r"None of 2 workers loaded the model within 1 s: the Ray cluster is busy"):
        list(on_ray(load, patience=1.0)(embedded, [list(PAIRS.values())]))


@pytest.mark.slow
def test_fewer_cpus_than_threads_are_one_worker_that_has_the_threads(ray, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    ray.init("local", num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    with pytest.raises(StudyError, match=r"could not load the model: .*cannot be moved to"):
        list(on_ray(partial(load, "nowhere"))(embedded, [list(PAIRS.values())]))
    ((_, found),) = on_ray(load)(embedded, [list(PAIRS.values())])
    assert set(found["threads"].values) == {5}


@pytest.mark.slow
def test_a_cluster_of_our_own_is_shut_down_when_the_engine_is_released(ray, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    assert cluster_device("cpu") == "cpu"
    engine = on_ray(load)
    ((_, found),) = engine(embedded, [list(PAIRS.values())])
    release(engine)
    assert not ray.is_initialized()
    assert ended(found["process"].values[0])
    release(engine)
