"""The mechanism stage of a study: its knock-outs and its circuit equal what `negprobe.patching` computes directly."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from negprobe import HookedEncoder
from negprobe.base.errors import PatchingError
from negprobe.patching import Circuit, Patch, effect, mean_effect, patch, patch_sweep
from negprobe.statements import StatementPair, builtin_pairs, complete, control_swap
from negprobe.study import mechanism as mechanism_of_a_study
from negprobe.study import run_study, summarize
from negprobe.study.engines import in_process
from negprobe.study.mechanism import MIN_CIRCUIT_PAIRS, affordable_search, find_mechanism
from negprobe.study.stages import KNOCK_OUT, KNOCK_OUT_SETS
from negprobe.views import write_study
from negprobe.views.report.findings import findings
from negprobe.views.report.mechanism_findings import circuit_story, knock_out_table, mechanism


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


@pytest.fixture(scope="module")
def results(study_with_circuit):
    return study_with_circuit


@pytest.fixture(scope="module")
def found(results):
    return results.mechanism


@pytest.fixture(scope="module")
def controlled(model):
    return [control_swap(complete(pair, model.tokenizer), model.tokenizer) for pair in builtin_pairs()[:60]]


def test_the_cue_is_knocked_out_of_the_counterfactuals_of_the_patched_pairs(model, results, found, controlled):
    pairs = [controlled[index] for index in results.patched]
    by_head = patch_sweep(model, pairs, "attn_scores", by="head", direction="denoising", how="knock_out", keys="cue")
    np.testing.assert_allclose(found.knock_out["patched"], by_head["patched"], atol=3e-5)
    assert tuple(found.knock_out["pair"].values) == results.patched
    assert tuple(found.knock_out_sets["pair"].values) == results.patched
    alone = patch(model, pairs, [Patch("attn_scores", 1, key_role="cue", how="knock_out")], direction="denoising")
    np.testing.assert_allclose(
        found.knock_out_sets["patched"].sel(patch="layer 1"), alone["patched"].isel(patch=0), atol=3e-5
    )


def test_knocking_the_cue_out_everywhere_is_said_with_its_effect(results, found):
    effect = float(mean_effect(found.knock_out_sets).sel(patch="everywhere"))
    table = knock_out_table(summarize(results)).set_index("attention to the cue cut")
    assert table.loc["everywhere", "effect"] == pytest.approx(effect)
    assert table.loc["everywhere", "95 % from"] <= effect <= table.loc["everywhere", "95 % to"]


def test_sentences_name_the_strongest_head_and_the_circuit(results, found):
    story = " ".join(mechanism(summarize(results)))
    by_head = mean_effect(found.knock_out)
    layer, head = np.unravel_index(int(np.nanargmax(by_head.values)), by_head.shape)
    assert f"The strongest single heads: {layer}.{head} ({by_head.values[layer, head]:.0%})" in story
    assert f"{len(found.circuit)} of {len(found.circuit.scores)} components" in story
    assert f"on {found.circuit.n_held_out} pairs held out" in story
    assert set(mechanism(summarize(results))) <= set(findings(summarize(results)))


def test_every_head_of_the_circuit_has_its_story(results, found):
    heads = [str(component) for component in sorted(found.circuit.components) if component.head is not None]
    assert [re.match(r"\d+\.\d+", sentence)[0] for sentence in circuit_story(found, results.summary)] == heads


@pytest.mark.slow
def test_circuit_and_knock_outs_are_kept(results, found, model, tmp_path):
    write_study(results, tmp_path, command="negprobe study")
    saved = Circuit.load(tmp_path / "circuit.json", model)
    assert saved.components == found.circuit.components
    assert saved.faithfulness == found.circuit.faithfulness
    rows = pd.read_parquet(tmp_path / "knock_out_sets.parquet").set_index(["pair", "patch"])["patched"]
    everywhere = found.knock_out_sets["patched"].sel(patch="everywhere").to_series()
    np.testing.assert_array_equal(rows.xs("everywhere", level="patch"), everywhere)
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "How the negation reaches the answer" in report
    beside = {path.name for path in tmp_path.iterdir()} - {"report.html"}
    assert "circuit.json" in beside
    assert all(f'<th scope="row">{name}</th>' in report for name in beside)
    assert json.loads((tmp_path / "manifest.json").read_text())["data"]["searched"] == len(found.searched)


def test_too_few_pairs_give_a_reason_and_no_circuit(model, controlled):
    few = dict(enumerate(controlled[: MIN_CIRCUIT_PAIRS - 1]))
    measured = {stage.id: stage.measure(model, list(few.values())) for stage in (KNOCK_OUT, KNOCK_OUT_SETS)}
    found = find_mechanism(model, measured, few, few, "there were few", seed=0, effort="fast")
    assert found.circuit is None and found.searched == ()
    assert f"at least {MIN_CIRCUIT_PAIRS} pairs" in found.no_circuit
    assert "there were few" in found.no_circuit
    assert found.stories == ()


def search(model, pairs):
    numbered = dict(enumerate(pairs))
    measured = {stage.id: stage.measure(model, pairs[:2]) for stage in (KNOCK_OUT, KNOCK_OUT_SETS)}
    return find_mechanism(model, measured, numbered, numbered, "", seed=0, effort="fast")


def test_pairs_that_the_model_does_not_tell_apart_are_a_reason_for_no_circuit(model, controlled):
    found = search(model, [controlled[0]] * MIN_CIRCUIT_PAIRS)
    assert found.circuit is None and "are too few" in found.no_circuit


def test_another_error_of_the_search_is_not_a_reason(model, controlled, monkeypatch):
    def fail(*args, **options):
        raise PatchingError("a hook returned NaN")

    monkeypatch.setattr(mechanism_of_a_study, "find_circuit", fail)
    with pytest.raises(PatchingError, match="a hook returned NaN"):
        search(model, controlled[:MIN_CIRCUIT_PAIRS])


def test_pairs_without_a_cue_are_told_so(model):
    strange = StatementPair(
        "The door is open. So it is [MASK].", "The door is shut. So it is [MASK].", "open", "closed"
    )
    of_cue = StatementPair("The door is open.", "The door is not open.")
    results = run_study(model, [strange, of_cue])
    assert len(results.patched) == 1
    assert "attention to it could not be knocked out" in " ".join(mechanism(summarize(results)))


def test_changed_words_of_pairs_without_a_cue_are_knocked_out(model):
    frame = "The door is {}. So it is [MASK]."
    pair = StatementPair(frame.format("open"), frame.format("shut"), "open", "closed")
    results = run_study(model, [pair])
    assert results.mechanism.knock_out.attrs["key_role"] == "changed"
    cut = Patch("attn_scores", key_role="changed", how="knock_out")
    expected = effect(patch(model, pair, cut, direction="denoising"))
    everywhere = summarize(results).row("knock_out_set", part="everywhere")
    assert everywhere["estimate"] == pytest.approx(expected.item(), abs=1e-5)
    said = " ".join(mechanism(summarize(results)))
    assert "If no other token can attend to the changed words" in said and "cue" not in said and "negation" not in said


def test_what_can_be_searched_in_minutes_shrinks_with_the_model(model):
    assert affordable_search(model.cfg, 16) == 400
    large = replace(model.cfg, n_layers=12, n_heads=12, d_model=768)
    assert affordable_search(large, 16) == MIN_CIRCUIT_PAIRS
    assert affordable_search(model.cfg, 10**6) == 0


def test_a_circuit_without_pairs_to_patch_is_refused(model):
    with pytest.raises(PatchingError, match="circuit search needs patched pairs"):
        run_study(model, builtin_pairs()[:60], patch_pairs=0, circuit_pairs=MIN_CIRCUIT_PAIRS)


class Counted:
    """An engine that notes when it is called and released."""

    def __init__(self, model, steps):
        self.run, self.steps = in_process(model), steps

    def __call__(self, measure, shards):
        self.steps.append("shards")
        return self.run(measure, shards)

    def release(self):
        self.steps.append("released")


@pytest.mark.slow
def test_workers_are_released_after_the_last_shard_and_before_the_circuit_is_searched(model):
    steps = []
    engine = Counted(model, steps)
    run_study(
        model,
        builtin_pairs()[:60],
        patch_pairs=2,
        circuit_pairs=MIN_CIRCUIT_PAIRS,
        engine=engine,
        progress=lambda step, done, total: steps.append("search") if "circuit" in step else None,
    )
    order = [step for step, before in zip(steps, [None, *steps], strict=False) if step != before]
    assert order == ["shards", "released", "search"]


def test_workers_are_released_when_a_study_ends_in_an_error(model):
    steps = []

    def stop(step, done, total):
        raise PatchingError("enough")

    with pytest.raises(PatchingError, match="enough"):
        run_study(model, builtin_pairs()[:2], engine=Counted(model, steps), progress=stop)
    assert steps[-1] == "released"
