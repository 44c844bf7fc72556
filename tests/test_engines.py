"""A study measured by the workers of a cluster has the tables of one measured here, whatever happens to a worker."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from negprobe import HookedEncoder, builtin_pairs
from negprobe.engines import in_process, on_ray
from negprobe.shards import Sharding

PAIRS = dict(enumerate(builtin_pairs()[::25]))


def load() -> HookedEncoder:
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def embedded(model: HookedEncoder, pairs: list) -> xr.Dataset:
    """The sum of the first weights, and which process read them."""
    weights = np.full(len(pairs), float(model.embed.W_E[: len(pairs[0].original)].detach().sum()))
    return xr.Dataset({"weights": ("pair", weights), "process": ("pair", np.full(len(pairs), os.getpid()))})


def killing_once(flag: Path, model: HookedEncoder, pairs: list) -> xr.Dataset:
    """The same, in a worker that is killed the first time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return embedded(model, pairs)


def test_in_process_measures_every_shard_in_its_order() -> None:
    shards = [list(PAIRS.values())[:2], list(PAIRS.values())[2:]]
    found = list(in_process(load())(embedded, shards))
    assert [number for number, _ in found] == [0, 1]
    assert [dataset.sizes["pair"] for _, dataset in found] == [len(shard) for shard in shards]


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine."""
    ray = pytest.importorskip("ray", reason="needs: pip install 'negprobe[ray]'")
    here = str(Path(__file__).parent)
    python_path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": python_path}})
    yield on_ray(load, workers=2)
    ray.shutdown()


def test_workers_find_what_this_process_finds(cluster, tmp_path: Path) -> None:
    here = Sharding(in_process(load())).measured("m", embedded, PAIRS, 3)
    there = Sharding(cluster, tmp_path).measured("m", embedded, PAIRS, 3)
    xr.testing.assert_identical(here.drop_vars("process"), there.drop_vars("process").compute())
    assert set(here["process"].values) == {os.getpid()}
    assert os.getpid() not in there["process"].values


def test_a_worker_that_is_killed_costs_time_and_nothing_else(cluster, tmp_path: Path) -> None:
    measure = partial(killing_once, tmp_path / "killed")
    found = Sharding(cluster).measured("m", measure, PAIRS, 3)
    assert (tmp_path / "killed").exists()
    xr.testing.assert_identical(
        found.drop_vars("process"), Sharding(in_process(load())).measured("m", embedded, PAIRS, 3).drop_vars("process")
    )
