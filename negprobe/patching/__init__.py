"""Activation patching between the two runs of a statement pair."""

from negprobe.patching.answers import Answerable, answerable
from negprobe.patching.effects import effect, mean_effect
from negprobe.patching.engine import objective_values, patch
from negprobe.patching.objectives import (
    class_logit_difference,
    default_objective,
    embedding_contrast,
    logit_difference,
)
from negprobe.patching.runs import DIRECTIONS, Direction
from negprobe.patching.sites import SITES, By

__all__ = [
    "DIRECTIONS",
    "SITES",
    "Answerable",
    "By",
    "Direction",
    "answerable",
    "class_logit_difference",
    "default_objective",
    "effect",
    "embedding_contrast",
    "logit_difference",
    "mean_effect",
    "objective_values",
    "patch",
]
