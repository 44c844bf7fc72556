"""A gap is filled with the target, and everything else stays what and where it was.

Bad input: no target, several gaps in one statement, and a classifier's label as the word.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.base.errors import StatementError
from negprobe.statements import StatementPair, builtin_pairs, filled, load_pairs, readable_by

PAIR = StatementPair(
    "A [MASK] is a trout.",
    "A [MASK] is not a trout.",
    "animal",
    "tool",
    control="A [MASK] is now a trout.",
    cue_spans=((12, 15),),
    affected_spans=((0, 8), (18, 23)),
)


def test_the_target_takes_the_gaps_place_in_every_statement_with_its_article():
    whole = filled(PAIR)
    assert (whole.original, whole.counterfactual, whole.control) == (
        "An animal is a trout.",
        "An animal is not a trout.",
        "An animal is now a trout.",
    )
    assert [whole.counterfactual[slice(*span)] for span in whole.cue_spans] == ["not"]
    assert [whole.counterfactual[slice(*span)] for span in whole.affected_spans] == ["An animal", "trout"]
    assert filled(whole) == whole


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("It is an [MASK].", "fish", "It is a fish."),
        ("It is a [MASK].", "hour", "It is an hour."),
        ("It is a [MASK].", "uniform", "It is a uniform."),
        ("It is a [MASK].", "unicorn", "It is a unicorn."),
        ("It is a [MASK].", "uninvited guest", "It is an uninvited guest."),
        ("It is a [MASK].", "one-way street", "It is a one-way street."),
        ("Bananas are [MASK].", "edible", "Bananas are edible."),
        ("Banana [MASK].", "edible", "Banana edible."),
    ],
)
def test_an_article_stands_as_the_word_wants_it(text, word, expected):
    assert filled(StatementPair(text, f"Not {text}", word)).original == expected


@given(st.integers(0, 30), st.integers(1, 12))
def test_spans_hold_the_same_words_as_before(start, length):
    text = "No cat that is an [MASK] is not a tame [SEP] dog."
    span = (start, min(start + length, len(text)))
    gap = text.index("an [MASK]"), text.index("an [MASK]") + len("an [MASK]")
    before = text[slice(*span)]
    moved = filled(StatementPair("x", text, "pet", cue_spans=(span,)))
    after = moved.counterfactual[slice(*moved.cue_spans[0])]
    if span[1] <= gap[0] or span[0] >= gap[1]:
        assert after == before
    elif span[0] <= gap[0] and span[1] >= gap[1]:
        assert after == before.replace("an [MASK]", "a pet")


def test_every_built_in_pair_becomes_whole_and_differs_by_as_much_as_before():
    for pair in builtin_pairs():
        whole = filled(pair)
        assert "[MASK]" not in whole.original + whole.counterfactual + whole.control
        assert whole.original == pair.original.replace("[MASK]", pair.target)
        for spans in ("cue_spans", "affected_spans"):
            for before, after in zip(getattr(pair, spans), getattr(whole, spans), strict=True):
                assert pair.counterfactual[slice(*before)] == whole.counterfactual[slice(*after)]


def test_pairs_of_the_public_sets_become_whole(shared_datasets):
    for name in ("neg136", "neg1500"):
        for pair in load_pairs(shared_datasets / name).pairs:
            whole = filled(pair)
            assert whole.original.endswith(f"{pair.target}.") and "[MASK]" not in whole.counterfactual


def test_what_cannot_be_filled_is_refused_by_name():
    with pytest.raises(StatementError, match=r"'It is not \[MASK\]' has a \[MASK\], but the pair has no target"):
        filled(StatementPair("It is [MASK]", "It is not [MASK]"))
    with pytest.raises(StatementError, match=r"has 2 \[MASK\], but only one word, 'x'"):
        filled(StatementPair("It is [MASK]", "[MASK] is not [MASK]", "x"))
    with pytest.raises(StatementError, match="target 'Neutral' is a label of the model"):
        readable_by("classification", [StatementPair("It is [MASK]", "It is not [MASK]", "Neutral")], ["NEUTRAL"])


def test_each_kind_of_model_reads_what_it_can():
    whole = StatementPair("It is open", "It is not open", "yes", "no")
    assert readable_by("masked_lm", [PAIR, whole]) == [PAIR, whole]
    assert readable_by("none", [PAIR, whole]) == [filled(PAIR), whole]
    (words, labels) = readable_by("classification", [PAIR, whole], ["yes", "no"])
    assert (words.original, words.target, words.foil) == (filled(PAIR).original, None, None) and labels == whole
