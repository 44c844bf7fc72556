"""Who measures the shards of a study: this process, or the workers of a Ray cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import xarray as xr

from negprobe.errors import StudyError
from negprobe.models import HookedEncoder
from negprobe.statements import StatementPair

Measure = Callable[[HookedEncoder, Sequence[StatementPair]], xr.Dataset]
"""Takes a model and some pairs to numbers along `pair`, which depend on nothing else."""

Engine = Callable[[Measure, Sequence[Sequence[StatementPair]]], Iterator[tuple[int, xr.Dataset]]]
"""Takes a measure and the pairs of each shard to the shards' numbers and datasets, in the order they are done."""


def in_process(model: HookedEncoder) -> Engine:
    """One shard after another, here."""

    def run(measure: Measure, shards: Sequence[Sequence[StatementPair]]) -> Iterator[tuple[int, xr.Dataset]]:
        for number, pairs in enumerate(shards):
            yield number, measure(model, pairs)

    return run


class _Worker:
    """A model in a process of its own."""

    def __init__(self, load: Callable[[], HookedEncoder], threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load()

    def ready(self) -> None:
        """Answers once the model is loaded."""

    def measure(self, measure: Measure, number: int, pairs: Sequence[StatementPair]) -> tuple[int, xr.Dataset]:
        """The number of a shard, and what is measured on its pairs."""
        return number, measure(self.model, pairs)


def cluster_device(asked: str | None) -> str:
    """The device of a Ray cluster's workers: the one asked for, or else a GPU if the cluster has any.

    The cluster is the one that this process is in, or that `RAY_ADDRESS` names ("auto" for the last that `ray start`
    began on this machine), or else a new one on this machine.

    Raises:
        StudyError: if Ray is not installed, no cluster is found, or one GPU of several is asked for.
    """
    if asked is not None and ":" in asked:
        raise StudyError(f"Each worker sees one GPU alone, so none can be asked for {asked}; write 'cuda'.")
    ray = _ray()
    if not ray.is_initialized():
        # By itself Ray would take the machine's last cluster, which may be another user's, or long gone.
        address = os.environ.get("RAY_ADDRESS") or "local"
        try:
            ray.init(address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise StudyError(
                f"There is no Ray cluster to be had: {error}. RAY_ADDRESS names the one to use; without it there is a "
                "new one on this machine."
            ) from error
    return asked or ("cuda" if ray.cluster_resources().get("GPU") else "cpu")


def on_ray(load: Callable[[], HookedEncoder], device: str = "cpu", *, patience: float = 600.0) -> Engine:
    """Workers of the cluster that `cluster_device` has found, each with a model of its own, that it loads once.

    On CPUs there is one for as many CPUs as this process has threads, and each has as many threads, so that numbers are
    those of this process; on GPUs there is one a GPU. A worker that is killed is started again, and what it was
    measuring is measured again, three times at most.

    Args:
        load: Loads the model; called by each worker, where it runs.
        device: Where it puts it.
        patience: Seconds to wait for workers to load it; those that are not there by then are not waited for.

    Raises:
        StudyError: by the engine: if no worker can be had, a worker cannot load the model, or a shard has killed all
            workers that tried it.
    """

    @cache
    def workers() -> Sequence[Any]:
        return _started(load, device, patience)

    def run(measure: Measure, shards: Sequence[Sequence[StatementPair]]) -> Iterator[tuple[int, xr.Dataset]]:
        if not shards:
            return
        from ray import exceptions
        from ray.util import ActorPool

        measured = ActorPool(workers()).map_unordered(
            lambda worker, job: worker.measure.remote(measure, *job), list(enumerate(shards))
        )
        try:
            yield from measured
        except exceptions.RayTaskError as error:
            raise error.cause from error
        except exceptions.RayError as error:
            raise StudyError(
                f"A shard ended each worker that measured it: {_last_line(error)} Often memory is short; what was "
                "measured before is kept, and the same command goes on from there."
            ) from error

    return run


def _started(load: Callable[[], HookedEncoder], device: str, patience: float) -> Sequence[Any]:
    """The workers that have loaded the model."""
    ray = _ray()
    from ray import exceptions

    threads = torch.get_num_threads()
    gpu = device.startswith("cuda")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpu:
        n_workers, needed = sum(int(node.get("GPU", 0)) for node in nodes), {"num_gpus": 1, "num_cpus": 0}
    else:
        # A machine of fewer CPUs than threads has one worker still, whose threads take turns.
        n_cpus = min(threads, max((int(node.get("CPU", 0)) for node in nodes), default=0))
        n_workers = sum(int(node.get("CPU", 0)) // n_cpus for node in nodes) if n_cpus else 0
        needed = {"num_cpus": n_cpus}
    if not n_workers:
        raise StudyError(f"The Ray cluster has no {'GPU' if gpu else 'CPU'} for a worker; choose another --device.")
    worker: Any = ray.remote(max_restarts=-1, max_task_retries=3, **needed)(_Worker)
    actors = {actor.ready.remote(): actor for actor in (worker.remote(load, threads) for _ in range(n_workers))}
    loaded, waiting = ray.wait(list(actors), num_returns=len(actors), timeout=patience)
    try:
        ray.get(loaded)
    except exceptions.RayError as error:
        raise StudyError(f"A worker of the Ray cluster could not load the model: {_last_line(error)}") from error
    for late in waiting:
        ray.kill(actors[late])
    if not loaded:
        raise StudyError(
            f"None of {n_workers} workers was ready after {patience:.0f} s: the Ray cluster is busy with other work."
        )
    return [actors[ready] for ready in loaded]


def _last_line(error: Exception) -> str:
    """What an error of Ray's ends with, below the traceback of the worker."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]


def _ray() -> Any:
    # Ray would otherwise try for a quarter of an hour to reach a cluster that does not answer.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
    try:
        import ray
    except ImportError as error:
        raise StudyError("The engine ray needs Ray: pip install 'negprobe[ray]'.") from error
    return ray
