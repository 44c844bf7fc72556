"""The affected word is the first content word of the phrase that is negated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negprobe.statements import find_cues
from negprobe.statements.affected_word import affected_word


def found(text):
    """The affected word of the first cue of a text."""
    span = affected_word(text, find_cues(text)[0])
    return span and text[slice(*span)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("It is not a very open door", "open"),
        ("No door is open", "door"),
        ("No red apples were left.", "red"),
        ("There is no milk.", "milk"),
        ("Not a single door is open.", "door"),
        ("None of the doors are open", "doors"),
        ("None of them opened.", "opened"),
        ("It cannot be open", "open"),
        ("It is not [MASK].", "[MASK]"),
        ("It is not well-known", "well-known"),
        ("It is not entirely open.", "open"),
        ("It has no family.", "family"),
        ("She isn't friendly.", "friendly"),
        ("He didn't really want to go.", "want"),
        ("This is NOT for staff.", "staff"),
        ("It is _not_ open.", "open"),
        ("There are not 5.5 doors.", "doors"),
        ("He left without having paid.", "paid"),
    ],
)
def test_function_words_and_adverbs_are_skipped(text, word):
    assert found(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("She does not have a car.", "have"),
        ("She doesn't have time.", "have"),
        ("She doesn't have to go.", "go"),
        ("She has never had lunch.", "had"),
        ("She could not have known.", "known"),
        ("She could not have come.", "come"),
        ("She hasn't opened it.", "opened"),
        ("She doesn't do the dishes.", "do"),
        ("She has not done the dishes.", "done"),
        ("She never does that.", "does"),
        ("Nobody did it.", "did"),
        ("Never do this again.", "do"),
    ],
)
def test_have_and_do_count_where_they_are_no_auxiliaries(text, word):
    assert found(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Isn't it open?", "open"),
        ("Isn't the door open?", "open"),
        ("Why isn't the old door of the barn open?", "open"),
        ("Is not the door open?", "open"),
        ("Is the door not open?", "open"),
        ("Doesn't Mary like tea?", "like"),
        ("Don't the dogs bark?", "bark"),
        ("Don't open the door.", "open"),
        ("Don't be rude.", "rude"),
        ("Who isn't the boss?", "boss"),
        ("Isn't the boss?", "boss"),
        ("Never have I seen such a mess.", "seen"),
        ("Never did the man see it.", "see"),
        ("Never have the two teams played so well.", "played"),
        ("Never before had the team lost.", "lost"),
        ("Never have doubts.", "have"),
        ("Nowhere in the house was it warm.", "warm"),
        ("Nor had the rain stopped.", "stopped"),
        ("Didn't my mother's friend call?", "call"),
        ("The engineer, who was there, did not report it.", "report"),
    ],
)
def test_the_subject_of_an_inverted_sentence_is_skipped(text, word):
    assert found(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Nobody in the room laughed.", "laughed"),
        ("No one in this big house has ever laughed.", "laughed"),
        ("No-one from the office in the north was patient.", "patient"),
        ("Nobody inside was awake.", "awake"),
        ("Nobody opened it.", "opened"),
        ("He said nothing about the trip.", "trip"),
    ],
)
def test_a_phrase_after_a_negative_subject_is_skipped(text, word):
    assert found(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("She is not, and he knows it.", None),
        ("She did not because he knew it.", None),
        ("She is not, however, open.", "open"),
        ("If she doesn't, the match will be moved.", None),
        ("It is not. So it opens.", None),
        ("It is not \u2013 it opens.", None),
        ("It is not", None),
        ("She told me not to.", None),
        ("It is not here.", "here"),
        ("It is not on.", "on"),
        ("It is not for me.", "me"),
        ("They left without you", "you"),
    ],
)
def test_it_does_not_leave_its_clause(text, word):
    assert found(text) == word


PARTS = """not isn't never nobody nor no one the door open is have , ? . and in [MASK] [SEP]"""
words = st.lists(st.sampled_from(PARTS.split(" ")), min_size=1)


@given(words)
def test_it_is_a_word_after_the_cue_or_none(parts):
    text = " ".join(parts)
    for cue in find_cues(text):
        span = affected_word(text, cue)
        assert span is None or (span[0] >= cue.span[1] and text[slice(*span)].strip(" ,?.[]"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("This is a film that no one under thirty remembers.", "remembers"),
        ("Nobody under the age of ten swims.", "swims"),
        ("Nobody under ten likes cheese.", "likes"),
        ("Nobody over 60 smokes.", "smokes"),
        ("Nobody over sixty years old came.", "came"),
        ("Nobody with two dogs smiled.", "smiled"),
        ("Nobody with 2 dogs smiled.", "smiled"),
        ("No one in the back of the room laughed.", "laughed"),
        ("Nothing in any of the boxes moved.", "moved"),
        ("Nobody at all in the room laughed.", "laughed"),
        ("No one else in town knows.", "knows"),
        ("He said that no one in the room laughed.", "laughed"),
        ("I think nobody in the room laughed.", "laughed"),
        # The object of a verb has its own phrase.
        ("She saw nobody in the room.", "room"),
        ("There was nobody in the room.", "room"),
    ],
)
def test_a_phrase_after_a_negative_subject_is_skipped_with_its_numbers_and_further_phrases(text, word):
    assert found(text) == word


@pytest.mark.parametrize(
    "text",
    [
        "My brother smokes, but neither does my sister.",
        "Neither do I.",
        "She is rich, and neither is he.",
        "She is rich, and neither is her brother.",
        "He came, nor did Tom.",
        "They came, nor do the neighbours.",
    ],
)
def test_a_clause_of_an_auxiliary_and_its_subject_has_no_affected_word(text):
    assert found(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Neither have I seen it.", "seen"),
        ("Neither has a car.", "has"),
        ("Neither is rich.", "rich"),
        ("Neither door is open.", "door"),
        ("He came, nor does he smoke.", "smoke"),
        ("Nor is the door open.", "open"),
    ],
)
def test_a_full_clause_after_neither_and_nor_has_one(text, word):
    assert found(text) == word
