"""Tokenized statements: the tokens of a statement, how each is displayed, and the characters that it covers."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.texts import is_utf8, quoted
from negprobe.models.tokenizing import encode, prompt_of, prompted
from negprobe.statements.pair import Span

MASK = "[MASK]"
"""The text of the masked position in a statement, for every tokenizer, whatever its own mask token is."""

SEPARATOR = "[SEP]"
"""The text between the two parts of a statement, such as a premise and a hypothesis."""

SPACE = "▁"
"""How a token that consists only of the space before a word is displayed."""


@dataclass(frozen=True)
class TokenizedStatement:
    """A statement and its tokens, without padding.

    Attributes:
        text: The statement as given.
        tokens: The tokens as displayed (see `tokenize`).
        ids: The ids of the tokens in the vocabulary.
        offsets: The characters of `text` that each token covers, without spaces; `(0, 0)` for special tokens.
        special: Whether the token is not part of the statement: added by the tokenizer, as [CLS] and [SEP] are, or part
            of the model's prompt. A mask token is part of the statement.
        token_types: The token type (segment) of each token; empty if the tokenizer has none.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import tokenize
        >>> statement = tokenize("It is not open.", HookedEncoder.from_pretrained("tiny-negation").tokenizer)
        >>> statement.tokens[statement.positions((6, 9))[0]]
        'not'
    """

    text: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    offsets: tuple[Span, ...]
    special: tuple[bool, ...]
    token_types: tuple[int, ...] = ()

    def __len__(self) -> int:
        """The number of tokens, special ones included."""
        return len(self.ids)

    def positions(self, span: Span, *, missing_ok: bool = False) -> tuple[int, ...]:
        """The positions of the tokens that overlap the characters of `span`.

        Raises:
            StatementError: if there are none, unless `missing_ok`.
        """
        found = tuple(
            position
            for position, (offset, special) in enumerate(zip(self.offsets, self.special, strict=True))
            if not special and _overlap(offset, span)
        )
        if not found and not missing_ok:
            raise StatementError(
                f"There is no token in characters {span} of {quoted(self.text)} ({len(self.text)} characters); "
                "give a span that contains a word."
            )
        return found


@checked
def tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> TokenizedStatement:
    """The tokens of one statement, with special tokens, without truncation or padding.

    A literal `[MASK]` in the text becomes the tokenizer's own mask token. A literal `[SEP]` between two texts makes
    them a pair, with the separators and token types that the tokenizer gives to pairs.

    The displayed tokens follow BERT's convention for every tokenizer: a piece at the start of a word is written as it
    is, a piece that continues a word begins with `##`, and a piece that is only the space before a word is `▁`.
    WordPiece tokens are displayed as in the vocabulary, others by the characters that they cover, so that each byte of
    a split character displays that character.

    The tokenizer of a model with a prompt puts it before the statement. Its tokens count as special, and offsets are
    those in the statement alone.

    Raises:
        StatementError: for an empty text, one that is not valid UTF-8, one that the tokenizer makes no token of, more
            than one `[SEP]`, a `[MASK]` if the tokenizer has no mask token, or a tokenizer without offsets.
        InputError: if the tokenizer fails on the text.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import tokenize
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> tokenize("The door isn't [MASK].", tokenizer).tokens
        ('[CLS]', 'the', 'door', 'isn', "'", 't', '[MASK]', '.', '[SEP]')
    """
    return tokenize_all([text], tokenizer)[0]


@checked
def tokenize_all(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[TokenizedStatement]:
    """`tokenize` for many statements, faster than one by one.

    Raises:
        StatementError: as `tokenize`.
        InputError: as `tokenize`.
    """
    if not tokenizer.is_fast:
        raise StatementError(
            f"{type(tokenizer).__name__} does not provide the characters of each token, which statements need. Load "
            "the model with a fast tokenizer: AutoTokenizer.from_pretrained, if the folder has a tokenizer.json; for "
            "classes that transformers has in Python only, such as those of BERTweet and PhoBERT, a "
            "PreTrainedTokenizerFast with the same vocabulary. Texts and token ids still run without one."
        )
    parts = [_parts(text) for text in texts]
    tokenized: dict[int, TokenizedStatement] = {}
    # One call of the tokenizer for the statements of one text, and one for those of two.
    for n_parts in set(map(len, parts)):
        chosen = [index for index, spans in enumerate(parts) if len(spans) == n_parts]
        masked, origins = [], []
        for index in chosen:
            of_parts = [_with_tokenizer_mask(texts[index], part, tokenizer) for part in parts[index]]
            masked.append([text for text, _ in of_parts])
            origins.append([origin for _, origin in of_parts])
        first, *second = map(list, zip(*masked, strict=True))
        encoding = encode(
            tokenizer,
            prompted(first, tokenizer),
            *second,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        types = encoding.get("token_type_ids", [()] * len(chosen))
        for row, index in enumerate(chosen):
            tokenized[index] = _statement(texts[index], encoding[row], types[row], origins[row], tokenizer)
    return [tokenized[index] for index in range(len(texts))]


def _statement(
    text: str,
    encoding: Encoding,
    token_types: Sequence[int],
    origins: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenizedStatement:
    """The statement of one encoding; `origins` maps the character boundaries of each encoded part to `text`.

    The first part was encoded with the tokenizer's prompt before it.
    """
    prompt = prompt_of(tokenizer)
    n, whole = len(prompt), prompt + text
    boundaries = [[n + boundary for boundary in origin] for origin in origins]
    boundaries[0] = [*range(n), *boundaries[0]]
    in_whole = [
        (0, 0) if flag or part is None else _without_spaces(whole, (boundaries[part][start], boundaries[part][end]))
        for (start, end), flag, part in zip(
            encoding.offsets, encoding.special_tokens_mask, encoding.sequence_ids, strict=True
        )
    ]
    # A token that has characters of both the prompt and the statement is part of the statement.
    special = tuple(
        bool(flag) or (n > 0 and end <= n)
        for flag, (_, end) in zip(encoding.special_tokens_mask, in_whole, strict=True)
    )
    parts = {part for part, outside in zip(encoding.sequence_ids, special, strict=True) if not outside}
    if parts - {None} != set(range(len(origins))):
        side = f" on one side of its {SEPARATOR}" if len(origins) > 1 else ""
        raise StatementError(f"The tokenizer makes no token of {quoted(text)}{side}; give at least one word.")
    offsets = tuple(
        (0, 0) if outside else (max(0, start - n), max(0, end - n))
        for (start, end), outside in zip(in_whole, special, strict=True)
    )
    ids = tuple(encoding.ids)
    return TokenizedStatement(
        text, _displayed(whole, ids, in_whole, tokenizer), ids, offsets, special, tuple(token_types)
    )


@checked
def unknown_words(statement: TokenizedStatement, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The parts of a statement's text that are not in the vocabulary, in order.

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import tokenize, unknown_words
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> unknown_words(tokenize("The zebra is not open.", tokenizer), tokenizer)
        ('zebra',)
    """
    return tuple(
        statement.text[start:end]
        for token, (start, end), special in zip(statement.ids, statement.offsets, statement.special, strict=True)
        if token == tokenizer.unk_token_id and not special
    )


