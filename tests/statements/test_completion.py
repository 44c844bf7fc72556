"""What a pair's sentences say is filled in; what the pair says itself is kept."""

import pytest

from negprobe.statements import StatementPair, builtin_pairs, complete, find_cues, tokenize


def words(pair):
    """The texts of a pair's spans."""
    return tuple(pair.counterfactual[slice(*span)] for span in (*pair.cue_spans, *pair.affected_spans))


def test_cue_affected_word_and_control_are_filled_in(bert):
    pair = complete(StatementPair("The door is open.", "The door is not very open."), bert)
    assert pair.cue == "not"
    assert words(pair) == ("not", "open")
    assert pair.control == "The door is now very open."


def test_without_a_tokenizer_there_is_no_control():
    pair = complete(StatementPair("The door is open.", "The door isn't open."))
    assert (pair.cue, words(pair), pair.control) == ("n't", ("n't", "open"), None)


def test_what_the_pair_says_is_kept(bert):
    given = StatementPair(
        "It is red.", "It is not never red.", control="It is now now red.", cue="never", affected_spans=((0, 2),)
    )
    pair = complete(given, bert)
    assert (pair.control, pair.cue, words(pair)) == ("It is now now red.", "never", ("never", "It"))
    assert complete(pair, bert) == pair


def test_a_given_cue_span_says_which_cue(bert):
    pair = complete(StatementPair("It is not red.", "It is not red or not blue.", cue_spans=((6, 9),)), bert)
    assert (pair.cue, words(pair), pair.control) == ("not", ("not", "red"), "It is now red or not blue.")


@pytest.mark.parametrize("cue", ["never", "not", "hardly"])
def test_a_given_cue_span_is_read_as_the_cue_that_stands_in_it(cue):
    text = "It is never not hardly red."
    start = text.index(cue)
    pair = complete(StatementPair("It is red.", text, cue_spans=((start, start + len(cue)),)))
    assert (pair.cue, words(pair)[0]) == (cue, cue)


def test_a_cue_of_ones_own_is_taken_by_its_text(bert):
    pair = complete(StatementPair("It is red.", "It is far from red.", cue_spans=((6, 14),)), bert)
    assert (pair.cue, words(pair), pair.control) == ("far from", ("far from", "red"), None)


def test_a_cue_without_letters_is_taken_as_it_is(bert):
    pair = complete(StatementPair("It is red.", "It is \u00ac red.", cue="not", cue_spans=((6, 7),)), bert)
    assert pair.control == "It is now red."


def test_an_affirmative_counterfactual_gets_nothing(bert):
    pair = StatementPair("The door is not open.", "The door is open.")
    assert complete(pair, bert) == pair


def test_the_control_replaces_every_added_cue(bert):
    pair = complete(StatementPair("Red and blue fit.", "Neither red nor blue fit."), bert)
    assert pair.cue == "neither"
    assert pair.control == "Both red and blue fit."
    assert find_cues(pair.control) == ()


def test_the_control_is_never_the_original_itself(bert):
    pair = complete(StatementPair("Some door is open.", "No door is open."), bert)
    assert pair.control == "The door is open."


def test_the_built_in_pairs_agree_with_what_is_found_in_them():
    for pair in builtin_pairs():
        bare = StatementPair(pair.original, pair.counterfactual)
        found = complete(bare)
        assert (found.cue, found.cue_spans) == (pair.cue, pair.cue_spans), pair
        # "It is not true that the door is open": the cue acts on "true", what the pair is about is "open".
        if " true that " not in pair.counterfactual:
            assert found.affected_spans == pair.affected_spans, pair


def test_controls_of_the_built_in_pairs_fit_bert(bert):
    for pair in builtin_pairs()[::20]:
        found = complete(StatementPair(pair.original, pair.counterfactual), bert)
        assert found.control is not None, pair
        assert len(tokenize(found.control, bert)) == len(tokenize(pair.counterfactual, bert))


def test_premise_and_hypothesis_have_a_cue_each(bert):
    pair = StatementPair("A man is out. [SEP] A man is away.", "A man is not out. [SEP] A man is not away.")
    found = complete(pair, bert)
    assert words(found) == ("not", "not", "out", "away")
    assert found.control == "A man is now out. [SEP] A man is now away."


def test_a_cue_does_not_act_across_the_separator():
    pair = complete(StatementPair("It is. [SEP] All is red.", "It is not [SEP] All is red."))
    assert words(pair) == ("not",)
