"""The labels of benchmarks/gold_pairs.jsonl are consistent, and the script that uses them judges known answers."""

import importlib.util
import sys
from collections import Counter
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from negprobe import HookedEncoder
from tests.support import ROOT

SCRIPT = ROOT / "benchmarks" / "gold_pairs.py"
spec = importlib.util.spec_from_file_location("gold_pairs", SCRIPT)
assert spec is not None and spec.loader is not None
gold = importlib.util.module_from_spec(spec)
# A dataclass looks up its module by name.
sys.modules["gold_pairs"] = gold
spec.loader.exec_module(gold)
PAIRS = gold.gold_pairs()


@pytest.fixture(scope="module")
def tokenizer():
    return HookedEncoder.from_pretrained("tiny-negation", device="cpu").tokenizer


def texts(pair, side):
    text = getattr(pair, side)
    return [text[slice(*span)] for span in gold.words(text)]


def by_id(id_):
    return next(pair for pair in PAIRS if pair.id == id_)


def test_the_set_is_large_and_both_splits_have_every_kind():
    sizes = Counter(pair.split for pair in PAIRS)
    assert sizes["dev"] >= 110 and sizes["held_out"] >= 80
    kinds = [{pair.kind for pair in PAIRS if pair.split == split} for split in ("dev", "held_out")]
    assert kinds[0] == kinds[1]
    assert sum(not pair.cues for pair in PAIRS) >= 15
    assert max(Counter(pair.id for pair in PAIRS).values()) == 1


def test_splits_share_no_sentence_and_no_pair_occurs_twice():
    sentences = [
        {text.lower() for pair in PAIRS if pair.split == split for text in (pair.original, pair.counterfactual)}
        for split in ("dev", "held_out")
    ]
    assert not sentences[0] & sentences[1]
    assert max(Counter((pair.original, pair.counterfactual) for pair in PAIRS).values()) == 1


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_labels_fit_the_sentences(pair):
    text, spans = pair.counterfactual, gold.words(pair.counterfactual)
    starts, ends = {start for start, _ in spans}, {end for _, end in spans}
    assert pair.original != text
    for start, end in pair.cues:
        # "n't" and "nt" begin within a word, and the "no" of "noone" ends within one.
        within = text[start:end].lower().startswith("n") and text[start:end].lower().endswith("t")
        assert start in starts or (within and len(text[start:end]) < 4)
        assert end in ends or text[start : start + 5].lower() == "noone"
    assert set(pair.affected or ()) <= set(spans)
    assert len(pair.affected or ()) <= len(pair.cues)
    assert not any(gold.has_cue(pair, span) for span in pair.affected or ())
    originals, counterfactuals = texts(pair, "original"), texts(pair, "counterfactual")
    for original, counterfactual, kind in pair.links:
        assert kind == ("case" if original.lower() == counterfactual.lower() else "inflected")
        assert original in originals and counterfactual in counterfactuals and original != counterfactual
    assert set(pair.unmatched_original) <= set(originals)
    assert set(pair.unmatched_counterfactual) <= set(counterfactuals)
    assert set(pair.either) <= {*originals, *counterfactuals}
    assert pair.cues or not pair.control
    assert not {pair.original, text} & set(pair.bad_controls)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.id)
def test_labels_leave_one_partner_for_each_word(pair):
    partners, unmatched = gold.expected_partners(pair)
    assert (partners, unmatched) == gold.expected_partners(pair, latest=True)
    matched = {(partner, word) for word, partner in partners.items() if partner}
    linked = {(pair.original[slice(*w)], pair.counterfactual[slice(*p)]) for p, w in matched}
    assert {(original, counterfactual) for original, counterfactual, _ in pair.links} <= linked
    # An original word without a label was replaced by a cue: one lies between the same two matches.
    ends = (len(pair.original), len(pair.counterfactual))
    for word in gold.words(pair.original):
        if word in partners or pair.original[slice(*word)] in pair.either:
            continue
        before = max((p for p, w in matched if w < word), default=(0, 0))
        after = min((p for p, w in matched if w > word), default=(ends[1], ends[1]))
        assert any(before[1] <= start and end <= after[0] for start, end in pair.cues) or any(
            gold.has_cue(pair, between) for between in gold.words(pair.counterfactual) if before < between < after
        ), pair.original[slice(*word)]


def test_a_labelled_word_without_a_partner_is_refused():
    pair = by_id("dev-do_support_present-1")
    with pytest.raises(ValueError, match="'does' of the counterfactual has no partner"):
        gold.expected_partners(replace(pair, unmatched_counterfactual=()))


def test_each_respect_is_judged(tokenizer):
    pair = by_id("dev-plain_not-1")
    right = gold.answer(pair, tokenizer)
    assert right.all_right and right.has_control and not right.wrong
    no_cue = gold.answer(replace(pair, cues=(), affected=(), unmatched_counterfactual=("not",)), tokenizer)
    assert not no_cue.cues and not no_cue.affected and no_cue.control
    assert no_cue.wrong[0] == "cue: found 'not', expected none"
    assert not gold.answer(replace(pair, control=False), tokenizer).control
    assert not gold.answer(replace(pair, bad_controls=("The soup is now hot.",)), tokenizer).control
    assert gold.answer(replace(pair, affected=None), tokenizer).affected
    unmatched = replace(pair, unmatched_original=("soup",), unmatched_counterfactual=("soup",))
    assert gold.answer(unmatched, tokenizer).wrong == ("alignment: soup - soup is not expected",)
    assert gold.answer(
        replace(unmatched, unmatched_original=(), unmatched_counterfactual=(), either=("soup",)), tokenizer
    ).alignment


def test_the_script_lists_wrong_pairs_of_one_split():
    app = typer.Typer()
    app.command()(gold.main)
    result = CliRunner().invoke(app, ["--split", "dev", "--wrong"])
    assert result.exit_code == 0, result.output
    assert "all pairs" in result.output and "held_out" not in result.output
