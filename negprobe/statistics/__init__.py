"""Effects of negation over pairs: tests, corrections, intervals and replication."""

from negprobe.statistics.effects import (
    ALPHA,
    MIN_PAIRS,
    Agreement,
    agreement,
    effect_tests,
    effects_table,
    negation_effects,
    rank_correlation,
    replication,
    survivors,
)

__all__ = [
    "ALPHA",
    "MIN_PAIRS",
    "Agreement",
    "agreement",
    "effect_tests",
    "effects_table",
    "negation_effects",
    "rank_correlation",
    "replication",
    "survivors",
]
