"""Cues are words: found in every form, at their characters, and never inside other words."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.statements import CUE_KINDS, added_cues, english_lexicon, find_cues
from negprobe.statements.cues import APOSTROPHES


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
        ("(never) or no--none", [(k, k) for k in ("never", "no", "none")]),
        ("They isn\x92t, isn\u201bt", [("n't", "n\x92t"), ("n't", "n\u201bt")]),
        ("Noone came", [("no", "No")]),
        ("It is never not open", [("never", "never"), ("not", "not")]),
    ],
)  # fmt: skip
def test_every_form_of_a_cue_is_found(text, expected):
    assert found(text) == expected
    assert all(text[slice(*cue.span)] == cue.text for cue in find_cues(text))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("scarcely", "scarcely".replace("s", "\u017f")),
        ("nothing", "nothing".replace("i", "\u0131")),
        ("nothing", "NOTHING".replace("I", "\u0130")),
    ],
)
def test_letters_that_are_equal_when_case_is_ignored_are_those_of_a_cue(kind, text):
    assert found(f"It is {text} open") == [(kind, text)]


STEMS = "is are was were do does did has have had could would should might must need sha ai"


@pytest.mark.parametrize(
    "text",
    [
        "he wont answer my calls",
        "cant believe they won",
        "I CANT",
        "My phone wont charge.",
        "u cant sit there",
        "the game just wont load",
        "I tried to open it but it wont.",
        "It wont, she said.",
        "why wont my phone work",
        "Wont you come in?",
        "a film you cant really hate",
    ],
)
def test_wont_and_cant_are_cues_where_a_subject_or_a_verb_shows_it(text):
    assert [(kind, cue.lower()) for kind, cue in found(text)] == [("n't", "nt")]


@pytest.mark.parametrize(
    "text",
    [
        "He left early, as is his wont.",
        "He was wont to smoke.",
        "They are wont be late.",
        "She is tired of religious cant.",
        "religious cant and hypocrisy",
        "The usual cant about freedom",
        "Political cant keep it out.",
        "He despised cant more than vice.",
        "cant",
        "We wont to go",
        "It is his wont, and he knows it.",
    ],
)
def test_the_nouns_wont_and_cant_contain_no_cue(text):
    assert found(text) == []


@pytest.mark.parametrize("stem", STEMS.split())
def test_a_cue_without_its_apostrophe_is_found(stem):
    text = f"It {stem}nt open, _{stem.upper()}NT_ it"
    assert found(text) == [("n't", "nt"), ("n't", "NT")]
    assert all(text[slice(*cue.span)] == cue.text for cue in find_cues(text))


@pytest.mark.parametrize(
    "text",
    [
        "I know another knot, notice Knott and take note of nothingness",
        "nonetheless, notwithstanding the north, nobodies and noon",
        "a never-ending, no-fly, know-nothing, well-not place",
        "snow, piano, canto, neverland, withouten",
        "the pan ' t, the can, rock 'n' roll, wont and cant, a font, paint, wantnt, indont, dontist",
        "See No. 5, no. 5, No.5, NO 5 and No 5; the no. of doors",
        "__init_not__ _not_a a_not_ __not_a",
        "no\u0301 n\u00f3 notte not_a x_not not2",
        "",
    ],
)
def test_no_cue_is_found_inside_another_word(text):
    assert found(text) == []


# A text whose cues do not negate, and a similar one with a negation.
NOT_CUES = [
    ("It is open, isn't it?", "It is not open, is it?", ["not"]),
    ("They will, won't they?", "Then won't they open it?", ["n't"]),
    ("It is open , is n ' t it ?", "When asked, isn't it open?", ["n't"]),
    ("They are, aren\u2019t they.", "Isn't it?", ["n't"]),
    ("It works, doesnt it?", "It works, but doesnt open", ["n't"]),
    ("They are open, are they not?", "They are asked, are they not open?", ["not"]),
    ("It is open, don't you think?", "Now, don't you think that it is open?", ["n't"]),
    ("It is open, no?", "It has no, or few, doors", ["no"]),
    ("No, it is open", "No door is open", ["no"]),
    ("It's No. 7 and no. 8", "There are no 7 doors", ["no"]),
    ("NO levels rose", "No levels rose", ["no"]),
    ("The cells release NO under stress", "I have NO idea", ["no"]),
    ("We measured the NO", "THERE IS NO MILK", ["no"]),
    ("NO levels and NO synthase", "NO LEVELS ROSE", ["no"]),
    ("The word 'not' is short", "It's 'not open'", ["not"]),
    ("A \u201cnever\u201d and a \"no\", `not`, \u2018nor\u2019", "\"no 'never\"", ["no", "never"]),
    ("The ending \"n't\"", "It \"isn't\"", ["n't"]),
    ("No doubt it is open", "There is no doubt that it is open", ["no"]),
    ("It will no doubt open, and it is no doubt red", "I have no doubt. There's no doubt", ["no", "no"]),
    ("No wonder it is open", "It is no wonder", ["no"]),
    ("Without a doubt, it is open, without question", "It came without a doubtful door", ["without"]),
    ("It opens without fail.", "It opens without failing", ["without"]),
    ("Not only is it open, but also red", "It is not the only door", ["not"]),
    ("He not only left, he ran", "It is not only a door", ["not"]),
    ("It is not only open but red", "It isn't only a door", ["n't"]),
    ("It isn't only open but also red", "It isn't only open, but it is red", ["n't"]),
    ("It not only opens", "It's not only a door", ["not"]),
    ("It is not just open, but red", "The verdict is not just", ["not"]),
    ("The door, not just windows, is open", "The door, not just yet, is open", ["not"]),
    ("Doors, not merely windows, are open", "It is not merely a door", ["not"]),
    ("It isn't simply open; it is also red", "It isn't simply open. It is also red", ["n't"]),
    ("It is nothing but a door", "He saw nothing, but she did", ["nothing"]),
    ("It was none other than Ann", "It was none of them", ["none"]),
    ("It is no other than the door, nothing other than it", "There is no other door", ["no"]),
    ("It is nothing short of a door", "It is nothing", ["nothing"]),
    ("It is nothing less than a door", "It costs nothing", ["nothing"]),
    ("It is nothing if not open", "There is nothing if it is not open", ["nothing", "not"]),
    ("It is red, if nothing else", "It is red, if nothing opens", ["nothing"]),
    ("No less than five, no fewer than six", "No longer than five, no more than six", ["no", "no"]),
    ("Whether or not it is open", "Whether it is not open", ["not"]),
    ("Whether it is open or not, go", "It is red or not open", ["not"]),
    ("Is it open, or is it not?", "Is it red or is it not open?", ["not"]),
    ("Is it open or isn't it?", "Is it red or isn't it open?", ["n't"]),
    ("It may or may not open", "It may open or it may not", ["not"]),
    ("A yes or no question", "A yes, or no question", ["no"]),
    ("It is all or nothing", "All have nothing", ["nothing"]),
    ("It cannot but open", "It cannot open, but it is red", ["cannot"]),
    ("He cannot help but laugh", "He cannot help, but he laughs", ["cannot"]),
    ("She could not but laugh", "She could not, but laughs", ["not"]),
    ("I can't help but laugh, she couldn't but laugh", "I can't help laughing", ["n't"]),
    ("Red doors, not to mention open ones", "He asked us not to mention it", ["not"]),
    ("Red doors, to say nothing of open ones", "She has to say nothing of it", ["nothing"]),
    ("It is open, not least on Mondays", "It is not least open", ["not"]),
    ("Last but not least, it is open", "It is last but not open", ["not"]),
    ("Why not open it?", "Why not?", ["not"]),
    ("So, why not open it?", "Say why not all doors are open", ["not"]),
    ("Believe it or not it is open", "Believe it, not me", ["not"]),
    ("More often than not it is open", "It is more often than I thought not open", ["not"]),
    ("As often as not it is open", "It is as often not open", ["not"]),
    ("No sooner had it opened than it closed", "It opens no sooner than five", ["no"]),
    ("No sooner had it not opened than it closed", "It opens no sooner. Later than five", ["no"]),
    ("Hardly had it opened when it closed", "It had hardly opened", ["hardly"]),
    ("It opens in no time.", "It opens in no time zone", ["no"]),
    ("In no time at all it opens", "At no time was it open", ["no"]),
    ("No matter what happens", "There is no matter in it", ["no"]),
    ("It is none the less open", "None of the less open doors", ["none"]),
    ("It came out of nowhere, from nowhere", "It leads nowhere", ["nowhere"]),
    ("In the middle of nowhere", "Nowhere in the middle", ["nowhere"]),
    ("In no man's land, no man\u2019s land", "No man has land", ["no"]),
    ("A NOT gate and a nor gate", "It is not gated", ["not"]),
    ("It is hard, if not impossible", "It is hard, if not in use", ["not"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "near", "kinds"), NOT_CUES)
def test_a_cue_that_does_not_negate_its_clause_is_not_found(text, near, kinds):
    expected = ["not"] if text == "No sooner had it not opened than it closed" else []
    assert [cue.kind for cue in find_cues(text)] == expected
    assert [cue.kind for cue in find_cues(near)] == kinds


@pytest.mark.parametrize("apostrophe", APOSTROPHES)
def test_the_formula_no_is_no_cue_before_a_contraction(apostrophe):
    for text in ("Inhaled NO hasn't lowered it", "NO isn't toxic", "NO wasn't detected", "We saw that NO won't bind"):
        assert [cue.kind for cue in find_cues(text.replace("'", apostrophe))] == ["n't"], text
    for near in ("Inhaling no hasn't lowered it", "NO DOOR ISN'T OPEN", "NO ISN'T TOXIC", "NO hasty man isn't late"):
        assert [cue.kind for cue in find_cues(near.replace("'", apostrophe))] == ["no", "n't"], near


@pytest.mark.parametrize(
    ("verb", "cue"),
    [("hasnt", "nt"), ("has n ' t", "n ' t"), ("never", "never"), ("cannot", "cannot"), ("had hardly", "hardly")],
)
def test_the_formula_no_is_no_cue_before_another_negation(verb, cue):
    assert [found.text for found in find_cues(f"Inhaled NO {verb} lowered it")] == [cue]
    assert [found.text for found in find_cues(f"There is NO will; he {verb} lowered it")] == ["NO", cue]


def test_every_phrase_of_the_lexicon_is_needed_by_a_text():
    """Without any one of its phrases, the lexicon finds a cue in a text that has none."""
    lexicon = english_lexicon()
    texts = [text for text, _, _ in NOT_CUES]
    found = [len(find_cues(text)) for text in texts]
    for phrase in lexicon.phrases:
        fewer = replace(lexicon, phrases=tuple(other for other in lexicon.phrases if other != phrase))
        assert [len(find_cues(text, lexicon=fewer)) for text in texts] != found, phrase


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
