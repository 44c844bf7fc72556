"""Cues are words: found in every form, at their characters, and never inside other words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.statements import CUE_KINDS, added_cues, find_cues


def found(text):
    return [(cue.kind, cue.text) for cue in find_cues(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The door is not open", [("not", "not")]),
        ("NOT now. Not ever.", [("not", "NOT"), ("not", "Not")]),
        ("It can not be", [("not", "not")]),
        ("It cannot be", [("cannot", "cannot")]),
        ("It isn't open", [("n't", "n't")]),
        ("DON'T open it", [("n't", "N'T")]),
        ("It can't, won't, shan't, ain't", [("n't", "n't")] * 4),
        ("They don\u2019t know", [("n't", "n\u2019t")]),
        ("They don\u02bct know", [("n't", "n\u02bct")]),
        ("They don\u2018t, isn\u00b4t, isn`t, isn\uff07t, isn\u2032t", 
         [("n't", f"n{mark}t") for mark in "\u2018\u00b4`\uff07\u2032"]),
        ("they don ' t know, it isn \u00b4 t", [("n't", "n ' t"), ("n't", "n \u00b4 t")]),
        ("It is _not_ open, *not* open, __Not open__ and _isn't_",
         [("not", "not"), ("not", "not"), ("not", "Not"), ("n't", "n't")]),
        ("It is _no longer_ or _do n't_ open", [("no longer", "no longer"), ("n't", "n't")]),
        ("There are no 5 doors, and no, 5", [("no", "no"), ("no", "no")]),
        ("The answer is no. It is open.", [("no", "no")]),
        ("it isn 't open, it wasn' t", [("n't", "n 't"), ("n't", "n' t")]),
        ("they do n't know and wo n't", [("n't", "n't")] * 2),
        ("It shouldn't've moved", [("n't", "n't")]),
        ("It is no longer open", [("no longer", "no longer")]),
        ("No  longer open", [("no longer", "No  longer")]),
        ("It is no longer than a door", [("no", "no")]),
        ("There is no door", [("no", "no")]),
        ("No one came, and no-one saw it", [("no", "No"), ("no", "no")]),
        ("None of them", [("none", "None")]),
        ("nobody's door, nothing's open, nowhere", [(k, k) for k in ("nobody", "nothing", "nowhere")]),
        ("Neither the door nor the window", [("neither", "Neither"), ("nor", "nor")]),
        ("It never hardly barely scarcely moved", [(k, k) for k in ("never", "hardly", "barely", "scarcely")]),
        ("It goes without saying", [("without", "without")]),
        ("'not' \"no\" (never) no--none", [(k, k) for k in ("not", "no", "never", "no", "none")]),
        ("It is never not open", [("never", "never"), ("not", "not")]),
    ],
)  # fmt: skip
def test_every_form_of_a_cue_is_found(text, expected):
    assert found(text) == expected
    assert all(text[slice(*cue.span)] == cue.text for cue in find_cues(text))


@pytest.mark.parametrize(
    "text",
    [
        "I know another knot, notice Knott and take note of nothingness",
        "nonetheless, notwithstanding the north, nobodies and noon",
        "a never-ending, no-fly, know-nothing, well-not place",
        "snow, piano, canto, neverland, withouten",
        "the pan ' t, the can, rock 'n' roll, wont and cant, dont",
        "See No. 5, no. 5, No.5, NO 5 and No 5; the no. of doors",
        "__init_not__ _not_a a_not_ __not_a",
        "no\u0301 n\u00f3 notte not_a x_not not2",
        "",
    ],
)
def test_no_cue_is_found_inside_another_word(text):
    assert found(text) == []


@pytest.mark.parametrize("kind", CUE_KINDS)
def test_every_kind_is_found_by_its_own_name(kind):
    text = "it is" + ("" if kind == "n't" else " ") + kind
    assert [cue.kind for cue in find_cues(text)] == [kind]


WORDS = ["door", "know", "another", "no", "not", "is", "isn't", "longer", "never", "notice", "nor", "cannot", "than"]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_cues_agree_with_going_word_by_word(words):
    expected = []
    for at, word in enumerate(words):
        following = words[at + 1 : at + 3]
        if word == "no" and following[:1] == ["longer"] and following[1:] != ["than"]:
            expected.append("no longer")
        elif word == "isn't":
            expected.append("n't")
        elif word in CUE_KINDS:
            expected.append(word)
    assert [cue.kind for cue in find_cues(" ".join(words))] == expected


@given(st.text(alphabet="not'nveri -\u2019ldc", max_size=30))
def test_spans_are_in_order_and_bounded_by_word_ends(text):
    end = 0
    for cue in find_cues(text):
        assert end <= cue.span[0] < cue.span[1] <= len(text)
        end = cue.span[1]
        assert not re.match(r"\w", text[end:])
        if cue.kind != "n't":
            assert not re.search(r"\w$", text[: cue.span[0]])


@pytest.mark.parametrize(
    ("original", "counterfactual", "kinds"),
    [
        ("The door is open.", "The door is not open.", ["not"]),
        ("The door is open.", "The door isn't open.", ["n't"]),
        ("the door is open .", "the door isn ' t open .", ["n't"]),
        ("The door must be open.", "The door cannot be open.", ["cannot"]),
        ("The door is still open.", "The door is no longer open.", ["no longer"]),
        ("The door is not open.", "The door is never not open.", ["never"]),
        ("The door is not open.", "The door is not not open.", ["not"]),
        ("No door is open.", "No door is not open.", ["not"]),
        ("Both the door and it.", "Neither the door nor it.", ["neither", "nor"]),
        ("The door isn't open.", "The door is not open.", ["not"]),
        ("The door is open.", "The door is open.", []),
        ("The door is not open.", "The door is open.", []),
        ("Not all doors are open.", "All doors are not open.", []),
        ("not not red blue", "red blue not not", []),
        ("a no-fly zone", "a no fly zone", ["no"]),
    ],
)
def test_added_cues_are_those_the_original_lacks(original, counterfactual, kinds):
    assert [cue.kind for cue in added_cues(original, counterfactual)] == kinds


def test_the_added_cue_is_told_from_its_like_by_where_it_stands():
    clauses = "the door is {}open and the wall is {}red"
    both = clauses.format("not ", "not ")
    first, second = find_cues(both)
    assert added_cues(clauses.format("", "not "), both) == (first,)
    assert added_cues(clauses.format("not ", ""), both) == (second,)


def test_added_cues_of_a_double_negation_are_both_of_them():
    assert [cue.kind for cue in added_cues("It is open", "It is never not open")] == ["never", "not"]
