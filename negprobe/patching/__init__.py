"""Activation patching between the two runs of a statement pair."""

from negprobe.patching.effects import effect, mean_effect
from negprobe.patching.engine import patch
from negprobe.patching.objectives import (
    class_logit_difference,
    default_objective,
    embedding_contrast,
    logit_difference,
)
from negprobe.patching.sites import SITES

__all__ = [
    "SITES",
    "class_logit_difference",
    "default_objective",
    "effect",
    "embedding_contrast",
    "logit_difference",
    "mean_effect",
    "patch",
]
