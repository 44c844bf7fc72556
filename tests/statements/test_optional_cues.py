"""The accuracy of the optional classes of cues, on words and sentences that are labelled by hand."""

import json
from pathlib import Path

import pytest

from negprobe.statements import english_lexicon, find_cues

LABELS = json.loads(Path(__file__).with_name("labelled_cues.json").read_text(encoding="utf-8"))
"""Words and sentences labelled by hand.

The words are 300 different lower-case ones that begin with un-, in-, im-, il-, ir-, dis- or non-, or end in -less,
drawn at random from the words of CANNOT (Anschütz et al. 2023): those that the affix negates, and others. 300 other
words of it were read while the lexicon was written. The sentences were written for this test: those in which a content
word says that something is not so, and others with a similar word.
"""


def share_found(texts, name):
    lexicon = english_lexicon(classes=(name,))
    return sum(bool(set(find_cues(text, lexicon=lexicon)) - set(find_cues(text))) for text in texts) / len(texts)


def test_affixes_are_found_without_errors_in_most_of_the_words_that_they_negate():
    assert share_found(LABELS["other_words"], "affixal") == 0
    assert share_found(LABELS["negated_words"], "affixal") == pytest.approx(78 / 114)


def test_lexical_cues_are_found_in_most_of_the_sentences_that_they_negate():
    assert share_found(LABELS["other_sentences"], "lexical") == pytest.approx(1 / 14)
    assert share_found(LABELS["negating_sentences"], "lexical") == pytest.approx(21 / 28)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is unfair, Unfairly so", [("un-", "un"), ("un-", "Un")]),
        ("unhappily, unhappiness, unrealistically, unreliability", [("un-", "un")] * 4),
        ("It is useless and homelessness", [("-less", "less")] * 2),
        ("non-binding, nonlinear, Non-Linear", [("non-", "non"), ("non-", "non"), ("non-", "Non")]),
        ("un-American, under, unless, bless, unlessly, nonsuch", []),
        ("xunfair, unfairx, x_unfair, useless-ness2", []),
    ],
)
def test_an_affix_is_a_cue_within_its_word(text, expected):
    cues = find_cues(text, lexicon=english_lexicon(classes=("affixal",)))
    assert [(cue.kind, cue.text) for cue in cues] == expected
    assert all(text[slice(*cue.span)] == cue.text for cue in cues)
