"""Activation patching between the two runs of a statement pair."""

from negprobe.patching.answers import Answerable, answerable, objective_values
from negprobe.patching.attribution import attribute
from negprobe.patching.attribution_agreement import Agreement, agreement
from negprobe.patching.circuits import Circuit, Component, find_circuit
from negprobe.patching.edges import attribute_edges
from negprobe.patching.effects import averages, effect, mean_effect, read_results, save_results
from negprobe.patching.interventions import Patch, patch
from negprobe.patching.objectives import (
    OBJECTIVES,
    Objective,
    class_logit_difference,
    cosine_to,
    default_objective,
    embedding_contrast,
    kl_divergence,
    logit_difference,
    objective_from,
    objective_named,
    score_margin,
    single_logit,
    target_probability,
)
from negprobe.patching.paths import path_patch
from negprobe.patching.ready import PatchablePairs, ReadablePairs, patchable_pairs, readable_pairs
from negprobe.patching.replacements import How
from negprobe.patching.runs import DIRECTIONS, Direction
from negprobe.patching.sites import SITES
from negprobe.patching.sweep import By, patch_sweep
from negprobe.patching.sweeps import PlannedSweep, estimate_agreement, planned_sweeps, run_sweeps, sweep_averages

__all__ = [
    "DIRECTIONS",
    "OBJECTIVES",
    "SITES",
    "Agreement",
    "Answerable",
    "By",
    "Circuit",
    "Component",
    "Direction",
    "How",
    "Objective",
    "Patch",
    "PatchablePairs",
    "PlannedSweep",
    "ReadablePairs",
    "agreement",
    "answerable",
    "attribute",
    "attribute_edges",
    "averages",
    "class_logit_difference",
    "cosine_to",
    "default_objective",
    "effect",
    "embedding_contrast",
    "estimate_agreement",
    "find_circuit",
    "kl_divergence",
    "logit_difference",
    "mean_effect",
    "objective_from",
    "objective_named",
    "objective_values",
    "patch",
    "patch_sweep",
    "patchable_pairs",
    "path_patch",
    "planned_sweeps",
    "read_results",
    "readable_pairs",
    "run_sweeps",
    "save_results",
    "score_margin",
    "single_logit",
    "sweep_averages",
    "target_probability",
]
