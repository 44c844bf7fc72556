"""Execution backends: the shards of a study are measured in this process, or by the workers of a Ray cluster."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import xarray as xr

from negprobe.base.errors import StudyError
from negprobe.models import HookedEncoder

Measure = Callable[[HookedEncoder, Sequence[Any]], xr.Dataset]
"""Takes a model and some pairs to numbers along `pair`, which depend on nothing else."""

Engine = Callable[[Measure, Sequence[Sequence[Any]]], Iterator[tuple[int, xr.Dataset]]]
"""Takes a measure and the pairs of each shard to the shards' numbers and datasets, in the order they are done.

A study releases its engine when its last shard is in (see `release`).
"""

# The namespace of the connections that negprobe opens, so that it never closes one that the user opened.
_NAMESPACE = "negprobe"

# Seconds between two checks that the cluster's head answers, and seconds that it has to answer; after _TRIES failed
# checks in a row it counts as lost. Ray itself ends this process, without an error, a minute after it loses the head.
_POLL, _CONNECT, _TRIES = 5.0, 5.0, 3


def release(engine: Engine) -> None:
    """End an engine's workers, if it has a method `release` for that; its next call starts new ones."""
    getattr(engine, "release", lambda: None)()


@contextmanager
def released(engine: Engine) -> Iterator[None]:
    """Release an engine at the end, also after an error."""
    try:
        yield
    finally:
        release(engine)


def in_process(model: HookedEncoder) -> Engine:
    """An engine that measures one shard after another in this process."""

    def run(measure: Measure, shards: Sequence[Sequence[Any]]) -> Iterator[tuple[int, xr.Dataset]]:
        for number, pairs in enumerate(shards):
            yield number, measure(model, pairs)

    return run


class _Worker:
    """A model in its own process."""

    def __init__(self, load: Callable[[], HookedEncoder], threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load()

    def ready(self) -> None:
        """Returns once the model is loaded."""

    def measure(self, measure: Measure, number: int, pairs: Sequence[Any]) -> tuple[int, xr.Dataset]:
        """The number of a shard, and the dataset measured on its pairs."""
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
    ray = _connected()
    return asked or ("cuda" if ray.cluster_resources().get("GPU") else "cpu")


def on_ray(load: Callable[[], HookedEncoder], device: str = "cpu", *, patience: float = 600.0) -> Engine:
    """Workers of the cluster that `cluster_device` has found, each with a model of its own, that it loads once.

    On CPUs there is one for as many CPUs as this process has threads, and each has as many threads, so that numbers are
    those of this process; on GPUs there is one a GPU. A worker that is killed is started again, and what it was
    measuring is measured again, three times at most. `release` ends the workers, and closes the connection, or shuts
    down the cluster, if negprobe opened it.

    Args:
        load: Loads the model; called by each worker, where it runs.
        device: Where it puts it.
        patience: Seconds to wait for workers to load it; those that are not there by then are not waited for.

    Raises:
        StudyError: by the engine: if no worker can be had, a worker cannot load the model, a shard has killed all
            workers that tried it, or the head of the cluster is lost.
    """
    return _OnRay(load, device, patience)


class _OnRay:
    """The engine that `on_ray` returns; it starts its workers when it is first called."""

    def __init__(self, load: Callable[[], HookedEncoder], device: str, patience: float) -> None:
        self._load, self._device, self._patience = load, device, patience
        self._workers: Sequence[Any] = ()

    def __call__(self, measure: Measure, shards: Sequence[Sequence[Any]]) -> Iterator[tuple[int, xr.Dataset]]:
        if not shards:
            return
        from ray import exceptions
        from ray.util import ActorPool

        if not _ray().is_initialized():
            self._workers = ()
        ray = _connected()
        head = ray.get_runtime_context().gcs_address
        self._workers = self._workers or _started(self._load, self._device, self._patience)
        pool = ActorPool(self._workers)
        for job in enumerate(shards):
            pool.submit(lambda worker, job: worker.measure.remote(measure, *job), job)
        seen, unanswered = time.monotonic(), 0
        while pool.has_next():
            # Without the head, workers continue for a while until Ray ends this process.
            if time.monotonic() - seen >= _POLL:
                seen, unanswered = time.monotonic(), 0 if _answers(head) else unanswered + 1
                if unanswered == _TRIES:
                    raise _lost(head)
            try:
                found = pool.get_next_unordered(timeout=_POLL)
            except TimeoutError:
                continue
            except exceptions.RayTaskError as error:
                raise error.cause from error
            except exceptions.RayError as error:
                if not _answers(head):
                    raise _lost(head) from error
                raise StudyError(
                    f"A shard ended each worker that measured it: {_last_line(error)} The usual cause is too little "
                    "memory. Finished shards are kept, and the same study resumes from there."
                ) from error
            yield found

    def release(self) -> None:
        """End the workers, and close the connection, or shut down the cluster, that negprobe opened."""
        ray = _ray()
        if not ray.is_initialized():
            return
        context = ray.get_runtime_context()
        alive = _answers(context.gcs_address)
        for worker in self._workers if alive else ():
            ray.kill(worker)
        # A connection without its head is useless, and Ray ends a process that keeps one.
        if context.namespace == _NAMESPACE or not alive:
            ray.shutdown()
        self._workers = ()


def _connected() -> Any:
    """Ray, connected to a cluster.

    Raises:
        StudyError: if Ray is not installed, or there is no cluster.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    # By default Ray connects to the last cluster on this machine, which may be another user's, or long gone.
    address = os.environ.get("RAY_ADDRESS") or "local"
    advice = (
        "Set RAY_ADDRESS to the cluster to use, or unset it to start a new one on this machine. The local engine "
        "needs no cluster."
    )
    # Ray itself would retry for minutes, and log each try.
    place = address.removeprefix("ray://")
    if ":" in place and not _answers(place):
        raise StudyError(f"No Ray cluster is available: nothing answers at {place}. {advice}")
    try:
        ray.init(address, log_to_driver=False, namespace=_NAMESPACE)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise StudyError(f"No Ray cluster is available: {error}. {advice}") from error
    return ray


def _answers(address: str) -> bool:
    """Whether something accepts a connection at "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _lost(head: str) -> StudyError:
    return StudyError(
        f"The head of the Ray cluster, at {head}, no longer answers. Finished shards are kept: start a cluster again, "
        "or use the local engine, and the same study resumes from there."
    )


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
        raise StudyError(f"The Ray cluster has no {'GPU' if gpu else 'CPU'} for a worker; choose another device.")
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
