"""A statement as the tokenizer sees it: what each token says, and which characters it stands for."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.texts import is_utf8, quoted
from negprobe.models.tokenizing import encode
from negprobe.statements.pair import Span

MASK = "[MASK]"
"""How a statement writes the masked position, whatever the tokenizer calls its own mask token."""

SEPARATOR = "[SEP]"
"""How a statement of two texts, such as a premise and a hypothesis, writes the border between them."""

SPACE = "▁"
"""How a token that holds nothing but the space before a word is shown."""


@dataclass(frozen=True)
class TokenizedStatement:
    """A statement and its tokens, without padding.

    Attributes:
        text: The statement as it was given.
        tokens: What each token says, for reading (see `tokenize`).
        ids: The tokens' numbers in the vocabulary.
        offsets: The characters of `text` each token stands for, without spaces; `(0, 0)` for special tokens.
        special: Whether the tokenizer put the token there itself, as it does with [CLS] and [SEP]. A mask
            token is part of the statement.
        token_types: Which of two texts each token belongs to, for models that are told; empty if this one is not.
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
        """Positions of the tokens that overlap the characters `span`.

        Raises:
            StatementError: if there is none, unless `missing_ok`.
        """
        found = tuple(
            position
            for position, (offset, special) in enumerate(zip(self.offsets, self.special, strict=True))
            if not special and _overlap(offset, span)
        )
        if not found and not missing_ok:
            raise StatementError(
                f"No token stands in characters {span} of {quoted(self.text)} ({len(self.text)} characters); "
                "give a span that holds a word."
            )
        return found


@checked
def tokenize(text: str, tokenizer: PreTrainedTokenizerBase) -> TokenizedStatement:
    """Tokenize one statement, special tokens included, nothing cut and nothing padded.

    A literal `[MASK]` in the text becomes the tokenizer's own mask token. A literal `[SEP]` between two texts makes
    them a pair, with the separators and token types that the tokenizer gives a pair. The shown tokens follow BERT's
    convention for every tokenizer: a piece that starts a word is plain, one that goes on in it begins with
    `##`, a piece that is the space before a word and nothing else is `▁`. WordPiece tokens are shown as they
    are in the vocabulary, others by the characters they stand for, so that every byte of a split character
    shows that character.

    Raises:
        StatementError: for an empty text, one that UTF-8 cannot write, one of which the tokenizer leaves nothing, more
            than one `[SEP]`, a `[MASK]` that the tokenizer has no token for, or a tokenizer without offsets.
        InputError: if the tokenizer fails on the text.
    """
    return tokenize_all([text], tokenizer)[0]


