"""The tests of the effects of negation in a study, over clusters of pairs, kinds of cue and data sets."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import METRICS
from negprobe.statistics import (
    MIN_PAIRS,
    effect_tests,
    holds_for_new,
    intraclass_correlations,
    negation_effects,
    replication,
)
from negprobe.statistics.clusters import cluster_codes

# Effects up to this size in bytes are read from the shards once and kept in memory; larger ones are read for each test.
_IN_MEMORY = 2**28

# The number of kinds of cue from which the effect of a new one can be predicted.
_MIN_CUES = 3


# Compared by identity: arrays have no single truth value.
@dataclass(frozen=True, eq=False)
class StudyTests:
    """The tests of every metric and head over the pairs with a control, as in `StudyResults`.

    Attributes:
        tests: Over all pairs.
        replications: Within kinds of cue and within data sets.
        new_cues: Whether effects hold for new kinds of cue.
        correlations: How alike effects are within clusters and within kinds of cue.
    """

    tests: xr.Dataset | None = None
    replications: dict[str, xr.Dataset] = field(default_factory=dict)
    new_cues: xr.Dataset | None = None
    correlations: dict[str, xr.Dataset] = field(default_factory=dict)


def study_tests(metrics: xr.Dataset, seed: int) -> StudyTests:
    """The tests of all metrics; empty if no pair has a control.

    The units are the clusters of the pairs, and not also the kinds of cue: a study has few of these, and few heads are
    significant over a crossed factor with few levels. In simulated studies of 280 pairs in 10 clusters with an
    intraclass correlation of 0.1, max-T finds 94% of effects of one standard deviation, and 38% if the clusters are
    crossed with 8 cues (`benchmarks/false_discoveries.py`). Instead, the results have the intraclass correlation of
    the effects of one cue, and their interval for a new one.
    """
    effects = negation_effects(metrics[list(METRICS)])
    if effects.nbytes <= _IN_MEMORY:
        # Otherwise each test would read the shards again.
        effects = effects.load()
    tests = clustered_tests(effects, seed)
    if tests is None:
        return StudyTests()
    controlled = effects.isel(pair=effects[METRICS[0]].notnull().any(("layer", "head")).values)
    clusters = clusters_of(controlled)
    units = pd.Series(cluster_codes(clusters, controlled.sizes["pair"])[0])
    replications = {
        by: replication(controlled, controlled[by], clusters=clusters, seed=seed)
        for by in ("cue", "source")
        if (units.groupby(controlled[by].values).nunique() >= MIN_PAIRS).sum() > 1
    }
    correlations = {"cue": intraclass_correlations(controlled, controlled["cue"])}
    if clusters is not None:
        correlations["cluster"] = intraclass_correlations(controlled, clusters)
    of_cues = controlled.isel(pair=controlled["cue"].values != "")
    several = len(np.unique(of_cues["cue"])) >= _MIN_CUES
    new_cues = holds_for_new(of_cues, of_cues["cue"]) if several else None
    return StudyTests(tests, replications, new_cues, correlations)


def clustered_tests(effects: xr.Dataset, seed: int) -> xr.Dataset | None:
    """`statistics.effect_tests` over the clusters of the pairs; None if no pair has an effect.

    A study names heads by the mean of their effects, so the attribute `untestable` is also present if there are too few
    clusters for the test of the mean.
    """
    if not bool(effects.to_array().notnull().any()):
        return None
    tests = effect_tests(effects, clusters=clusters_of(effects), seed=seed)
    too_few = tests.attrs.get("untestable_mean", "")
    if too_few and "untestable" not in tests.attrs:
        tests = tests.assign_attrs(untestable=f"There are too few units to test. {too_few}")
    return tests


def clusters_of(effects: xr.Dataset) -> xr.DataArray | None:
    """The clusters of the pairs; None if each pair is its own, because the effects have no coordinate `cluster`."""
    return effects["cluster"] if "cluster" in effects.coords else None
