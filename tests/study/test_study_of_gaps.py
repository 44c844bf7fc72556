"""A study of a sentence encoder or classifier fills each [MASK] with the target, and reports that it did."""

import functools

import pandas as pd
import pytest
import torch

from negprobe import AttentionProbe, StatementPair
from negprobe.base.errors import StatementError
from negprobe.patching import answerable
from negprobe.study import run_study, summarize
from negprobe.study.tables import pairs_table
from negprobe.views.report.findings import left_out
from tests.support import tiny_models

GAPS = [
    StatementPair("the door is [MASK]", "the door is not [MASK]", "open", "closed", extra=(("id", 1), ("note", "a"))),
    StatementPair("it is red", "it is not red", extra=(("note", 2),)),
    StatementPair("it is [MASK]", "it is not [MASK]"),
    StatementPair("it is xylophone", "it is zeppelin"),
]


@pytest.fixture(params=["none", "classification"])
def model(request):
    return tiny_models.pair("bert", request.param, torch.float32)[1]


def test_a_study_measures_complete_sentences_and_says_so(model, monkeypatch):
    seen = []
    forward = type(model).forward

    @functools.wraps(forward)
    def spied(self, tokens, *arguments, **options):
        seen.append(int((tokens == model.tokenizer.mask_token_id).sum()) if isinstance(tokens, torch.Tensor) else 1)
        return forward(self, tokens, *arguments, **options)

    monkeypatch.setattr(type(model), "forward", spied)
    results = run_study(model, GAPS, patch_pairs=0)
    assert seen and not any(seen)
    assert [pair.counterfactual for pair in results.pairs] == ["the door is not open", "it is not red"]
    assert "input pair 2: 'it is not [MASK]' has a [MASK], but the pair has no target" in results.dropped[0]
    assert results.dropped[1] == "input pair 3: to this model the two statements are the same"
    assert "the [MASK] of 1 of 4 pairs was filled with the target" in results.notes[1]
    assert results.notes[0] == "Extra columns, kept but not used: 'id, note'."
    assert set(results.notes) <= set(left_out(summarize(results)))


def test_a_probe_compares_complete_sentences_and_refuses_a_gap_without_a_word(model):
    probe = AttentionProbe(model)
    assert probe.compare(GAPS[0]).original.statement.text == "the door is open"
    for measure in (probe.compare, lambda pair: probe.metrics([pair]), lambda pair: probe.readings([pair])):
        with pytest.raises(StatementError, match="no target to fill it with"):
            measure(GAPS[2])
    asked = answerable(model, [GAPS[0], GAPS[2]])
    assert "no target to fill it with" in asked.unanswerable[1]
    assert 0 in asked.unanswerable or asked.pairs[0].original == "the door is open"


def test_a_masked_lm_keeps_its_gap():
    probe = AttentionProbe(tiny_models.pair("bert", "masked_lm", torch.float32)[1])
    assert probe.compare(GAPS[2]).original.statement.text == "it is [MASK]"


def test_the_table_of_pairs_has_what_they_carry_along(tmp_path):
    table = pairs_table(GAPS[:2])
    assert table.loc[0, ["pair", "extra.id", "extra.note"]].tolist() == [0, 1, "a"]
    assert pd.isna(table.loc[1, "extra.id"]) and "extra" not in table
