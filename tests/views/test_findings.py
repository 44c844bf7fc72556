"""Findings say only what the numbers allow: one pair, no swing, no control, a classifier's own labels."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from negprobe import HookedEncoder, StatementPair, builtin_pairs
from negprobe.statements import ROLES
from negprobe.study import run_study, summarize
from negprobe.study.comparison import compare_studies
from negprobe.study.saved import read_study
from negprobe.views import write_study
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.comparison_findings import answer as comparison_answer
from negprobe.views.report.findings import answer, findings, left_out
from negprobe.views.report.report import _answers_table


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def test_one_pair_is_not_tested_and_has_no_interval(model):
    sentences = " ".join(findings(summarize(run_study(model, builtin_pairs()[:1]))))
    assert "With 1 pair no head can have p < 1:" in sentences
    assert "nan" not in sentences
    assert "in all" not in sentences


def test_a_pair_without_a_swing_is_said_and_not_averaged(model):
    pair = StatementPair("The door is open. So it is [MASK].", "The gate is open. So it is [MASK].", "open", "closed")
    found = run_study(model, [pair])
    # Statements that are the same to the model are left out, so the two runs are made to agree afterwards.
    flat = {key: results.assign(source=results["base"]) for key, results in found.patching.items()}
    sentences = " ".join(findings(summarize(replace(found, patching=flat))))
    assert "No patched pair's two runs differ in the answer" in sentences
    assert "nan" not in sentences


def test_without_controls_swaps_are_between_original_and_counterfactual(model):
    pairs = [
        StatementPair(f"The {noun} is open. So it is [MASK].", "The gate is open. So it is [MASK].", "open", "closed")
        for noun in ("door", "house")
    ]
    sentences = " ".join(findings(summarize(run_study(model, pairs))))
    assert "swapped between original and counterfactual in all 2 pairs" in sentences
    assert "No pair has a control" in sentences


def test_a_classifiers_own_labels_are_never_called_right(minilm_path):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=1.0,
        num_labels=5,
    )
    model = HookedEncoder.from_pretrained(BertForSequenceClassification(config), tokenizer=tokenizer, device="cpu")
    states = ("open", "closed", "cold", "warm", "new", "old", "red", "green", "good", "bad")
    pairs = [StatementPair(f"The door is {state}.", f"The door is not {state}.") for state in states]
    labels = [model([pair.original, pair.counterfactual], return_type="predictions") for pair in pairs]
    changed = sum(original != counterfactual for original, counterfactual in labels)
    assert 0 < changed < len(pairs)
    sentences = " ".join(findings(summarize(run_study(model, pairs))))
    assert f"different labels on {changed} of {len(pairs)} pairs" in sentences
    assert "right" not in sentences


@pytest.fixture(scope="module")
def scored(minilm_path):
    """A study of a model with one logit, with targets and foils that are not its labels."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm_path)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        initializer_range=1.0, num_labels=1,
    )  # fmt: skip
    model = HookedEncoder.from_pretrained(BertForSequenceClassification(config), tokenizer=tokenizer, device="cpu")
    pairs = [
        StatementPair(f"The {noun} is open.", f"The {noun} is not open.", "yes", "no")
        for noun in ("door", "gate", "box")
    ]
    return model, pairs, run_study(model, pairs, circuit_pairs=0)


def test_one_logit_is_a_score_and_never_called_right(scored):
    model, pairs, results = scored
    with torch.no_grad():
        original, counterfactual = (
            model([getattr(pair, side) for pair in pairs])[:, 0] for side in ("original", "counterfactual")
        )
    sentences = " ".join([*answer(summarize(results)), *findings(summarize(results))])
    assert f"(its one logit) is {original.mean():.3f} on average" in sentences
    assert f"The negation alters the model's score by {(counterfactual - original).mean():+.3f} on average" in sentences
    assert "right" not in sentences and "label" not in sentences and "nan" not in sentences


@pytest.mark.usefixtures("without_figures")
def test_scores_of_one_logit_are_not_compared_as_right_and_wrong(scored, tmp_path):
    write_study(scored[2], tmp_path / "study")
    assert _answers_table(scored[2].summary) == ""
    study = read_study(tmp_path / "study")
    compared = compare_studies(study, study)
    assert compared.answers.empty and "gives a score" in compared.no_answers


def test_a_study_of_changed_words_does_not_speak_of_negation(model, tmp_path):
    frame = "The {} is {}. So the {} is [MASK]."
    pairs = [
        StatementPair(frame.format(noun, one, noun), frame.format(noun, other, noun), one, other)
        for noun, one, other in (("door", "open", "closed"), ("window", "clean", "dirty"), ("bath", "hot", "cold"))
    ]
    write_study(run_study(model, pairs, circuit_pairs=0), tmp_path / "a", "negprobe study")
    write_study(run_study(model, pairs, circuit_pairs=0, seed=1), tmp_path / "b", "negprobe study")
    study = run_study(model, pairs, circuit_pairs=0)
    compared = compare_studies(read_study(tmp_path / "a"), read_study(tmp_path / "b"))
    said = [*answer(study.summary), *findings(study.summary), *comparison_answer(compared.summary)]
    assert any("the changed words" in sentence for sentence in said)
    assert not [sentence for sentence in said if "negation" in sentence or "cue" in sentence or "affirm" in sentence]
    noted = left_out(study.summary)
    assert "No pair has a negation cue. The words that differ between its statements are the changed words." in noted


def test_every_role_has_a_name_in_sentences():
    assert set(ROLE_NAMES) == set(ROLES)
