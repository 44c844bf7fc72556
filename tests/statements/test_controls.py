"""A control has the counterfactual's tokens at the counterfactual's places, all but the cue's."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from negprobe.statements import (
    CUE_KINDS,
    Cue,
    StatementPair,
    complete,
    english_lexicon,
    find_cues,
    length_matched_control,
    read_lexicon,
    tokenize,
    use_lexicon,
)
from negprobe.statements.cues import APOSTROPHES
from negprobe.statements.neutral_words import _PLACES, _table

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
    "neither": "Neither of them agreed.",
    "nor": "It was red, nor blue.",
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


GRAMMATICAL = [
    ("It is not open.", "It is now open."),
    ("NOT a single man", "JUST a single man"),
    ("It is NOT open.", "It is NOW open."),
    ("It isn't open.", "It is now really open."),
    ("It can't be open.", "It can in fact be open."),
    ("It wasn't open.", "It was now really open."),
    ("It is n't open.", "It is in actual fact open."),
    ("It won't open.", "It will in fact open."),
    ("it isn ' t open .", "it is now really open ."),
    ("I ain't rich.", "I am now really rich."),
    ("They ain't rich.", "They are now really rich."),
    ("It isn't open today.", "It is in fact open today."),
    ("They were not really surprised.", "They were now really surprised."),
    ("He doesn't like tea.", "He does in fact like tea."),
    ("He does not like tea.", "He does really like tea."),
    ("He also doesn't like tea.", "He also does in fact like tea."),
    ("Don't open the door.", "Do please also open the door."),
    ("Do not open the door.", "Do please open the door."),
    ("Let us not wait.", "Let us now wait."),
    ("She is not, and he knows it.", "She is now, and he knows it."),
    ("They said they wouldn't, and I believe it.", "They said they would now too, and I believe it."),
    ("Are they not coming?", "Are they now coming?"),
    ("Is the door not open?", "Is the door now open?"),
    ("Who hasn't paid?", "Who has in fact paid?"),
    ("He's not here.", "He's now here."),
    ("It is certainly not open.", "It is certainly now open."),
    ("He decided not to go.", "He decided also to go."),
    ("You ought not to go.", "You ought also to go."),
    ("A man not wearing a hat waved.", "A man now wearing a hat waved."),
    ("They invited you, but not me.", "They invited you, but also me."),
    ("Not every student passed.", "Almost every student passed."),
    ("Not two years ago it was new.", "Just two years ago it was new."),
    ("Not often do we see her.", "Very often do we see her."),
    ("It is not true that he did not know.", "It is not true that he did really know."),
    ("He did not leave without any money.", "He did really leave without any money."),
    ("It cannot be.", "It can be."),
    ("She never eats meat.", "She also eats meat."),
    ("Never open it.", "Just open it."),
    ("Never have I seen it.", "Often have I seen it."),
    ("It is old and never have I seen it.", "It is old and often have I seen it."),
    ("He never did it.", "He also did it."),
    ("It is no longer open.", "It is now really open."),
    ("He no longer lives here.", "He now really lives here."),
    ("He could hardly hear it.", "He could really hear it."),
    ("Hardly a day passed.", "Just a day passed."),
    ("No door is open.", "The door is open."),
    ("There is no milk.", "There is some milk."),
    ("It is in no way open.", "It is in some way open."),
    ("No one came.", "One person came."),
    ("No one left early.", "One person left early."),
    ("NO ONE came.", "ONE PERSON came."),
    ("No one in the room was awake.", "One person in the room was awake."),
    ("No one's phone rang.", "One person's phone rang."),
    ("He saw no one.", "He saw one person."),
    ("There is no one here.", "There is one person here."),
    ("No-one came.", "Just one person came."),
    ("Noone came.", "One person came."),
    ("No one-way street is open.", "The one-way street is open."),
    ("None of the doors are open.", "Some of the doors are open."),
    ("None of them was open.", "One of them was open."),
    ("None of the milk is cold.", "Some of the milk is cold."),
    ("Nobody came.", "Somebody came."),
    ("She left without a key.", "She left with a key."),
    ("She left without paying.", "She left after paying."),
    ("Neither door is open.", "Either door is open."),
    ("Neither am I.", "So am I."),
    # Notes and headlines without a finite verb.
    ("No survivors found after ferry sinks", "Some survivors found after ferry sinks"),
    ("No survivor found after ferry sinks", "One survivor found after ferry sinks"),
    ("Lungs clear, no wheezes heard.", "Lungs clear, some wheezes heard."),
    ("No evidence of fracture.", "Some evidence of fracture."),
    ("No chest pain.", "Some chest pain."),
    ("No students smiled.", "Some students smiled."),
    ("No student smiled.", "The student smiled."),
    ("No student did the homework.", "The student did the homework."),
    ("There is no young child asleep.", "There is one young child asleep."),
    ("He has no water.", "He has the water."),
    # The verb is singular or plural.
    ("Neither of my parents speaks English.", "Each of my parents speaks English."),
    ("Neither of my parents speak English.", "Both of my parents speak English."),
    ("Neither of them was there.", "Each of them was there."),
    ("Neither of them were there.", "Both of them were there."),
    ("None of my friends speaks English.", "One of my friends speaks English."),
    ("None of my friends speak English.", "Some of my friends speak English."),
    ("None of the tennis players smiled.", "Some of the tennis players smiled."),
    ("Neither could swim.", "Each could swim."),
    ("Neither were rich.", "Both were rich."),
    ("Neither does my old sister.", "So does my old sister."),
    ("He has no known allergies.", "He has some known allergies."),
    ("No known allergies.", "Some known allergies."),
    ("Please do not run.", "Please do also run."),
    ("They were fined for not reporting it.", "They were fined for also reporting it."),
    ("There is no water.", "There is some water."),
    ("No dog will bark.", "The dog will bark."),
    ("With no warning our dog was gone.", "With the warning our dog was gone."),
    # Ellipsis.
    ("I asked him, and he did not.", "I asked him, and he did indeed."),
    ("I asked him, and he didn't.", "I asked him, and he did so too."),
    ("Please don't run.", "Please do just also run."),
    ("The child mightn't wake up.", "The child might in actual fact wake up."),
    ("It isn't in the house.", "It is now really in the house."),
    ("He doesn't live in town.", "He does in fact live in town."),
    # Not fronted: the subject is before the auxiliary.
    ("Not a single guest was there.", "Just a single guest was there."),
    ("Not every student has the book.", "Almost every student has the book."),
    ("With no money he was poor.", "With the money he was poor."),
    ("No dog has the ball.", "The dog has the ball."),
    ("Nobody did it.", "Somebody did it."),
]


@pytest.mark.parametrize(("text", "control"), GRAMMATICAL)
def test_a_control_is_grammatical_and_affirms_what_the_cue_denies(bert, text, control):
    cue = find_cues(text)[-1] if "It is not true" in text else find_cues(text)[0]
    assert length_matched_control(text, cue, bert) == control


@pytest.mark.parametrize(
    "text",
    [
        # A question in which the subject follows.
        "Isn't the door open?",
        "Don't they know?",
        "Why isn't the door open?",
        "It was late, didn't you see?",
        "Is not the door open?",
        # Words that need a negation.
        "He has not eaten yet.",
        "He doesn't have any friends.",
        "I do not speak Dutch, either.",
        "It is not open at all.",
        "Nobody has ever come.",
        "There was hardly any bread.",
        "It isn't red, nor is it blue.",
        # A verb that only a negation allows.
        "He need not go.",
        "You needn't go.",
        # Nothing that "not" could be replaced by.
        "I hope not.",
        "He has not a clue.",
        "Not in that house did she sleep.",
        "It ain't got wheels.",
        "He came not on Friday, but on Monday.",
        "She wasn't even happy.",
        "They had a not very happy day.",
        "How long isn't that?",
        "There is no telling what it is.",
        "Nowhere better could be found.",
        "It is no better.",
        "Nowhere could they find shelter.",
        "Hardly had he left.",
        "He does without.",
        # Only after a negative phrase do auxiliary and subject change places.
        "Under no circumstances may you open it.",
        "At no point did she mention the money.",
        "He said that at no point did Tom see it.",
        "By no means is it certain.",
        "At no point in the last ten years did the company grow.",
        "On no account should the children be left alone.",
        "At no time in history have people lived longer.",
        "Not once did ministers resign.",
        "Not since 1990 has the city seen such rain.",
        "Not in five years has the river risen.",
        "Not a word did he say.",
        "Nowhere in the house did she find it.",
        "Never once did she complain.",
        "Nothing did he say.",
        "No door can you open.",
        "No man is she afraid of.",
        # "So has he seen it", "So did he call": only "So has he" is English.
        "Neither has he seen it.",
        "Nor did he call.",
        "Neither is the door open.",
        # "I'm now" ends in a contraction.
        "I'm not.",
        # "One person else came", "One person but him", "One person door", "She is one person".
        "No one else came.",
        "No one but him came.",
        "No one door is open.",
        "She is no one.",
        # "the faster than mine", "Also to vote is a choice".
        "It is no faster than mine.",
        "It is no faster.",
        "Not to vote is a choice too.",
        "Not to worry, he came.",
    ],
)
def test_there_is_no_control_where_none_is_grammatical(bert, text):
    assert length_matched_control(text, find_cues(text)[0], bert) is None


def test_the_answer_no_has_no_control(bert):
    assert length_matched_control("No, it is open.", Cue("No", "no", (0, 2)), bert) is None


@pytest.mark.parametrize("apostrophe", APOSTROPHES)
def test_the_formula_no_is_not_replaced(bert, apostrophe):
    text = f"Inhaled NO hasn{apostrophe}t lowered it."
    (cue,) = find_cues(text)
    control = length_matched_control(text, cue, bert)
    assert control is None or control.startswith("Inhaled NO has ")
    at = text.index("NO")
    assert length_matched_control(text, Cue("NO", "no", (at, at + 2)), bert) is None
    emphatic = "They had NO money."
    assert length_matched_control(emphatic, find_cues(emphatic)[0], bert) == "They had THE money."


def test_the_controls_of_neither_and_nor_go_together(bert):
    for text, control in (
        ("He neither smokes nor drinks.", "He both smokes and drinks."),
        ("Neither the cook nor the waiter smiled.", "Both the cook and the waiter smiled."),
        ("Neither the cook nor the waiter was late.", "Either the cook or the waiter was late."),
    ):
        assert complete(StatementPair("They came.", text), bert).control == control
    pair = StatementPair("It is both red and blue.", "It is neither red nor blue.")
    assert complete(pair, bert).control == "It is surely red and blue."


def test_the_length_is_that_of_the_tokenizer_at_hand(bert, roberta):
    text = "The door isn't open."
    (cue,) = find_cues(text)
    assert length_matched_control(text, cue, bert) == "The door is now really open."
    assert length_matched_control(text, cue, roberta) == "The door is now open."


def test_only_the_cue_that_was_asked_for_is_replaced(bert):
    text = "It is not red and not blue."
    _, second = find_cues(text)
    assert length_matched_control(text, second, bert) == "It is not red and also blue."


def test_none_where_no_candidate_fits(bert):
    # No candidate is as long as a "not" that stands inside an unknown, long word's pieces.
    assert length_matched_control("It is zzzqqqxxzzjj open", Cue("zzzqqqxxzzjj", "not", (6, 18)), bert) is None
    assert length_matched_control("It is un-open", Cue("un", "un-", (6, 8)), bert) is None


def test_a_candidate_that_changes_the_tokens_after_it_does_not_count():
    pieces = ["is", "not", "##open", "nowop", "##en", "really"]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    small = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocab)})
    assert length_matched_control("is notopen", Cue("not", "not", (3, 6)), small) == "is reallyopen"


def test_a_candidate_that_changes_the_tokens_before_it_does_not_count():
    # "is" + "not" and "is" + "also", but "i" + "snow".
    merges = ["o w", "n ow", "s now", "i s", "n o", "no t", "a l", "s o", "al so"]
    pieces = [*"isnotwal red", *(merge.replace(" ", "") for merge in merges)]
    model = BPE({piece: number for number, piece in enumerate(pieces)}, [tuple(merge.split()) for merge in merges])
    small = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    assert length_matched_control("isnot red", Cue("not", "not", (2, 5)), small) == "isalso red"


def test_candidates_unknown_to_the_vocabulary_do_not_count():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "is", "not", "open", "also"]
    small = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    (cue,) = find_cues("It is not open")
    assert length_matched_control("It is not open", cue, small) == "It is also open"


def test_every_kind_has_places_and_no_neutral_phrase_is_a_cue():
    assert set(_PLACES) == set(CUE_KINDS)
    phrases = [phrase for found in _table().neutral.values() for phrase in found]
    assert phrases and all(find_cues(phrase) == () for phrase in phrases)


@pytest.fixture
def neutral(tmp_path):
    """Sets a lexicon with the cue "sans" and neutral words."""
    file = tmp_path / "cues.toml"
    file.write_text('[cues.function]\nsans = ["sans"]\n[neutral]\nsans = ["with"]\nnever = ["always"]')
    before = use_lexicon(read_lexicon(file))
    yield
    use_lexicon(before)


def test_the_neutral_words_of_the_lexicon_in_use_come_first(bert, neutral):
    original = "She came with a key."
    assert complete(StatementPair("She came.", "She came sans a key."), bert).control == original
    assert complete(StatementPair("She ate.", "She never ate."), bert).control == "She always ate."
    # Not where no words are grammatical or affirmative.
    assert complete(StatementPair("She came.", "She came sans any key."), bert).control is None
    assert complete(StatementPair("He came.", "Never in years did he come."), bert).control is None


def test_a_cue_without_neutral_words_has_no_control(bert):
    before = use_lexicon(english_lexicon().with_cue("sans"))
    try:
        assert complete(StatementPair("She came.", "She came sans a key."), bert).control is None
    finally:
        use_lexicon(before)
