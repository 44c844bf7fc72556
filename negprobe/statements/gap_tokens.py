"""Which token of the vocabulary represents a word at the `[MASK]` of a statement."""

from transformers import PreTrainedTokenizerBase

from negprobe.base.texts import is_utf8
from negprobe.statements.tokens import MASK, SEPARATOR, SPACE, TokenizedStatement, tokenize

# A lone space in SentencePiece and byte-level vocabularies.
_SPACE_PIECES = (SPACE, "Ġ")


def gap_token(statement: TokenizedStatement, word: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token of a word that replaces a statement's only mask token.

    Byte-level and SentencePiece vocabularies contain many words twice, with and without a leading space, so the
    token depends on what precedes the gap: a space, the start of the text, a line break, a quotation mark.

    Returns:
        The token's id; None if the word becomes several tokens, merges with its neighbours, or is not in the
        vocabulary.
    """
    word = word.strip()
    if not word or not is_utf8(word) or MASK in word or SEPARATOR in word:
        return None
    mask = statement.ids.index(tokenizer.mask_token_id)
    start, end = statement.offsets[mask]
    before = statement.text[:start].rstrip()
    # Many mask tokens include all spaces before them; a word is tokenized with at most one.
    before += statement.text[len(before) : start][-1:]
    span = (len(before), len(before) + len(word))
    filled = tokenize(before + word + statement.text[end:], tokenizer)
    at = [position for position in filled.positions(span, missing_ok=True) if not _is_white(filled, position)]
    if len(at) != 1 or filled.offsets[at[0]] != span or filled.ids[at[0]] in tokenizer.all_special_ids:
        return None
    (words, spaces), (masked_words, masked_spaces) = (
        _before(tokenized, position, tokenizer) for tokenized, position in ((filled, at[0]), (statement, mask))
    )
    # A separate space token before the word makes it two tokens, unless the mask is preceded by one too.
    return filled.ids[at[0]] if words == masked_words and spaces <= masked_spaces else None


def _before(
    statement: TokenizedStatement, position: int, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], int]:
    """The tokens before a position and the white space in front of it, and the number of space tokens in the latter."""
    first = position
    while first and _is_white(statement, first - 1):
        first -= 1
    pieces = tokenizer.convert_ids_to_tokens(list(statement.ids[first:position]))
    return statement.ids[:first], sum(piece in _SPACE_PIECES for piece in pieces)


def _is_white(statement: TokenizedStatement, position: int) -> bool:
    start, end = statement.offsets[position]
    return start == end and not statement.special[position]
