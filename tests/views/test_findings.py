"""Findings say only what the numbers allow: one pair, no swing, no control, a classifier's own labels."""

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from negprobe import HookedEncoder, StatementPair, builtin_pairs
from negprobe.study import run_study
from negprobe.views.findings import findings


@pytest.fixture(scope="module")
def model():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu")


def test_one_pair_is_not_tested_and_has_no_interval(model):
    sentences = " ".join(findings(run_study(model, builtin_pairs()[:1])))
    assert "With 1 pair no head can have a p below 1" in sentences
    assert "nan" not in sentences
    assert "in all" not in sentences


def test_a_pair_without_a_swing_is_said_and_not_averaged(model):
    pair = StatementPair("The door is open. So it is [MASK].", "The Door is open. So it is [MASK].", "open", "closed")
    sentences = " ".join(findings(run_study(model, [pair])))
    assert "No patched pair's two runs differ in the answer" in sentences
    assert "nan" not in sentences


def test_without_controls_swaps_are_between_original_and_counterfactual(model):
    pairs = [
        StatementPair(f"The {noun} is open. So it is [MASK].", "The gate is open. So it is [MASK].", "open", "closed")
        for noun in ("door", "house")
    ]
    sentences = " ".join(findings(run_study(model, pairs)))
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
    sentences = " ".join(findings(run_study(model, pairs)))
    assert f"different labels on {changed} of {len(pairs)} pairs" in sentences
    assert "right" not in sentences
