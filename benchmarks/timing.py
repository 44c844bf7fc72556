"""Two ways to the same thing, timed back to back; for the benchmarks beside it."""

import statistics
import time
from collections.abc import Callable


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def paired(
    first: Callable[[], object], second: Callable[[], object], budget: float, warm_up: int = 3, least: int = 7
) -> tuple[float, float, float]:
    """Median seconds of the one and of the other, and the median over rounds of first / second.

    Args:
        first: The one.
        second: The other.
        budget: Seconds to go on for.
        warm_up: Rounds that are not counted.
        least: Rounds at least.
    """
    for _ in range(warm_up):
        first(), second()
    rounds: list[tuple[float, float]] = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(rounds) < least:
        # Whoever goes second finds warm caches, so the order changes from round to round.
        if len(rounds) % 2:
            rounds.append((seconds(first), seconds(second)))
        else:
            rounds.append((seconds(second), seconds(first))[::-1])
    ones, others = zip(*rounds, strict=True)
    return statistics.median(ones), statistics.median(others), statistics.median(a / b for a, b in rounds)
