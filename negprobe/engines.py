"""Who measures the shards of a study: this process, or the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
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

    def measure(self, measure: Measure, number: int, pairs: Sequence[StatementPair]) -> tuple[int, xr.Dataset]:
        """The number of a shard, and what is measured on its pairs."""
        return number, measure(self.model, pairs)


def on_ray(load: Callable[[], HookedEncoder], *, workers: int | None = None) -> Engine:
    """Workers of a Ray cluster, each with a model of its own, that it loads once.

    The cluster is the one that `RAY_ADDRESS` names, or that this process is in, or else a new one on this machine. A
    worker that is killed is started again, and what it was measuring is measured again.

    Args:
        load: Loads the model; called by each worker, where it runs.
        workers: How many; by default one a GPU, or, where there is none, one for as many CPUs as this process has
            threads, so that numbers are those of this process.

    Raises:
        StudyError: if Ray is not installed.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise StudyError("The engine ray needs Ray: pip install 'negprobe[ray]'.") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    threads = torch.get_num_threads()
    resources = ray.cluster_resources()
    n_gpus = int(resources.get("GPU", 0))

    # Each call may be done anew, as a measure changes nothing.
    worker: Any = ray.remote(num_cpus=threads, num_gpus=int(n_gpus > 0), max_restarts=-1, max_task_retries=-1)(_Worker)
    n_workers = workers or n_gpus or max(1, int(resources["CPU"]) // threads)
    pool = ActorPool([worker.remote(load, threads) for _ in range(n_workers)])

    def run(measure: Measure, shards: Sequence[Sequence[StatementPair]]) -> Iterator[tuple[int, xr.Dataset]]:
        yield from pool.map_unordered(lambda worker, job: worker.measure.remote(measure, *job), list(enumerate(shards)))

    return run
