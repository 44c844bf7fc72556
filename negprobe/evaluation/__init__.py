"""Behaviour: a model's answers on public data sets of negation, with the scores that their authors define."""

from negprobe.evaluation.evaluate import SHARES, Evaluation, evaluate
from negprobe.evaluation.likelihood import pseudo_log_likelihoods
from negprobe.evaluation.masked import Gap, read_gaps
from negprobe.evaluation.predictions import read_predictions
from negprobe.evaluation.scores import Share, accuracy, preference, sensitivity, share, top_k_accuracy
from negprobe.evaluation.sets import ScoredSet, builtin_set, scored_sets

__all__ = [
    "SHARES",
    "Evaluation",
    "Gap",
    "ScoredSet",
    "Share",
    "accuracy",
    "builtin_set",
    "evaluate",
    "preference",
    "pseudo_log_likelihoods",
    "read_gaps",
    "read_predictions",
    "scored_sets",
    "sensitivity",
    "share",
    "top_k_accuracy",
]
