"""Effects of negation over pairs or clusters of pairs: tests, corrections, intervals and replication."""

from negprobe.statistics.cluster_tests import MIN_CLUSTERS
from negprobe.statistics.effects import (
    ALPHA,
    MIN_PAIRS,
    SMALLEST_EFFECT,
    Agreement,
    agreement,
    effect_tests,
    effects_table,
    intraclass_correlations,
    negation_effects,
    rank_correlation,
    responding,
    survivors,
)
from negprobe.statistics.groups import holds_for_new, replication

__all__ = [
    "ALPHA",
    "MIN_CLUSTERS",
    "MIN_PAIRS",
    "SMALLEST_EFFECT",
    "Agreement",
    "agreement",
    "effect_tests",
    "effects_table",
    "holds_for_new",
    "intraclass_correlations",
    "negation_effects",
    "rank_correlation",
    "replication",
    "responding",
    "survivors",
]
