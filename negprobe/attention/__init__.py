"""Attention before and after the values, and how two runs of a model compare."""

from negprobe.attention.contribution_maps import CONTRIBUTIONS, contributions
from negprobe.attention.metrics import MAP_METRICS, METRICS
from negprobe.attention.pair_metrics import BY_ROLE, COMPARED, DISTANCES
from negprobe.attention.probe import AttentionProbe, Comparison, StatementAttention
from negprobe.attention.readings import HeadReading, Reading, ReadingChange, head_story

__all__ = [
    "BY_ROLE",
    "COMPARED",
    "CONTRIBUTIONS",
    "DISTANCES",
    "MAP_METRICS",
    "METRICS",
    "AttentionProbe",
    "Comparison",
    "HeadReading",
    "Reading",
    "ReadingChange",
    "StatementAttention",
    "contributions",
    "head_story",
]
