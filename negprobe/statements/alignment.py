"""Alignment of a statement's tokens with those of its counterfactual, where words were added, removed or replaced."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any, Literal, get_args

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.languages import word_lists
from negprobe.statements.tokens import TokenizedStatement
from negprobe.statements.word_forms import same_lexeme
from negprobe.statements.words import NOT, Word, words_of

Match = tuple[int, int]

LinkKind = Literal["same", "case", "inflected", "replaced"]
"""Why two tokens are aligned.

"same": equal tokens, or tokens of equal words; "case": tokens of words that differ in upper and lower case;
"inflected": tokens of two forms of a word; "replaced": tokens of different words in the same place.
"""

LINK_KINDS: tuple[LinkKind, ...] = get_args(LinkKind)

# Most cells of the table of edit costs; a larger one takes seconds and hundreds of megabytes.
_MOST_CELLS = 2**20

_PHRASES = word_lists("english_controls")["neutral"]
_PLACES_OF_NOT = (
    "be", "have", "modal", "do", "request", "proposal", "ellipsis", "do_ellipsis", "infinitive", "participle", "gerund",
    "adjunct", "universal", "amount", "manner",
)  # fmt: skip
# Words that are in the place of "not" in a control, or negate as well. Any other word is there by chance, as in "has
# already eaten" and "has not eaten yet".
_IN_PLACE_OF_NOT = (
    NOT
    | {"no", "never", "hardly", "barely", "scarcely"}
    | {phrase for place in _PLACES_OF_NOT for phrase in _PHRASES[place] if " " not in phrase}
)

_CLASSES = {name: frozenset(words.split()) for name, words in word_lists("english_word_classes").items()}
_FUNCTION_WORDS = _CLASSES["modals"] | _CLASSES["determiners"] | _CLASSES["prepositions"] | _CLASSES["conjunctions"]
# Words that can be in the place of function words and of content words: "was" and "became", "she" and "Anna", "cannot"
# and "must", "very" and "red".
_IN_ANY_PLACE = (
    (_CLASSES["auxiliaries"] - _CLASSES["modals"]) | _CLASSES["pronouns"] | _CLASSES["adverbs"] | _CLASSES["numerals"]
    | _CLASSES["quantities"]
    | _IN_PLACE_OF_NOT | {"cannot"}
)  # fmt: skip


@dataclass(frozen=True)
class Alignment:
    """The corresponding positions of two tokenized statements, in ascending order.

    Attributes:
        original: Aligned positions of the original; the i-th corresponds to the i-th of `counterfactual`.
        counterfactual: Aligned positions of the counterfactual.
        unmatched_original: Positions of the original that correspond to no token of the counterfactual.
        unmatched_counterfactual: Positions of the counterfactual that correspond to no token of the original, such as
            that of an inserted cue.
        kinds: Why the i-th positions correspond, one of `LINK_KINDS` each; empty in files of earlier versions.
    """

    original: tuple[int, ...]
    counterfactual: tuple[int, ...]
    unmatched_original: tuple[int, ...]
    unmatched_counterfactual: tuple[int, ...]
    kinds: tuple[LinkKind, ...] = ()


_Link = tuple[int, int, LinkKind]
"""A position of the original, the position of the counterfactual aligned with it, and why."""


@checked
def align(
    original: TokenizedStatement, counterfactual: TokenizedStatement, *, links: Sequence[LinkKind] = LINK_KINDS
) -> Alignment:
    """The alignment of the tokens of two statements, in their order.

    Words are aligned first, by the fewest insertions, deletions and replacements that leave equal words, words that
    differ in case, and forms of one word ("likes" and "like") where they are (see `match_equal`). Their tokens are then
    aligned one by one. If the numbers of tokens differ, as in "jig ##gles" and "jiggle", only those at the common
    beginning are aligned, or the first of each.

    The words between two aligned ones were replaced. If both statements have the same number of tokens there, these are
    aligned one by one ("now" with "not"), otherwise only those at the common beginning ("can" with "can ' t"), if any.
    "not" is aligned only with a word that can be in its place in a control or another negation, a content word not with
    a function word ("resigned" with "until"), and a punctuation mark only with another one. Special tokens are aligned
    only with special tokens.

    Args:
        original: The original.
        counterfactual: The counterfactual.
        links: The kinds of links to keep, by default all; tokens that are linked in another way are unmatched.

    Raises:
        StatementError: if the statements differ over too many words (see `match_equal`).

    Example:
        >>> from negprobe import HookedEncoder
        >>> from negprobe.statements import align, tokenize
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> door = tokenize("The door opens.", tokenizer)
        >>> alignment = align(door, tokenize("The door does not open.", tokenizer))
        >>> alignment.unmatched_counterfactual, alignment.kinds
        ((3, 4), ('same', 'same', 'same', 'inflected', 'same', 'same'))
    """
    found = [link for link in _links(original, counterfactual) if link[2] in links]
    return alignment_of(found, len(original), len(counterfactual))


def align_by_position(original: TokenizedStatement, counterfactual: TokenizedStatement) -> Alignment:
    """The alignment of two statements of equal length, position by position."""
    pairs = zip(original.ids, counterfactual.ids, strict=True)
    links: list[_Link] = [(at, at, "same" if a == b else "replaced") for at, (a, b) in enumerate(pairs)]
    return alignment_of(links, len(original), len(counterfactual))


def alignment_of(links: Sequence[_Link], n_original: int, n_counterfactual: int) -> Alignment:
    """The alignment with these links, in ascending order, of two statements with these numbers of tokens."""
    of_original, of_counterfactual, kinds = zip(*links, strict=True) if links else ((), (), ())
    return Alignment(
        original=of_original,
        counterfactual=of_counterfactual,
        unmatched_original=_others(of_original, n_original),
        unmatched_counterfactual=_others(of_counterfactual, n_counterfactual),
        kinds=kinds,
    )


def _others(positions: Sequence[int], n: int) -> tuple[int, ...]:
    chosen = set(positions)
    return tuple(position for position in range(n) if position not in chosen)


def match_equal(first: Sequence[Any], second: Sequence[Any]) -> list[Match]:
    """Pairs of positions of equal items in two sequences, in ascending order.

    They are the items that a minimum edit distance alignment (insertion, deletion and replacement cost 1) leaves
    unchanged. Of several such alignments, the one with the fewest separate runs of edits is taken; of those, the one
    that matches the common end of both sequences, and then the one that matches earliest. Swapping the sequences swaps
    the positions.

    Raises:
        StatementError: if the table of edit costs for the part in which the sequences differ would be too large.

    Example:
        >>> from negprobe.statements.alignment import match_equal
        >>> match_equal("the door is open".split(), "the door is not open".split())
        [(0, 0), (1, 1), (2, 2), (3, 4)]
    """
    return _match(first, second, lambda a, b: 0 if a == b else None, replacing=0)


# The lower the grade of two items, the better they match; None if they do not match.
_Grade = Callable[[Any, Any], int | None]


def _match(first: Sequence[Any], second: Sequence[Any], grade: _Grade, *, replacing: int) -> list[Match]:
    """`match_equal` for items that match in several grades.

    Of several alignments with the fewest edits, the one with the lowest sum of grades is taken, where each replacement
    adds `replacing`; of those, the one with the fewest runs of edits.
    """
    if (len(first), tuple(first)) > (len(second), tuple(second)):
        return [(i, j) for j, i in _match(second, first, grade, replacing=replacing)]
    # Some minimum alignment matches the common beginning and end, which are most of a minimal pair.
    shortest = min(len(first), len(second))
    begin = next((i for i in range(shortest) if grade(first[i], second[i]) != 0), shortest)
    end = next((k for k in range(shortest - begin) if grade(first[-1 - k], second[-1 - k]) != 0), shortest - begin)
    n, m = len(first) - end, len(second) - end
    if (n - begin) * (m - begin) > _MOST_CELLS:
        raise StatementError(
            f"Two statements of {len(first)} and {len(second)} words or tokens differ over {n - begin} and {m - begin} "
            f"of them; alignment supports differences over about {isqrt(_MOST_CELLS)} at most. Shorten the statements."
        )
    middle = _cheapest_matches(first[begin:n], second[begin:m], grade, replacing) if n > begin and m > begin else []
    return [
        *((i, i) for i in range(begin)),
        *((begin + i, begin + j) for i, j in middle),
        *((n + k, m + k) for k in range(end)),
    ]


# Edits, the sum of grades, and separate runs of edits.
_Cost = tuple[int, int, int]


def _cheapest_matches(first: Sequence[Any], second: Sequence[Any], grade: _Grade, replacing: int) -> list[Match]:
    grades = [[grade(a, b) for b in second] for a in first]
    cost = _edit_costs(grades, replacing)
    matches, i, j, editing = [], 0, 0, False
    while i < len(first) and j < len(second):
        match = grades[i][j]
        if match is not None and cost[editing][i][j] == _graded(cost[False][i + 1][j + 1], match):
            matches.append((i, j))
            i, j, editing = i + 1, j + 1, False
            continue
        steps = [(i + 1, j + 1, replacing), (i, j + 1, 0), (i + 1, j, 0)]
        i, j, _ = min(steps, key=lambda step: _graded(cost[True][step[0]][step[1]], step[2]))
        editing = True
    return matches


def _edit_costs(grades: Sequence[Sequence[int | None]], replacing: int) -> list[list[list[_Cost]]]:
    """`[editing][i][j]`: the cost of aligning what follows the first `i` and `j` items of two sequences.

    `editing` is whether the previous step was an edit, in which case another edit starts no new run.
    """
    n, m = len(grades), len(grades[0])
    # The extra row and column at the end mean "not possible".
    impossible = (n + m + 1, 0, 0)
    cost = [[[impossible] * (m + 2) for _ in range(n + 2)] for _ in (False, True)]
    for i in range(n, -1, -1):
        for j in range(m, -1, -1):
            if i == n and j == m:
                cost[False][i][j] = cost[True][i][j] = (0, 0, 0)
                continue
            replaced = _graded(cost[True][i + 1][j + 1], replacing)
            edits, graded, runs = min(replaced, cost[True][i + 1][j], cost[True][i][j + 1])
            grade = grades[i][j] if i < n and j < m else None
            match = impossible if grade is None else _graded(cost[False][i + 1][j + 1], grade)
            cost[True][i][j] = min(match, (edits + 1, graded, runs))
            cost[False][i][j] = min(match, (edits + 1, graded, runs + 1))
    return cost


def _graded(cost: _Cost, grade: int) -> _Cost:
    return cost[0], cost[1] + grade, cost[2]


# More than any grade: of two equally cheap alignments, the one that leaves more words as they are is better.
_REPLACING = 2 * len(LINK_KINDS)


def _links(original: TokenizedStatement, counterfactual: TokenizedStatement) -> list[_Link]:
    first, second = words_of(original), words_of(counterfactual)
    links: list[_Link] = []
    i, j = 0, 0
    for at, there in _match(first, second, _grade, replacing=_REPLACING):
        links += _replaced(first[i:at], second[j:there])
        links += _matched(first[at], second[there])
        i, j = at + 1, there + 1
    return links + _replaced(first[i:], second[j:])


def _grade(a: Word, b: Word) -> int | None:
    kind = _kind(a, b)
    if kind == "replaced":
        return None
    # The "do" of a negation matches another "do" only if there is nothing better.
    return LINK_KINDS.index(kind) + len(LINK_KINDS) * (a.supports_not != b.supports_not)


def _kind(a: Word, b: Word) -> LinkKind:
    if not a.text or not b.text or a.special or b.special:
        return "same" if (a.special, a.ids) == (b.special, b.ids) else "replaced"
    # Equal tokens do not make equal words: all unknown words have the same one.
    if a.text == b.text or (a.ids == b.ids and _folded(a.text) == _folded(b.text)):
        return "same"
    if a.text.casefold() == b.text.casefold():
        return "case"
    return "inflected" if same_lexeme(a.text.lower(), b.text.lower()) else "replaced"


@lru_cache(maxsize=2**16)
def _folded(text: str) -> str:
    """The text in lower case without accents, as tokenizers normalise it."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _matched(a: Word, b: Word) -> list[_Link]:
    """The links of the tokens of two words that match."""
    kind = _kind(a, b)
    n = len(a.ids) if len(a.ids) == len(b.ids) else max(1, _common_beginning(a.ids, b.ids))
    return [(i, j, kind) for i, j in zip(a.positions[:n], b.positions[:n], strict=True)]


