"""Timing two functions back to back, for the other benchmarks."""

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
    """Median seconds of each function, and the median over rounds of first / second.

    Args:
        first: The first function.
        second: The second function.
        budget: Seconds to keep timing.
        warm_up: Number of initial rounds that are discarded.
        least: Minimum number of rounds, even if they exceed the budget.
    """
    for _ in range(warm_up):
        first(), second()
    rounds: list[tuple[float, float]] = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(rounds) < least:
        # The second function finds warm caches, so the order alternates between rounds.
        if len(rounds) % 2:
            rounds.append((seconds(first), seconds(second)))
        else:
            rounds.append((seconds(second), seconds(first))[::-1])
    ones, others = zip(*rounds, strict=True)
    return statistics.median(ones), statistics.median(others), statistics.median(a / b for a, b in rounds)
