"""The word that a negation cue acts on, found by the classes of English function words.

A tagger would be more often right, but needs a model; the words around a negation are mostly function words, which are
few and can be listed.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from negprobe.statements.cues import APOSTROPHES, Cue
from negprobe.statements.languages import word_lists
from negprobe.statements.pair import Span
from negprobe.statements.tokens import MASK, SEPARATOR
from negprobe.statements.word_forms import is_irregular_form

_DATA = word_lists("english_word_classes")
_CLASSES = {name: frozenset(words.split()) for name, words in _DATA.items()}
_AUXILIARIES = _CLASSES["auxiliaries"]
_DETERMINERS = _CLASSES["determiners"] | _CLASSES["quantities"] | _CLASSES["numerals"]
_SKIPPED = _AUXILIARIES | _DETERMINERS | _CLASSES["pronouns"] | _CLASSES["prepositions"] | _CLASSES["adverbs"]
# A phrase of these words alone leaves something out: "He told me not to."
_NEVER_AFFECTED = _AUXILIARIES | frozenset(["a", "an", "the", "every", "my", "your", "our", "their", "its", "to"])
_ADJECTIVE_ENDINGS = tuple(_CLASSES["adjective_suffixes"])

_NUMERALS = _CLASSES["numerals"]
_DO = frozenset({"do", "does", "did"})
_HAVE = frozenset({"have", "has", "had", "having"})
# Subjects that a prepositional phrase may follow: "Nobody in the room laughed".
_SUBJECTS = frozenset({"nobody", "nothing", "no one"})
_YEARS_OLD = (["years", "old"], ["year", "old"], ["months", "old"])
# Cues of clauses that leave out all but the subject: "and neither does my sister".
_ELLIPTIC = frozenset({"neither", "nor"})
# Cues that an inverted auxiliary follows at the beginning of a clause: "Never have I seen".
_FRONTED = frozenset({"never", "nowhere", "nor", "hardly", "barely", "scarcely", "no longer"})
_ATTACHED = frozenset({"n't", "nt"})

_LETTERS = r"[^\W_]+"
_WORD = re.compile(
    rf"""
    {re.escape(MASK)} | {re.escape(SEPARATOR)}
    | \d+(?:[.,:]\d+)+ | {_LETTERS}(?:[-{APOSTROPHES}]{_LETTERS})*
    | [.?!;:,\u2013\u2014]
    """,
    re.VERBOSE,
)
_ENDS = frozenset({*".?!;:\u2013\u2014", SEPARATOR.lower()})
_LONGEST_INSERTION = 3


class _Word(NamedTuple):
    """A word or punctuation mark, in lower case without what follows an apostrophe, and its characters."""

    text: str
    span: Span

    @property
    def is_possessive(self) -> bool:
        """Whether an "'s" was left out of a noun."""
        return self.text not in _SKIPPED and len(self.text) < self.span[1] - self.span[0]


def affected_word(text: str, cue: Cue) -> Span | None:
    """The span of the word that a cue acts on, the first content word of the phrase after it; None without one.

    This is a heuristic for English. It skips determiners, pronouns, auxiliaries, prepositions and adverbs ("isn't very
    safe" -> "safe"); the subject of an inverted sentence ("Isn't the door open?" -> "open"); and a prepositional phrase
    after a negative subject ("Nobody in the room laughed" -> "laughed"). "have" and "do" count where they are not
    auxiliaries ("does not have a car" -> "have"), and so does [MASK]. It does not go beyond the clause ("She is not,
    and he knows it."). If nothing remains, it takes the first word that may be stressed ("is not here" -> "here").

    Example:
        >>> from negprobe.statements import find_cues
        >>> from negprobe.statements.affected_word import affected_word
        >>> text = "Isn't the door very often open?"
        >>> start, end = affected_word(text, find_cues(text)[0])
        >>> text[start:end]
        'open'
    """
    before = _words(text[: cue.span[0]])
    before = before[max((at + 1 for at, word in enumerate(before) if word.text in _ENDS), default=0) :]
    after = _words(text, cue.span[1])
    clause = _clause(after)
    kind = cue.kind
    if kind == "no" and clause and clause[0].text == "one":
        kind, clause = "no one", clause[1:]
    is_question = next((word.text for word in after if word.text in _ENDS), "") == "?"
    subject = _inverted_subject(kind, before, clause, is_question=is_question)
    inverted = subject is not None
    begin = 0
    if subject is not None:
        begin = _after_prepositional_phrases(clause, _after_noun_phrase(clause, subject))
    elif kind in _SUBJECTS and (_begins_clause(before) or before[-1].text in _CLASSES["subordinators"]):
        begin = _after_prepositional_phrases(clause, 0)
    has_do = any(word.text in _DO for word in before[-3:])
    content = [at for at in range(len(clause)) if _is_content(clause, at, has_do=has_do, inverted=inverted)]
    stressed = [at for at in range(len(clause)) if _is_stressed(clause, at) and not inverted]
    best = [at for at in content if at >= begin]
    if not (inverted and kind in _ELLIPTIC):
        best = best or content or stressed
    return clause[best[0]].span if best else None


def _words(text: str, start: int = 0) -> list[_Word]:
    found = _WORD.finditer(text, start)
    return [_Word(re.split(f"[{APOSTROPHES}]", word[0].lower())[0], word.span()) for word in found]


def _clause(words: Sequence[_Word]) -> list[_Word]:
    """The words of the cue's clause, without insertions (", however,").

    A comma or conjunction ends it only before its first content word, because later words are not needed.
    """
    clause: list[_Word] = []
    at = 0
    while at < len(words):
        text = words[at].text
        if text in _ENDS or text in _CLASSES["conjunctions"]:
            break
        if text == ",":
            inserted = [word.text for word in words[at + 1 : at + 2 + _LONGEST_INSERTION]]
            if "," not in inserted[1:] or inserted[0] in _CLASSES["conjunctions"]:
                break
            at += 1 + inserted.index(",")
        else:
            clause.append(words[at])
        at += 1
    return clause


def _inverted_subject(kind: str, before: Sequence[_Word], clause: Sequence[_Word], *, is_question: bool) -> int | None:
    """Where the subject begins if it follows the auxiliary ("Isn't the door open?", "Never have I seen it."), or None.

    "Don't open the door" and "Never do this" begin with an auxiliary or a cue, too, but have no subject.
    """
    if kind in _FRONTED:
        at = 0
        while at < len(clause) and _is_adverb(clause[at].text):
            at += 1
        at = _after_prepositional_phrases(clause, at)
        first, second, *others = [*(word.text for word in clause[at:]), "", ""]
        has_subject = second in _CLASSES["subjects"] or (first == "have" and any(map(_is_participle, others)))
        has_subject = has_subject or (kind == "nor" and first in _DO and second in _DETERMINERS)
        inverted = first in _AUXILIARIES and (has_subject or first not in {"be", "do", "have"})
        return at + 1 if inverted and _begins_clause(before) else None
    if kind == "neither":
        return 1 if _begins_clause(before) and _is_elliptic(clause) else None
    if kind not in _ATTACHED and kind != "not":
        return None
    auxiliary = before[-1].text if before else ""
    if auxiliary not in _AUXILIARIES or (kind == "not" and auxiliary in {"do", "be"}):
        return None
    has_subject = bool(clause) and (is_question or clause[0].text in _DETERMINERS | _CLASSES["pronouns"])
    return 0 if has_subject and _begins_clause(before[:-1]) else None


def _is_elliptic(clause: Sequence[_Word]) -> bool:
    """Whether an auxiliary and then its subject follow "neither": "does my sister", "am I", but not "is rich"."""
    first, second, *_ = [*(word.text for word in clause), "", ""]
    return first in _AUXILIARIES and (first in _DO or second in _CLASSES["subjects"] | _CLASSES["possessives"])


def _begins_clause(before: Sequence[_Word]) -> bool:
    return not before or before[-1].text == "," or before[-1].text in _CLASSES["questions"]


def _after_noun_phrase(clause: Sequence[_Word], at: int) -> int:
    """The index after the noun phrase that begins at an index: "the old door", "John Smith", "she"."""
    start = at
    while at < len(clause) and (
        clause[at].text in _DETERMINERS or _is_number(clause[at].text) or clause[at].is_possessive
    ):
        at += 1
    if start < at < len(clause) and clause[at].text in _AUXILIARIES | _CLASSES["prepositions"]:
        # "at all in", "any of the boxes".
        return at
    if at == start and at < len(clause) and clause[at].text in _SKIPPED:
        return at + 1
    # An adjective before another content word: "the old door open", but not "the door open".
    while at + 1 < len(clause) and _is_adjective(clause[at].text) and clause[at + 1].text not in _SKIPPED:
        at += 1
    return at + 1


def _after_prepositional_phrases(clause: Sequence[_Word], at: int) -> int:
    while at < len(clause) and (clause[at].text in _CLASSES["prepositions"] or _is_adverb(clause[at].text)):
        at += 1
        if _is_adverb(clause[at - 1].text):
            continue
        if _is_bare_number(clause, at):
            at += 1
        # "Nobody inside was awake" has a preposition without a noun.
        elif at < len(clause) and clause[at].text not in _AUXILIARIES:
            at = _after_noun_phrase(clause, at)
            if [word.text for word in clause[at - 1 : at + 1]] in _YEARS_OLD:
                at += 1
    return at


def _is_bare_number(clause: Sequence[_Word], at: int) -> bool:
    """Whether a number without a noun is at an index, after a preposition: "under thirty", "the age of ten"."""
    number, following, *_ = [*(word.text for word in clause[at : at + 2]), "", ""]
    before = clause[at - 2 if clause[at - 1].text == "of" else at - 1].text
    has_noun = following in _CLASSES["units"] or _is_number(following)
    return _is_number(number) and before in _CLASSES["bounds"] and not has_noun


def _is_number(word: str) -> bool:
    return word in _NUMERALS or word[:1].isdigit()


def _is_adjective(word: str) -> bool:
    return word in _CLASSES["adjectives"] or word.endswith(_ADJECTIVE_ENDINGS)


def _is_content(clause: Sequence[_Word], at: int, *, has_do: bool, inverted: bool) -> bool:
    word = clause[at].text
    following = next((other.text for other in clause[at + 1 :] if not _is_adverb(other.text)), "")
    if word in _HAVE and not inverted:
        return following != "to" and (has_do or _is_object(following))
    if word in _DO and not inverted:
        return has_do or following in _CLASSES["objects"]
    return not (word in _SKIPPED or _is_adverb(word) or word[0].isdigit())


def _is_stressed(clause: Sequence[_Word], at: int) -> bool:
    """Whether a function word can be what is negated: "is not here", "is not on", "is not for me"."""
    word = clause[at].text
    return word not in _NEVER_AFFECTED and (at == len(clause) - 1 or word not in _CLASSES["prepositions"])


def _is_object(word: str) -> bool:
    """Whether a word after "have" makes that the main verb, and not the auxiliary of a participle."""
    if word in _SKIPPED or not word:
        return word in _CLASSES["objects"]
    return not _is_participle(word)


def _is_participle(word: str) -> bool:
    return word.endswith("ed") or is_irregular_form(word) or word in _CLASSES["unchanged_participles"]


def _is_adverb(word: str) -> bool:
    return word in _CLASSES["adverbs"] or (word.endswith("ly") and word not in _CLASSES["not_adverbs"])
