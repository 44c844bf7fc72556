"""The words of a tokenized statement: groups of tokens by the characters that they cover."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from negprobe.statements.tokens import MASK, SEPARATOR, TokenizedStatement

# Scripts without spaces between words, in which each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"[^\W_{_UNSPACED}]"
# "n't" is a word of its own, with any character that is typed as an apostrophe; so is each punctuation mark.
_NT = r"n[^\w\s]t(?!\w)"
_WORD = re.compile(rf"{re.escape(MASK)}|{re.escape(SEPARATOR)}|{_NT}|{_LETTER}+?(?={_NT})|{_LETTER}+|\S", re.IGNORECASE)

NOT = frozenset({"not", "n't"})
_DO = frozenset({"do", "does", "did"})


class Word(NamedTuple):
    """A word of a statement, or a special token.

    Attributes:
        special: Whether the tokenizer added it.
        ids: The ids of its tokens.
        text: Its characters; empty for a special token.
        supports_not: Whether it is the "do" that a negation needs: "does" in "does not like", but not in "does it".
        start: The position of its first token.
    """

    special: bool
    ids: tuple[int, ...]
    text: str
    supports_not: bool
    start: int

    @property
    def positions(self) -> range:
        """The positions of its tokens."""
        return range(self.start, self.start + len(self.ids))


def words_of(statement: TokenizedStatement) -> list[Word]:
    """The words of a statement in order; together they have all of its tokens.

    Tokens that cover the same word of the text make one word, and so do the words that one token covers: "isn't" is
    "is" and "n't" if these are tokens, and one word if the tokens are "isn", "'" and "t".

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import tokenize
        >>> from negprobe.statements.words import words_of
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> [word.text for word in words_of(tokenize("The door isn't open.", tokenizer))]
        ['', 'The', 'door', "isn't", 'open', '.', '']
    """
    ranges = list(pairwise([*_beginnings(statement), len(statement)]))
    texts = [_text(statement, begin, end) for begin, end in ranges]
    return [
        Word(statement.special[begin], statement.ids[begin:end], text, _supports_not(text, after), begin)
        for (begin, end), text, after in zip(ranges, texts, [*texts[1:], ""], strict=True)
    ]


def _beginnings(statement: TokenizedStatement) -> Iterator[int]:
    """The positions of tokens that begin a word."""
    spans = [found.span() for found in _WORD.finditer(statement.text)]
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    last = -1
    for at, ((start, end), special) in enumerate(zip(statement.offsets, statement.special, strict=True)):
        if special:
            yield at
            last = -1
            continue
        first = bisect_right(ends, start)
        if first > last:
            yield at
        # A token that is only a space covers no characters; it belongs to the word after it.
        last = max(last, first, bisect_left(starts, end) - 1)


def _text(statement: TokenizedStatement, begin: int, end: int) -> str:
    # Of a character that is split into several tokens, each covers all of it.
    return statement.text[statement.offsets[begin][0] : statement.offsets[end - 1][1]]


def _supports_not(text: str, after: str) -> bool:
    return text.lower() in _DO and after.lower() in NOT