def _replaced(first: Sequence[Word], second: Sequence[Word]) -> list[_Link]:
    """The links of the tokens of words that do not match, between two words that do."""
    if not first or not second:
        return []
    left, right = _tokens(first), _tokens(second)
    if len(left) != len(right):
        n = _common_beginning([token for _, token, _ in left], [token for _, token, _ in right])
        left, right = left[:n], right[:n]
    return [
        (i, j, "same" if token == other else "replaced")
        for (i, token, a), (j, other, b) in zip(left, right, strict=True)
        if _can_replace(a, b)
    ]


def _tokens(words: Sequence[Word]) -> list[tuple[int, int, Word]]:
    """The position and the id of each token of some words, and the word."""
    return [(at, token, word) for word in words for at, token in zip(word.positions, word.ids, strict=True)]


def _common_beginning(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of equal items at the beginning of two sequences."""
    shortest = min(len(first), len(second))
    return next((at for at in range(shortest) if first[at] != second[at]), shortest)


def _can_replace(a: Word, b: Word) -> bool:
    if a.special or b.special:
        return a.special == b.special
    texts = {a.text.lower(), b.text.lower()}
    if texts & NOT and not texts <= _IN_PLACE_OF_NOT:
        return False
    return _is_punctuation(a) == _is_punctuation(b) and {_is_function_word(a), _is_function_word(b)} != {True, False}


def _is_function_word(word: Word) -> bool | None:
    """Whether a word is a function word, not a content word; None for one that can be in the place of either."""
    text = word.text.lower()
    if text in _IN_ANY_PLACE or text.endswith("ly") or not text.isalpha():
        return None
    return text in _FUNCTION_WORDS


def _is_punctuation(word: Word) -> bool:
    return not any(character.isalnum() for character in word.text)
