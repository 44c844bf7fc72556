"""Tokens keep to the characters of the text as it was given, whatever the tokenizer does to it."""

import json

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer

from negprobe import HookedEncoder
from negprobe.base.errors import StatementError
from negprobe.models.tokenizing import with_prompt
from negprobe.statements import StatementPair, prepare, roles, tokenize, unknown_words
from negprobe.statements.gap_tokens import gap_token
from negprobe.statements.words import words_of
from tests.support import tiny_models

TEXT = "The door isn't  open. So the door is [MASK], I know."


def covered(statement, position):
    start, end = statement.offsets[position]
    return statement.text[start:end]


def test_ids_are_the_tokenizers_own(tokenizer):
    statement = tokenize(TEXT, tokenizer)
    assert list(statement.ids) == tokenizer(TEXT.replace("[MASK]", tokenizer.mask_token))["input_ids"]
    assert len(statement) == len(statement.tokens) == len(statement.offsets) == len(statement.special)


def test_mask_stands_for_the_tokenizers_mask_token(tokenizer):
    for text in (TEXT, "[MASK] is it and [MASK]", "[MASK]"):
        statement = tokenize(text, tokenizer)
        masks = [i for i, token in enumerate(statement.ids) if token == tokenizer.mask_token_id]
        assert len(masks) == text.count("[MASK]")
        assert [covered(statement, i) for i in masks] == ["[MASK]"] * len(masks)
        assert not any(statement.special[i] for i in masks)


def test_offsets_survive_a_mask_token_of_another_length(minilm_path):
    longer = AutoTokenizer.from_pretrained(minilm_path)
    longer.add_special_tokens({"mask_token": "<a much longer mask>"})
    words = ["It", "is", "[MASK]", "and", "[MASK]", "open"]
    statement = tokenize(" ".join(words), longer)
    assert [covered(statement, i) for i in range(1, len(statement) - 1)] == words
    assert statement.ids.count(longer.mask_token_id) == 2


def test_offsets_cover_every_character_but_spaces_and_never_a_space(tokenizer):
    statement = tokenize(TEXT, tokenizer)
    seen = {at for start, end in statement.offsets for at in range(start, end)}
    assert seen == {at for at, character in enumerate(TEXT) if not character.isspace()}


@pytest.mark.parametrize("word", ["open", "know", "isn't", "café", "naïve", "e\u0301", "👩‍👩‍👧", "…", "中文", "ﬁn"])
def test_positions_of_a_word_cover_exactly_that_word(tokenizer, word):
    text = f"So, {word} [MASK] {word}."
    statement = tokenize(text, tokenizer)
    start = text.rindex(word)
    spans = [statement.offsets[i] for i in statement.positions((start, start + len(word)))]
    assert min(span[0] for span in spans) == start
    assert max(span[1] for span in spans) in (start + len(word), start + len(word.rstrip("\u0301")))


def test_a_lone_space_piece_belongs_to_the_word_it_precedes(xlm_roberta, roberta):
    for tokenizer in (xlm_roberta, roberta):
        statement = tokenize("the zebra", tokenizer)
        first, *_ = statement.positions((4, 9))
        assert statement.tokens[first] == "▁"


def test_positions_needs_a_span_with_a_token(tokenizer):
    statement = tokenize("The door", tokenizer)
    for span in ((3, 4), (40, 44), (2, 2), (0, 0)):
        with pytest.raises(StatementError, match="There is no token in"):
            statement.positions(span)


def test_special_tokens_are_at_no_characters(tokenizer):
    statement = tokenize("open", tokenizer)
    assert statement.special == (True, *[False] * (len(statement) - 2), True)
    assert statement.offsets[0] == statement.offsets[-1] == (0, 0)
    assert 0 not in statement.positions((0, 4))


def test_nothing_is_padded_or_cut(bert):
    # This tokenizer's own file asks for 128 tokens, padded and truncated.
    statement = tokenize("open " * 200, bert)
    assert len(statement) == 202
    assert bert.pad_token_id not in tokenize("open", bert).ids


def test_tokens_are_shown_in_berts_way(bert, roberta, xlm_roberta):
    text = "The door isn't openable [MASK]."
    assert tokenize(text, bert).tokens == tuple(bert.convert_ids_to_tokens(bert(text)["input_ids"]))
    assert tokenize(text, roberta).tokens == (
        "<s>", "The", "door", "isn", "'t", "open", "##a", "##b", "##l", "##e", "<mask>", ".", "</s>",
    )  # fmt: skip
    joined = " ".join(tokenize(text, xlm_roberta).tokens[1:-1]).replace(" ##", "")
    assert joined.replace("▁ ", "") in (
        "The door isn ' t openable <mask> .",
        "▁The door isn ' t openable <mask> .",
    )


def test_bytes_of_a_character_show_the_character(roberta):
    tokens = tokenize("é 👩‍👧", roberta).tokens
    assert "�" not in "".join(tokens) and "Ã" not in "".join(tokens)
    assert {"é", "##é", "👩", "##👩", "U+200D", "👧"} <= set(tokens)


