"""Execution backends: measure the shards of a study in this process, or on the workers of a Ray cluster."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import xarray as xr

from negprobe.base.errors import StudyError
from negprobe.base.texts import quoted
from negprobe.models import HookedEncoder
from negprobe.statements import Lexicon, lexicon_in_use, use_lexicon

Measure = Callable[[HookedEncoder, Sequence[Any]], xr.Dataset]
"""A function from a model and pairs to a dataset along `pair`; the result depends on nothing else."""

Engine = Callable[[Measure, Sequence[Sequence[Any]]], Iterator[tuple[int, xr.Dataset]]]
"""A function from a measure and the pairs of each shard to shard indices and datasets, in order of completion.

A study releases its engine after the last shard (see `release`).
"""

# Marks the connections that negprobe opens, so that it never closes a connection of the user.
_NAMESPACE = "negprobe"

# Every _POLL seconds the cluster's head node is checked, with a timeout of _CONNECT seconds. After _TRIES consecutive
# failures it counts as lost. Ray itself ends this process, without an error, a minute after it loses the head node.
_POLL, _CONNECT, _TRIES = 5.0, 5.0, 3


def release(engine: Engine) -> None:
    """End the workers of an engine that has a method `release`; the next call of the engine starts new ones."""
    getattr(engine, "release", lambda: None)()


@contextmanager
def released(engine: Engine) -> Iterator[None]:
    """Release an engine when the block ends, also after an error."""
    try:
        yield
    finally:
        release(engine)


def in_process(model: HookedEncoder) -> Engine:
    """An engine that measures the shards one by one in this process."""

    def run(measure: Measure, shards: Sequence[Sequence[Any]]) -> Iterator[tuple[int, xr.Dataset]]:
        for number, pairs in enumerate(shards):
            yield number, measure(model, pairs)

    return run


class _Worker:
    """A Ray actor: a model in its own process."""

    def __init__(self, load: Callable[[], HookedEncoder], threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load()

    def ready(self) -> None:
        """Returns once the model is loaded."""

    def measure(self, measure: Measure, lexicon: Lexicon, number: int, pairs: Sequence[Any]) -> tuple[int, xr.Dataset]:
        """The index of a shard, and the dataset measured on its pairs with the cues of a lexicon."""
        use_lexicon(lexicon)
        return number, measure(self.model, pairs)


def cluster_device(device: str | None) -> str:
    """The device for the workers of a Ray cluster: `device` if given; otherwise "cuda" if it has a GPU, else "cpu".

    The cluster is the one that this process is connected to, or the one that `RAY_ADDRESS` names ("auto" means the last
    one that `ray start` started on this machine), or a new one on this machine.

    Raises:
        StudyError: if Ray is not installed, no cluster is available, or the device is a numbered GPU.
    """
    if device is not None and ":" in device:
        raise StudyError(
            f"Ray assigns one GPU to each worker, so the device cannot be {quoted(device)}; use 'cuda' instead."
        )
    ray = _connected()
    return device or ("cuda" if ray.cluster_resources().get("GPU") else "cpu")


def on_ray(load: Callable[[], HookedEncoder], device: str = "cpu", *, patience: float = 600.0) -> Engine:
    """An engine that measures on the workers of the Ray cluster (see `cluster_device`); each loads the model once.

    On CPUs, each worker gets as many CPUs and threads as this process has threads, so that results equal those of this
    process. On GPUs, there is one worker per GPU. A worker that dies is restarted, and its shard is measured again, at
    most three times. `release` ends the workers; if negprobe opened the connection or started the cluster, it also
    closes or stops it.

    Args:
        load: Loads the model; called once in each worker's process.
        device: The device that `load` puts the model on.
        patience: Seconds to wait for the workers to load the model; workers that take longer are ended.

    Raises:
        StudyError: when the engine is called: if no worker can be started, a worker cannot load the model, a shard has
            ended every worker that measured it, or the head node of the cluster is lost.
    """
    return _OnRay(load, device, patience)


class _OnRay:
    """The engine that `on_ray` returns; its first call starts the workers."""

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
            pool.submit(lambda worker, job: worker.measure.remote(measure, lexicon_in_use(), *job), job)
        seen, unanswered = time.monotonic(), 0
        while pool.has_next():
            # Without the head node, workers continue for a while until Ray ends this process.
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
                    f"Every worker that measured a certain shard ended: {_last_line(error)} The usual cause is too "
                    "little memory. Finished shards are kept; run the same study again to resume."
                ) from error
            yield found

    def release(self) -> None:
        """End the workers; close the connection or stop the cluster, if negprobe opened or started it."""
        ray = _ray()
        if not ray.is_initialized():
            return
        context = ray.get_runtime_context()
        alive = _answers(context.gcs_address)
        for worker in self._workers if alive else ():
            ray.kill(worker)
        # Ray ends a process that keeps a connection to a lost head node.
        if context.namespace == _NAMESPACE or not alive:
            ray.shutdown()
        self._workers = ()


def _connected() -> Any:
    """The module `ray`, connected to a cluster.

    Raises:
        StudyError: if Ray is not installed, or no cluster is available.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    # Ray's own default is the last cluster on this machine, which may belong to another user or no longer exist.
    address = os.environ.get("RAY_ADDRESS") or "local"
    advice = (
        "Set RAY_ADDRESS to the address of a running cluster, or unset it to start a new one on this machine. The "
        "local engine needs no cluster."
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
        f"The head node of the Ray cluster, at {head}, no longer answers. Finished shards are kept: start a cluster, "
        "or use the local engine, and run the same study again to resume."
    )


def _started(load: Callable[[], HookedEncoder], device: str, patience: float) -> Sequence[Any]:
    """The started workers that have loaded the model."""
    ray = _ray()
    from ray import exceptions

    threads = torch.get_num_threads()
    gpu = device.startswith("cuda")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpu:
        n_workers, needed = sum(int(node.get("GPU", 0)) for node in nodes), {"num_gpus": 1, "num_cpus": 0}
    else:
        # A machine with fewer CPUs than threads still gets one worker.
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
            f"None of {n_workers} workers loaded the model within {patience:.0f} s: the Ray cluster is busy with other "
            "work. Wait until it is free, or use the local engine."
        )
    return [actors[ready] for ready in loaded]


def _last_line(error: Exception) -> str:
    """The last line of a Ray error, which names the cause; the lines above it are the worker's traceback."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]


def _ray() -> Any:
    # Without this, Ray retries for a quarter of an hour if a cluster does not answer.
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "3")
    try:
        import ray
    except ImportError as error:
        raise StudyError("The engine 'ray' needs Ray; install it with: pip install 'negprobe[ray]'.") from error
    return ray
