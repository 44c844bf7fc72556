"""A word at [MASK] is the token that the tokenizer makes of it there, and no token where it makes several."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from negprobe.statements import tokenize
from negprobe.statements.gap_tokens import gap_token

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
# "closed" never follows a space, and "shut" always does.
CORPUS = ['Open the door. It is Open and shut, and open ("open").', "(closed) [closed]", "open the shut door\nopen"] * 9


def wrapped(tokenizer: Tokenizer, *, lstrip: bool) -> PreTrainedTokenizerBase:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=lstrip, special=True),
    )  # fmt: skip


def byte_level(*, lstrip: bool) -> PreTrainedTokenizerBase:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return wrapped(tokenizer, lstrip=lstrip)


def sentence_piece() -> PreTrainedTokenizerBase:
    words = ("▁open", "open", "closed", "▁the", "▁The", "▁door", "▁It", "▁is", "▁and", "▁(")
    letters = sorted({letter for text in CORPUS for letter in text} | {"▁"})
    scored = [
        *((piece, 0.0) for piece in SPECIAL),
        *((word, -1.0) for word in words),
        *((one, -9.0) for one in letters),
    ]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return wrapped(tokenizer, lstrip=True)


@pytest.fixture(scope="session")
def tokenizers(bert) -> dict[str, PreTrainedTokenizerBase]:
    """As RoBERTa has them, with a mask token that leaves the space before it alone, and as XLM-R and BERT have them."""
    return {
        "roberta": byte_level(lstrip=True),
        "space before the mask": byte_level(lstrip=False),
        "xlm-r": sentence_piece(),
        "bert": bert,
    }


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("roberta", "[MASK] the door.", {"Open": "Open", "open": "open", "closed": "closed", "shut": None}),
        ("roberta", "The door is [MASK].", {"Open": "ĠOpen", "open": "Ġopen", "closed": None, "shut": "Ġshut"}),
        ("roberta", "The door is  [MASK].", {"open": "Ġopen", "closed": None, "shut": "Ġshut"}),
        ("roberta", 'It is ("[MASK]").', {"open": "open", "closed": "closed", "shut": None}),
        ("roberta", "The door.\n[MASK] it.", {"Open": "Open", "closed": "closed", "shut": None}),
        ("roberta", "The door [SEP] [MASK] it.", {"Open": "Open", "shut": None}),
        ("roberta", "The door is <mask>.", {"open": "Ġopen"}),
        ("roberta", "[MASK]", {"open": "open", " open ": "open"}),
        # The space is a token before the mask, and a word may bring it along or follow it.
        ("space before the mask", "The door is [MASK].", {"open": "Ġopen", "closed": "closed"}),
        ("space before the mask", "[MASK] the door.", {"open": "open", "shut": None}),
        ("xlm-r", "[MASK] the door.", {"open": "▁open", "closed": None}),
        ("xlm-r", "The door is [MASK].", {"open": "▁open", "closed": None}),
        ("xlm-r", "It is ([MASK]).", {"open": "open", "closed": "closed"}),
        ("bert", "[MASK] the door.", {"Open": "open", "unfathomableness": None, "x y": None}),
        ("bert", "It is half-[MASK].", {"open": "open"}),
        ("bert", "It un[MASK].", {"locks": None, "happy": None}),
    ],
)
def test_the_token_depends_on_what_stands_before_the_gap(tokenizers, kind, text, found):
    tokenizer = tokenizers[kind]
    statement = tokenize(text, tokenizer)
    tokens = {word: gap_token(statement, word, tokenizer) for word in found}
    assert {w: None if t is None else tokenizer.convert_ids_to_tokens(t) for w, t in tokens.items()} == found


@pytest.mark.parametrize("kind", ["roberta", "xlm-r", "bert"])
def test_the_token_is_the_one_in_the_tokenized_sentence(tokenizers, kind):
    """Filled in before the library sees it, and found by the library's own map of characters."""
    tokenizer = tokenizers[kind]
    for text in ("[MASK] the door.", "It is [MASK].", '"[MASK]" is the door.', "It is ([MASK]) and open."):
        for word in ("Open", "open", "the", "door", "It"):
            filled, start = text.replace("[MASK]", word), text.index("[MASK]")
            encoded = tokenizer(filled)
            own = {encoded.char_to_token(at) for at in range(start, start + len(word))}
            token = gap_token(tokenize(text, tokenizer), word, tokenizer)
            if token is not None:
                assert {encoded["input_ids"][at] for at in own} == {token}
            elif len(own) == 1:
                # The space before it is a token of its own, or it is unknown.
                before, at = encoded.tokens()[min(own) - 1], encoded.tokens()[min(own)]
                assert before == "▁" or at == "<unk>"


@pytest.mark.parametrize("word", ["", " ", "\ud800", "[MASK]", "<mask>", "[SEP]", "</s>", "<unk>", "\u200b"])
def test_what_is_no_word_has_no_token(tokenizers, word):
    for tokenizer in tokenizers.values():
        assert gap_token(tokenize("It is [MASK].", tokenizer), word, tokenizer) is None
