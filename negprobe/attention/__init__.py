"""Attention before and after the values, and how two runs of a model compare."""

from negprobe.attention.metrics import METRICS
from negprobe.attention.probe import AttentionProbe, Comparison, StatementAttention

__all__ = ["METRICS", "AttentionProbe", "Comparison", "StatementAttention"]
