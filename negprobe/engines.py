"""Who measures the shards of a study: this process, or the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence

import xarray as xr

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
