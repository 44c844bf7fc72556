"""Whether two English words are forms of one word, such as "likes" and "like" or "went" and "go".

A lemmatizer would need a dictionary of megabytes, and answers with one lemma where "left" has two. Two sentences of a
pair put few words in each other's place, so that a few rules and a table of irregular forms decide these as well.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from negprobe.statements.languages import word_lists

_DATA = word_lists("english_forms")
_LEXEMES = [line.split() for line in _DATA["irregular"].splitlines() if line]
_NOT_INFLECTED = frozenset(_DATA["not_inflected"].split())

_BASES: dict[str, set[str]] = {}
for _lexeme in _LEXEMES:
    for _form in _lexeme:
        _BASES.setdefault(_form, set()).add(_lexeme[0])

_SIBILANT = re.compile(r"(?:s|x|z|ch|sh|o)$")
_HAS_VOWEL = re.compile(r"[aeiouy]")
_DOUBLED = re.compile(r"([bdfgklmnprstvz])\1$")
# The last consonant of such a word is doubled before -ed and -ing: "hopping" is a form of "hop", "hoping" is not.
_DOUBLES = re.compile(r"^[^aeiou]*[aeiou][^aeiouwxy]$")
# Of shorter words ("to", "he"), only those in the table ("go", "do") have forms.
_SHORTEST_BASE = 3


def same_lexeme(first: str, second: str) -> bool:
    """Whether two lower-case English words are different forms of one verb or noun, or equal.

    Example:
        >>> from negprobe.statements.word_forms import same_lexeme
        >>> same_lexeme("likes", "like"), same_lexeme("went", "go"), same_lexeme("hoping", "hop")
        (True, True, False)
    """
    return not bases(first).isdisjoint(bases(second))


@lru_cache(maxsize=2**16)
def bases(word: str) -> frozenset[str]:
    """The words that a lower-case English word may be a form of, itself included; other strings than words too.

    Example:
        >>> from negprobe.statements.word_forms import bases
        >>> sorted(bases("left"))
        ['leave', 'left']
    """
    found = {word, *_BASES.get(word, ())}
    if word not in _NOT_INFLECTED and word.isascii() and word.isalpha():
        found.update(base for base in _regular_bases(word) if len(base) >= _SHORTEST_BASE or base in _BASES)
    return frozenset(found)


def is_irregular_form(word: str) -> bool:
    """Whether a lower-case English word is an irregular form of another one, such as "seen" of "see"."""
    return bool(_BASES.get(word, set()) - {word})


def _regular_bases(word: str) -> Iterator[str]:
    """What remains of a word without -s, -es, -ies, -ed or -ing."""
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        yield word[:-1]
        if word.endswith("ies"):
            yield f"{word[:-3]}y"
        elif word.endswith("es") and _SIBILANT.search(word[:-2]):
            yield word[:-2]
    elif word.endswith("ing"):
        yield from _stems(word[:-3])
    elif word.endswith("ied"):
        yield f"{word[:-3]}y"
        yield word[:-1]
    elif word.endswith("ed"):
        yield from _stems(word[:-2])


def _stems(rest: str) -> Iterator[str]:
    """The verbs that -ed or -ing may have been added to: "hop" doubles its last letter, "hope" loses it."""
    if not _HAS_VOWEL.search(rest):
        return
    yield f"{rest}e"
    if not _DOUBLES.search(rest):
        yield rest
    if _DOUBLED.search(rest):
        yield rest[:-1]
