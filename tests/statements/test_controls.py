"""A control has the counterfactual's tokens at the counterfactual's places, all but the cue's."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from negprobe.statements import CUE_KINDS, Cue, find_cues, length_matched_control, tokenize
from negprobe.statements.controls import NEUTRAL

SENTENCES = {
    "not": "The door is not open.",
    "n't": "The door isn't open.",
    "cannot": "The door cannot be open.",
    "never": "The door was never open.",
    "no": "No door is open.",
    "none": "None of the doors are open.",
    "nobody": "Nobody is at the door.",
    "nothing": "There is nothing in the room.",
    "nowhere": "They went nowhere.",
    "neither": "It is neither red.",
    "nor": "It is red nor blue.",
    "without": "She left without a key.",
    "hardly": "The door is hardly open.",
    "barely": "The door is barely open.",
    "scarcely": "The door is scarcely open.",
    "no longer": "The door is no longer open.",
}


@pytest.mark.parametrize("kind", CUE_KINDS)
def test_every_kind_of_cue_has_a_control_in_berts_vocabulary(bert, kind):
    text = SENTENCES[kind]
    (cue,) = find_cues(text)
    control = length_matched_control(text, cue, bert)
    assert control is not None
    assert find_cues(control) == ()
    ours, theirs = tokenize(text, bert), tokenize(control, bert)
    changed = [i for i, (a, b) in enumerate(zip(ours.ids, theirs.ids, strict=True)) if a != b]
    assert changed
    word_start = text.rfind(" ", 0, cue.span[0]) + 1
    assert set(changed) <= set(ours.positions((word_start, cue.span[1])))
    assert bert.unk_token_id not in theirs.ids


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("It is not open.", "It is now open."),
        ("NOT open", "NOW open"),
        ("Never open it.", "Always open it."),
        ("No door is open.", "Some door is open."),
        ("It isn't open.", "It is now really open."),
        ("It can't be open.", "It can now really be open."),
        ("It wasn't open.", "It was now really open."),
        ("It is n't open.", "It is now really quite open."),
        ("N't open", "Now really quite open"),
        ("It won't open.", "It will now really open."),
        ("it isn ' t open .", "it is now really open ."),
        ("Don't they know?", "Do now really they know?"),
        ("It is no longer open.", "It is now really open."),
        ("It cannot be.", "It can be."),
    ],
)
def test_the_control_reads_like_the_counterfactual(bert, text, control):
    (cue,) = find_cues(text)
    assert length_matched_control(text, cue, bert) == control


def test_the_length_is_that_of_the_tokenizer_at_hand(bert, roberta):
    text = "The door isn't open."
    (cue,) = find_cues(text)
    assert length_matched_control(text, cue, bert) == "The door is now really open."
    assert length_matched_control(text, cue, roberta) == "The door is now open."


def test_only_the_cue_that_was_asked_for_is_replaced(bert):
    text = "It is not red and not blue."
    _, second = find_cues(text)
    assert length_matched_control(text, second, bert) == "It is not red and now blue."


def test_none_where_no_candidate_fits(bert):
    # No candidate is as long as a "not" that stands inside an unknown, long word's pieces.
    assert length_matched_control("It is zzzqqqxxzzjj open", Cue("zzzqqqxxzzjj", "not", (6, 18)), bert) is None
    assert length_matched_control("It is un-open", Cue("un", "un-", (6, 8)), bert) is None


def test_a_candidate_that_changes_the_tokens_after_it_does_not_count():
    pieces = ["not", "##open", "nowop", "##en", "really"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    small = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocab)})
    assert length_matched_control("notopen", Cue("not", "not", (0, 3)), small) == "reallyopen"


def test_a_candidate_that_changes_the_tokens_before_it_does_not_count():
    # "un" + "not" and "un" + "also", but "u" + "nnow".
    merges = ["o w", "n ow", "n now", "u n", "n o", "no t", "a l", "s o", "al so"]
    pieces = [*"unotwals", *(merge.replace(" ", "") for merge in merges)]
    model = BPE({piece: number for number, piece in enumerate(pieces)}, [tuple(merge.split()) for merge in merges])
    small = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    assert length_matched_control("unnot", Cue("not", "not", (2, 5)), small) == "unalso"


def test_candidates_unknown_to_the_vocabulary_do_not_count():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "is", "not", "open", "also"]
    small = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    (cue,) = find_cues("It is not open")
    assert length_matched_control("It is not open", cue, small) == "It is also open"


def test_there_are_candidates_for_every_kind_and_none_is_a_cue():
    assert set(NEUTRAL) == set(CUE_KINDS)
    for candidates in NEUTRAL.values():
        assert all(find_cues(candidate) == () for candidate in candidates)