def test_unknown_tokens_are_shown_as_unknown(bert, xlm_roberta):
    assert "[UNK]" in tokenize("open 👩", bert).tokens
    assert "<unk>" in tokenize("open 👩", xlm_roberta).tokens


@settings(max_examples=150)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_any_text_tokenizes_with_legible_tokens_inside_it_or_says_why(roberta, text):
    try:
        statement = tokenize(text, roberta)
    except StatementError:
        assert not text.strip()
        return
    assert all(token.strip() for token in statement.tokens)
    assert all(0 <= start <= end <= len(text) for start, end in statement.offsets)
    starts = [start for (start, _), special in zip(statement.offsets, statement.special, strict=True) if not special]
    assert starts == sorted(starts)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0"])
def test_an_empty_statement_is_an_error(bert, text):
    with pytest.raises(StatementError, match="empty"):
        tokenize(text, bert)


def test_a_statement_of_which_nothing_is_left_is_an_error(bert):
    with pytest.raises(StatementError, match="makes no token of"):
        tokenize("\u200b", bert)


def test_a_tokenizer_without_offsets_is_an_error():
    with pytest.raises(StatementError, match="fast tokenizer"):
        tokenize("open", ByT5Tokenizer())


@pytest.mark.parametrize("name", ["BertweetTokenizer", "PhobertTokenizer"])
def test_a_tokenizer_in_python_is_refused_for_statements_and_runs_texts(tmp_path, name):
    (tmp_path / "vocab.txt").write_text("the 1\nis 1\nnot 1\nopen 1\n")
    (tmp_path / "bpe.codes").write_text("t h 1\nth e</w> 1\ni s</w> 1\nn o 1\nno t</w> 1\n")
    tokenizer = getattr(transformers, name)(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    with pytest.raises(StatementError, match=f"{name} does not provide the characters.*PreTrainedTokenizerFast"):
        tokenize("the not", tokenizer)
    theirs = tiny_models.hf_model("roberta", vocab_size=len(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    theirs.save_pretrained(tmp_path)
    model = HookedEncoder.from_pretrained(tmp_path, device="cpu")
    assert type(model.tokenizer).__name__ == name
    with torch.no_grad():
        expected = theirs(**tokenizer(["the is not"], return_tensors="pt")).logits
        assert tiny_models.largest_difference(model("the is not"), expected) < 1e-5


def bpe(end=""):
    """The vocabulary and the merges of a byte-pair encoding that knows "not" and its letters."""
    merges = [("n", "o"), ("no", f"t{end}")]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"not", *(f"{letter}{end}" for letter in "not" if end)]
    return {piece: index for index, piece in enumerate([*pieces, "no", f"not{end}"])}, merges


def unigrams():
    """A SentencePiece vocabulary that knows "not" and its letters."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<s>NOTUSED", "</s>NOTUSED", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, "▁", *"not", "▁not"]
    return [(piece, -float(index > 10)) for index, piece in enumerate(pieces)]


@pytest.mark.parametrize("name", ["HerbertTokenizer", "CamembertTokenizer", "AlbertTokenizer"])
def test_tokenizers_of_relatives_of_bert_give_the_characters_of_each_token(name):
    make = getattr(transformers, name)
    if name == "HerbertTokenizer":
        vocab, merges = bpe("</w>")
        tokenizer = make(vocab=vocab, merges=merges)
    else:
        tokenizer = make(vocab=unigrams(), add_prefix_space=True)
    statement = tokenize("not  ton [MASK] not", tokenizer)
    # A piece that is only the space before a word is at the word's first character.
    written = [at for at, token in enumerate(statement.tokens) if not statement.special[at] and token != "▁"]
    words = [covered(statement, at) for at in written]
    assert words == ["not", "t", "o", "n", "[MASK]", "not"]
    assert statement.special[0] and statement.special[-1]


def test_a_mask_without_a_mask_token_is_an_error(minilm_path):
    maskless = AutoTokenizer.from_pretrained(minilm_path)
    maskless.mask_token = None
    with pytest.raises(StatementError, match="no mask token"):
        tokenize("It is [MASK]", maskless)


def test_words_outside_the_vocabulary_are_named_as_they_are_written(bert):
    statement = tokenize("The ☃ is not open, ☂ ☃!", bert)
    assert unknown_words(statement, bert) == ("☃", "☂", "☃")
    assert unknown_words(tokenize("The Zebra is open.", bert), bert) == ()


def test_a_separator_makes_a_pair_as_the_tokenizer_does(bert):
    text = "A man is not [MASK].  [SEP] A man isn't out."
    statement = tokenize(text, bert)
    expected = bert("A man is not [MASK].", "A man isn't out.")
    assert list(statement.ids) == expected["input_ids"]
    assert list(statement.token_types) == expected["token_type_ids"]
    assert statement.special == tuple(token in (bert.cls_token_id, bert.sep_token_id) for token in statement.ids)
    assert [covered(statement, i) for i in statement.positions((text.index("isn't"), text.index(" out")))] == [
        *("isn", "'", "t"),
    ]


def test_both_sides_of_a_separator_are_covered_whatever_the_tokenizer(tokenizer):
    statement = tokenize(TEXT + " [SEP] " + TEXT, tokenizer)
    seen = {at for start, end in statement.offsets for at in range(start, end)}
    both = {*range(len(TEXT)), *range(len(TEXT) + 7, 2 * len(TEXT) + 7)}
    assert seen == {at for at in both if not statement.text[at].isspace()}


@pytest.mark.parametrize("text", ["[SEP]", "a [SEP]", " [SEP] b", "a [SEP] b [SEP] c", "a [SEP] [SEP]"])
def test_a_separator_without_two_texts_is_an_error(bert, text):
    with pytest.raises(StatementError, match="must have text on both sides of a single"):
        tokenize(text, bert)


# Prompts


@pytest.mark.parametrize("prompt", ["query: ", "the door is not open: ", "passage:", "It is", "  \n", "zebra café… "])
@pytest.mark.parametrize("text", [TEXT, "[MASK] is open", " not open", "It is [SEP] not [MASK] open.", "café"])
def test_offsets_are_those_in_the_statement_alone(tokenizer, prompt, text):
    statement = tokenize(text, with_prompt(tokenizer, prompt))
    parts = [part.replace("[MASK]", tokenizer.mask_token) for part in text.split(" [SEP] ")]
    assert list(statement.ids) == tokenizer(prompt + parts[0], *parts[1:])["input_ids"]
    seen = {at for start, end in statement.offsets for at in range(start, end)}
    separator = range(text.index(" [SEP] "), text.index(" [SEP] ") + 7) if "[SEP]" in text else ()
    assert seen == {at for at, character in enumerate(text) if not character.isspace() and at not in separator}
    assert {statement.offsets[i] for i, special in enumerate(statement.special) if special} == {(0, 0)}


def test_the_tokens_of_a_prompt_are_displayed_and_play_no_part(bert):
    prompted = with_prompt(bert, "not open: ")
    statement = tokenize("The door is not open.", prompted)
    assert statement.tokens == ("[CLS]", "not", "open", ":", "the", "door", "is", "not", "open", ".", "[SEP]")
    assert statement.special == (True, True, True, True, *[False] * 6, True)
    assert statement.positions((12, 15)) == (7,) and statement.positions((0, 3)) == (4,)
    spans = {"cue_spans": [(12, 15)], "affected_spans": [(16, 20)], "target": "open"}
    assert roles(statement, prompted, **spans) == (
        *("cls", "other", "other", "other"),
        *("other", "other", "other", "cue", "affected", "other", "sep"),
    )
    assert [word.text for word in words_of(statement)][:5] == ["", "", "", "", "The"]
    assert unknown_words(tokenize("open", with_prompt(bert, "\u1234 ")), bert) == ()


def test_cues_alignment_and_control_are_those_of_the_statement_alone(bert):
    """The prompt has a cue of its own."""
    pair = StatementPair("The door is open.", "The door is not open.")
    (bare, _), (prompted, _) = (
        prepare(pair, tokenizer, n_ctx=64) for tokenizer in (bert, with_prompt(bert, "It is not never: "))
    )
    assert prompted.pair == bare.pair and prompted.pair.control == "The door is now open."
    n = 5  # the tokens of the prompt
    assert prompted.cue == tuple(n + at for at in bare.cue)
    for ours, theirs in zip(prompted.alignments, bare.alignments, strict=True):
        assert ours.original == (*range(n + 1), *(n + at for at in theirs.original[1:]))
        assert ours.kinds == (*["same"] * n, *theirs.kinds)
        assert ours.unmatched_counterfactual == tuple(n + at for at in theirs.unmatched_counterfactual)
    for ours, theirs in zip(prompted.roles, bare.roles, strict=True):
        assert ours == (theirs[0], *["other"] * n, *theirs[1:])


@pytest.mark.parametrize("text", ["\u200b", "a [SEP] \u200b"])
def test_a_prompt_does_not_make_a_statement_of_nothing(bert, text):
    for tokenizer in (bert, with_prompt(bert, "query: ")):
        with pytest.raises(StatementError, match="The tokenizer makes no token of"):
            tokenize(text, tokenizer)


def test_the_word_of_a_gap_is_found_after_a_prompt(roberta):
    tokenizer = with_prompt(roberta, "query: ")
    for text in ("[MASK] is open.", "The door is [MASK]."):
        found = gap_token(tokenize(text, tokenizer), "the", tokenizer)
        at = tokenize(text, tokenizer).ids.index(roberta.mask_token_id)
        expected = roberta(f"query: {text}".replace("[MASK]", "the"))["input_ids"]
        assert found is None or expected[at] == found
