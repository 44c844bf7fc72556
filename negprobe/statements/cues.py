"""Negation cues: where a statement says "not", found as words and never inside other words."""

import re
from collections import Counter
from dataclasses import dataclass

from negprobe.base.arguments import checked
from negprobe.statements.alignment import match_equal
from negprobe.statements.pair import Span

CUE_KINDS = (
    "not", "n't", "cannot", "never", "no", "none", "nobody", "nothing", "nowhere", "neither", "nor",
    "without", "hardly", "barely", "scarcely", "no longer",
)  # fmt: skip


@checked
@dataclass(frozen=True)
class Cue:
    """A negation cue in a text.

    Attributes:
        text: The cue as it stands there ("Not", "N'T").
        kind: Which of `CUE_KINDS` it is.
        span: Its characters in the text.
    """

    text: str
    kind: str
    span: Span


APOSTROPHES = "'\u2018\u2019\u02bc\u2032\u00b4`\uff07"
"""Characters typed as apostrophes, including quotes, primes, accents and the full-width form."""

# Accents written as separate characters belong to the word they follow.
_LETTER = r"[\w\u0300-\u036f]"
_APOSTROPHE = f"[{APOSTROPHES}]"
# An underscore is part of a word ("not_a"), except as Markdown emphasis ("_not_", "__not__").
_START = rf"(?: (?<!{_LETTER}) (?<!{_LETTER}-) | (?<=\b_) | (?<=\b__) )"
_END = rf"(?! (?!__?(?!\w)) {_LETTER} | -{_LETTER} )"
_ATTACHED_END = rf"(?! (?!__?(?!\w)) {_LETTER} )"
# "No. 5", "no. 5", "No 5" and "the no. of doors" stand for "number"; "no 5 doors" is a negation.
_NUMBER = r"(?: no\.\s*(?:\d|of\b) | (?-i:N[oO])\s+\d )"
# Auxiliaries as they stand in front of "n't"; only after these is an "n ' t" in pieces read as one.
_STEM = "is|are|was|were|do|does|did|has|have|had|ca|could|wo|would|sha|should|may|might|must|need|ought|dare|ai"
_WORD = "not|cannot|never|nobody|nothing|nowhere|none|neither|nor|without|hardly|barely|scarcely|no"

_CUE = re.compile(
    rf"""
      {_START}
      (?: (?P<longer> no\s+longer (?!\s+than\b) {_END})
        | (?P<word>   no(?=-one\b) | (?!{_NUMBER}) (?:{_WORD}) {_END}))
    | (?P<attached>   n{_APOSTROPHE}t) {_ATTACHED_END}
    | {_START} (?:{_STEM})\s* (?P<split> n\s*{_APOSTROPHE}\s*t) {_ATTACHED_END}
    """,
    re.IGNORECASE | re.VERBOSE,
)


@checked
def find_cues(text: str) -> tuple[Cue, ...]:
    """All cues of a text, from left to right, in any case.

    - "n't" is its own three characters ("can't" is "ca" + "n't"), with any of `APOSTROPHES`; as tokenizers write it,
      "don ' t", it reaches from the "n" to the "t".
    - "no longer" is one cue (but "no longer than" is "no"), "neither ... nor" two, "can not" is "not".
    - "no one" and "no-one" are "no". No other word with a hyphen holds a cue ("no-fly", "never-ending").
    - Markdown emphasis is not part of a word: "_not_" and "*not*" are cues, but "not_a" is not.
    - "No. 5", "no. 5", "No 5" and "no. of" stand for "number" and are not cues.
    - "dont" without an apostrophe is not read as a cue, for "wont" and "cant" are words.
    """
    return tuple(_cue(found) for found in _CUE.finditer(text))


@checked
def added_cues(original: str, counterfactual: str) -> tuple[Cue, ...]:
    """The cues of the counterfactual that the original lacks, from left to right.

    Words are matched in order, so that in a statement with several cues the new one is found ("not open" ->
    "never not open" adds "never"). A cue that only moved was not added. Where the original has the extra cue,
    and the counterfactual is the affirmative, there is none.

    Raises:
        StatementError: for statements too long to compare (see `alignment.match_equal`).
    """
    ours, theirs = _words(original), _words(counterfactual)
    matches = match_equal([key for key, _ in ours], [key for key, _ in theirs])
    kept, known = {i for i, _ in matches}, {j for _, j in matches}
    gone = Counter(cue.kind for i, (_, cue) in enumerate(ours) if cue and i not in kept)
    added = []
    for j, (_, cue) in enumerate(theirs):
        if cue is None or j in known:
            continue
        if gone[cue.kind] > 0:
            gone[cue.kind] -= 1
        else:
            added.append(cue)
    return tuple(added)


def _cue(found: re.Match[str]) -> Cue:
    group = str(found.lastgroup)
    text = found[group]
    kind = {"longer": "no longer", "word": text.lower()}.get(group, "n't")
    return Cue(text, kind, found.span(group))


def _words(text: str) -> list[tuple[tuple[bool, str], Cue | None]]:
    """Words, marks and cues in order; the keys are what two texts are compared by."""
    words: list[tuple[tuple[bool, str], Cue | None]] = []
    at = 0
    for cue in find_cues(text):
        words += [((False, word), None) for word in _plain_words(text[at : cue.span[0]])]
        words.append(((True, cue.kind), cue))
        at = cue.span[1]
    return words + [((False, word), None) for word in _plain_words(text[at:])]


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
