"""A study tests over clusters of pairs, names effects beyond the smallest one, and predicts new kinds of cue."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from negprobe import HookedEncoder, builtin_pairs, cli
from negprobe.attention import METRICS
from negprobe.base.errors import InputError
from negprobe.statistics import (
    SMALLEST_EFFECT,
    effect_tests,
    holds_for_new,
    intraclass_correlations,
    negation_effects,
    replication,
    responding,
)
from negprobe.study import run_study, summarize
from negprobe.study.effect_tests import study_tests
from negprobe.views import write_study
from negprobe.views.report.findings import answer, findings

WITHOUT_PATCHING = {"patch_pairs": 0, "circuit_pairs": 0, "contribution_pairs": 0}


@pytest.fixture(scope="module")
def results():
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    return run_study(model, builtin_pairs()[::4], seed=2, **WITHOUT_PATCHING)


@pytest.fixture(scope="module")
def clustered(results):
    """The metrics of the study with clusters of three consecutive pairs."""
    n = results.metrics.sizes["pair"]
    return results.metrics.assign_coords(cluster=("pair", [f"item {index // 3}" for index in range(n)]))


def controlled(metrics):
    effects = negation_effects(metrics[list(METRICS)])
    return effects.isel(pair=effects[METRICS[0]].notnull().any(("layer", "head")).values)


def test_the_clusters_of_the_pairs_are_the_units_of_all_tests(clustered):
    found, effects = study_tests(clustered, seed=2), controlled(clustered)
    xr.testing.assert_identical(found.tests, effect_tests(effects, clusters=effects["cluster"], seed=2))
    assert found.tests["n_clusters"].max() < found.tests["n"].max() / 2
    expected = replication(effects, effects["cue"], clusters=effects["cluster"], seed=2)
    xr.testing.assert_identical(found.replications["cue"], expected)
    for by in ("cluster", "cue"):
        xr.testing.assert_identical(found.correlations[by], intraclass_correlations(effects, effects[by]))


def test_effects_for_new_cues_are_those_of_the_kinds_of_cue(results):
    effects = controlled(results.metrics)
    xr.testing.assert_identical(results.new_cues, holds_for_new(effects, effects["cue"]))
    two = results.metrics.isel(pair=np.isin(results.metrics["cue"], np.unique(results.metrics["cue"])[:2]))
    assert study_tests(two, seed=2).new_cues is None


def test_the_summary_counts_and_names_heads_beyond_the_smallest_effect(results):
    for smallest in (0.0, SMALLEST_EFFECT, 1.5, 100.0):
        summary = summarize(replace(results, smallest_effect=smallest))
        beyond = responding(results.tests, smallest)
        heads = beyond[beyond["beyond"]].drop_duplicates(["layer", "head"])
        row = summary.row("beyond_heads")
        assert (row["hits"], row["n"]) == (len(heads), results.tests["layer"].size * results.tests["head"].size)
        named = summary.rows("beyond_effect")
        assert named["head"].tolist() == heads["head"].tolist()[:3]
        assert named["estimate"].tolist() == heads["effect_size"].tolist()[:3]
        assert ((named["low"] > smallest) | (named["high"] < -smallest)).all()
        assert summary.row("smallest_effect")["estimate"] == smallest
        holding = summary.row("holds_for_new_cues")
        cells = [
            results.new_cues["holds"].sel(metric=row.metric, layer=row.layer, head=row.head)
            for row in heads.itertuples()
        ]
        assert (holding["hits"], holding["n"]) == (sum(map(bool, cells)), len(heads))


def test_the_report_states_which_effects_are_large_and_for_what(results, clustered):
    text = " ".join(findings(results.summary))
    counted = results.summary.row("beyond_heads")
    assert counted["hits"]
    assert f"In {counted['hits']} of {counted['n']} heads the effect" in text
    assert "can be expected to respond in the same direction to a new kind of cue" in text
    alone = study_tests(results.metrics.drop_vars("cluster", errors="ignore"), seed=2)
    of_pairs = replace(results, tests=alone.tests, correlations=alone.correlations)
    assert "clusters" not in " ".join(findings(of_pairs.summary))
    found = study_tests(clustered, seed=2)
    in_clusters = replace(results, tests=found.tests, correlations=found.correlations)
    text = " ".join(findings(in_clusters.summary))
    n_clusters = int(found.tests["n_clusters"].max())
    assert f"pairs form {n_clusters} clusters that share material" in text
    assert "Effects within a cluster have an intraclass correlation of" in text
    none = replace(results, smallest_effect=100.0)
    assert "In none of" in " ".join(answer(none.summary))


def test_with_too_few_clusters_no_head_is_named(results, clustered):
    few = clustered.assign_coords(cluster=("pair", [f"item {index % 7}" for index in range(clustered.sizes["pair"])]))
    found = study_tests(few, seed=2)
    text = " ".join(findings(replace(results, tests=found.tests, correlations=found.correlations).summary))
    assert "With 7 clusters the mean is not tested; its test needs 8 clusters" in text


def test_the_smallest_effect_is_recorded_and_checked(results, tmp_path):
    write_study(replace(results, smallest_effect=0.8), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["smallest_effect"] == 0.8
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    with pytest.raises(InputError, match="smallest_effect must be a number of at least 0"):
        run_study(model, builtin_pairs()[:2], smallest_effect=-1.0)


def test_the_command_has_the_library_s_default():
    assert inspect.signature(cli.study).parameters["smallest_effect"].default == SMALLEST_EFFECT