def _parts(text: str) -> list[Span]:
    """The span of a statement's only text, or the spans of the two texts around its `[SEP]`."""
    if not text.strip():
        raise StatementError("The statement is empty; give it at least one word.")
    if not is_utf8(text):
        raise StatementError(f"The statement {quoted(text)} is not valid UTF-8 text; correct it.")
    before, separator, after = text.partition(SEPARATOR)
    if not separator:
        return [(0, len(text))]
    if SEPARATOR in after or not before.strip() or not after.strip():
        raise StatementError(
            f"{quoted(text)} must have text on both sides of a single {SEPARATOR}; write "
            f"'premise {SEPARATOR} hypothesis'."
        )
    return [(0, len(before.rstrip())), (len(text) - len(after.lstrip()), len(text))]


def _with_tokenizer_mask(text: str, span: Span, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """A span of the text with the tokenizer's own mask token, and the boundary in `text` for each of its boundaries."""
    if MASK in text and tokenizer.mask_token is None:
        raise StatementError(
            f"{quoted(text)} has a {MASK}, but the tokenizer has no mask token; use the tokenizer of a masked "
            "language model."
        )
    parts = text[slice(*span)].split(MASK)
    boundary = span[0] + len(parts[0])
    masked, origin = parts[0], list(range(span[0], boundary + 1))
    for part in parts[1:]:
        # Boundaries inside the mask token map to the start of the [MASK].
        origin += [boundary] * (len(tokenizer.mask_token) - 1)
        boundary += len(MASK)
        origin += range(boundary, boundary + len(part) + 1)
        masked += tokenizer.mask_token + part
        boundary += len(part)
    return masked, origin


def _without_spaces(text: str, span: Span) -> Span:
    """The span without white space at its ends; some tokenizers include the space before a word in its offsets."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _displayed(
    text: str, ids: Sequence[int], offsets: Sequence[Span], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """The tokens as figures and tables display them (see `tokenize`)."""
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    if isinstance(tokenizer.backend_tokenizer.model, WordPiece):
        return tuple(pieces)
    special = set(tokenizer.all_special_ids)
    displayed, previous_end = [], 0
    for token, piece, (start, end) in zip(ids, pieces, offsets, strict=True):
        if token in special:
            displayed.append(piece)
        elif start == end or piece == SPACE:
            displayed.append(SPACE)
            continue
        else:
            displayed.append("##" * _continues_word(text, previous_end, start) + _printable(text[start:end]))
        previous_end = end
    return tuple(displayed)


def _continues_word(text: str, previous_end: int, start: int) -> bool:
    """Whether a piece at `start` continues the word, or the character, that the previous piece ends in."""
    if start < previous_end:
        return True
    return start == previous_end > 0 and text[start - 1].isalnum() and text[start].isalnum()


def _printable(piece: str) -> str:
    """The piece with invisible characters, such as the joiners inside an emoji, replaced by their code points."""
    return "".join(character if character.isprintable() else f"U+{ord(character):04X}" for character in piece)


def _overlap(offset: Span, span: Span) -> bool:
    # The offsets of a piece that is only a space are empty; it belongs to the word after it.
    start, end = offset
    return span[0] <= start < span[1] if start == end else max(start, span[0]) < min(end, span[1])
