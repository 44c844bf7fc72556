"""Results say which statement each run is of, and figures, pages and captions name the runs by that."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from negprobe import AttentionProbe, HookedEncoder
from negprobe.patching import DIRECTIONS, Patch, attribute, attribute_edges, effect, mean_effect, patch, patch_sweep
from negprobe.patching.paths import path_patch
from negprobe.statements import complete, from_control
from negprobe.study.shards import open_shards, write_shard
from negprobe.views import comparison_page, patching_map
from negprobe.views.labels import run_name
from tests.support.sample_pairs import EQUAL, INSERTED


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def pairs(model):
    """One that is swapped with its control, and one with its original."""
    controlled = from_control(complete(EQUAL, model.tokenizer))
    assert controlled.original == controlled.control != EQUAL.original
    return [controlled, replace(EQUAL, control=None)]


RESULTS = {
    "patch_sweep": lambda model, pairs, way: patch_sweep(model, pairs, "z", by="head", direction=way),
    "patch": lambda model, pairs, way: patch(model, pairs, Patch("z", 1, 2), direction=way),
    "path_patch": lambda model, pairs, way: path_patch(model, pairs, direction=way),
    "attribute": lambda model, pairs, way: attribute(model, pairs, sites=["z"], by="head", direction=way)["z"],
    "attribute_edges": lambda model, pairs, way: attribute_edges(model, pairs, direction=way),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", RESULTS)
def test_every_result_says_which_statement_was_patched_and_which_the_activations_are_from(
    model, pairs, name, direction
):
    result = RESULTS[name](model, pairs, direction)
    affirmative, counterfactual = ["control", "original"], ["counterfactual"] * 2
    expected = (affirmative, counterfactual) if direction == "noising" else (counterfactual, affirmative)
    assert (result["base_run"].values.tolist(), result["source_run"].values.tolist()) == expected
    assert run_name(effect(result).isel(pair=0), "base_run") == expected[0][0]
    both = "control or original" if direction == "noising" else "counterfactual"
    assert run_name(mean_effect(result), "base_run") == both


def test_the_names_stand_beside_the_numbers_that_they_are_of_in_batches_of_other_orders(model, pairs, monkeypatch):
    monkeypatch.setattr("negprobe.patching.runs._PAIRS_AT_ONCE", 1)
    longer = replace(EQUAL, original="The door is open. So it is, and so the door is [MASK].")
    for shuffled in permutations([longer, *pairs]):
        result = patch_sweep(model, shuffled, "z", by="head")
        expected = ["control" if pair is pairs[0] else "original" for pair in shuffled]
        assert result["base_run"].values.tolist() == expected


def test_a_study_s_shards_keep_the_names(model, pairs, tmp_path):
    result = patch_sweep(model, pairs, "z", by="head")
    write_shard(result, tmp_path / "shard.parquet")
    assert open_shards([tmp_path / "shard.parquet"])["base_run"].values.tolist() == ["control", "original"]


def test_a_noising_map_and_page_of_a_pair_with_a_control_say_control_and_show_its_tokens(model, pairs):
    sweep = patch_sweep(model, pairs[0], "resid_pre", by="position", direction="noising")
    assert "really" in sweep["token"].values
    (axes, *_) = patching_map(effect(sweep).squeeze("pair")).axes
    title = " ".join(axes.get_title().split())
    assert title.endswith("from the counterfactual into the control (noising)")
    comparison = AttentionProbe(model).compare(pairs[0])
    page = comparison_page([comparison], title="t", sweeps=[sweep])
    assert "from the counterfactual into the control (noising): [CLS] the door is really open" in page
    assert "in the original (noising)" not in page


def test_without_a_control_they_say_original(model):
    sweep = patch_sweep(model, INSERTED, "resid_pre", by="position", direction="noising")
    (axes, *_) = patching_map(effect(sweep).squeeze("pair")).axes
    assert " ".join(axes.get_title().split()).endswith("from the counterfactual into the original (noising)")
    assert np.isfinite(effect(sweep)).any()