@checked
def tokenize_all(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[TokenizedStatement]:
    """`tokenize` for many statements, in one call of the tokenizer for those of one text and one for those of two.

    Raises:
        StatementError: as `tokenize`.
        InputError: as `tokenize`.
    """
    if not tokenizer.is_fast:
        raise StatementError(
            f"{type(tokenizer).__name__} does not say which characters a token stands for; load the model's "
            "fast tokenizer (AutoTokenizer.from_pretrained, with its tokenizer.json)."
        )
    parts = [_parts(text) for text in texts]
    tokenized: dict[int, TokenizedStatement] = {}
    for n_parts in set(map(len, parts)):
        chosen = [index for index, of_text in enumerate(parts) if len(of_text) == n_parts]
        written, origins = [], []
        for index in chosen:
            own = [_with_own_mask(texts[index], part, tokenizer) for part in parts[index]]
            written.append([text for text, _ in own])
            origins.append([origin for _, origin in own])
        encoding = encode(
            tokenizer,
            *map(list, zip(*written, strict=True)),
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
    """What the tokenizer made of one text; `origins` has for each part's boundaries the ones in `text`."""
    ids, of_part = tuple(encoding.ids), encoding.sequence_ids
    special = tuple(bool(flag) for flag in encoding.special_tokens_mask)
    if {part for part in of_part if part is not None} != set(range(len(origins))):
        raise StatementError(f"The tokenizer leaves nothing of {quoted(text)}, or of one side of it; give words.")
    offsets = tuple(
        (0, 0) if is_special or part is None else _without_spaces(text, (origins[part][start], origins[part][end]))
        for (start, end), is_special, part in zip(encoding.offsets, special, of_part, strict=True)
    )
    return TokenizedStatement(text, _shown(text, ids, offsets, tokenizer), ids, offsets, special, tuple(token_types))


@checked
def unknown_words(statement: TokenizedStatement, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The pieces of a statement's text that the vocabulary does not hold, in order."""
    return tuple(
        statement.text[start:end]
        for token, (start, end) in zip(statement.ids, statement.offsets, strict=True)
        if token == tokenizer.unk_token_id
    )


def _parts(text: str) -> list[Span]:
    """The characters of the one text of a statement, or of the two that a `[SEP]` stands between."""
    if not text.strip():
        raise StatementError("The statement is empty; give it at least one word.")
    if not is_utf8(text):
        raise StatementError(f"The statement {quoted(text)} is not text that UTF-8 can write; correct it.")
    before, separator, after = text.partition(SEPARATOR)
    if not separator:
        return [(0, len(text))]
    if SEPARATOR in after or not before.strip() or not after.strip():
        raise StatementError(
            f"{quoted(text)} is not two texts with one {SEPARATOR} between them; write "
            f"'premise {SEPARATOR} hypothesis'."
        )
    return [(0, len(before.rstrip())), (len(text) - len(after.lstrip()), len(text))]


def _with_own_mask(text: str, span: Span, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """A part of the text with the tokenizer's mask token, and for each of its boundaries the one in `text`."""
    if MASK in text and tokenizer.mask_token is None:
        raise StatementError(
            f"{quoted(text)} has a {MASK} and the tokenizer has no mask token; use the tokenizer of a masked "
            "language model."
        )
    parts = text[slice(*span)].split(MASK)
    at = span[0] + len(parts[0])
    written, origin = parts[0], list(range(span[0], at + 1))
    for part in parts[1:]:
        # A boundary inside the mask token belongs to where the [MASK] begins.
        origin += [at] * (len(tokenizer.mask_token) - 1)
        at += len(MASK)
        origin += range(at, at + len(part) + 1)
        written += tokenizer.mask_token + part
        at += len(part)
    return written, origin


def _without_spaces(text: str, span: Span) -> Span:
    """The span without the spaces around it, which some tokenizers count to the word that follows."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _shown(
    text: str, ids: tuple[int, ...], offsets: tuple[Span, ...], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """What stands for each token in figures and tables."""
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    if isinstance(tokenizer.backend_tokenizer.model, WordPiece):
        return tuple(pieces)
    special = set(tokenizer.all_special_ids)
    shown, previous_end = [], 0
    for token, piece, (start, end) in zip(ids, pieces, offsets, strict=True):
        if token in special:
            shown.append(piece)
        elif start == end or piece == SPACE:
            shown.append(SPACE)
            continue
        else:
            shown.append("##" * _goes_on(text, previous_end, start) + _printable(text[start:end]))
        previous_end = end
    return tuple(shown)


def _goes_on(text: str, previous_end: int, start: int) -> bool:
    """Whether a piece at `start` continues the word, or the character, that the piece before ends in."""
    if start < previous_end:
        return True
    return start == previous_end > 0 and text[start - 1].isalnum() and text[start].isalnum()


def _printable(piece: str) -> str:
    """The piece with characters that cannot be seen, such as the joiners inside an emoji, by their code."""
    return "".join(mark if mark.isprintable() else f"U+{ord(mark):04X}" for mark in piece)


def _overlap(offset: Span, span: Span) -> bool:
    # A lone space piece has no characters of its own: it belongs to the word it stands in front of.
    start, end = offset
    return span[0] <= start < span[1] if start == end else max(start, span[0]) < min(end, span[1])
