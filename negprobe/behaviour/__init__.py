"""Behaviour: a model's answers on public negation data sets, with the scores that their authors define."""

from negprobe.behaviour.evaluation import SHARES, Evaluation, evaluate
from negprobe.behaviour.likelihood import pseudo_log_likelihoods
from negprobe.behaviour.masked import Gap, read_gaps
from negprobe.behaviour.predictions import read_predictions
from negprobe.behaviour.scores import Share, accuracy, preference, sensitivity, share, top_k_accuracy
from negprobe.behaviour.sets import ScoredSet, builtin_set, scored_sets

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
