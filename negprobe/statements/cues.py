"""Negation cues ("not", "never", "no longer", ...), found as whole words and never inside other words."""

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
        text: The cue as written ("Not", "N'T").
        kind: Its kind, one of `CUE_KINDS`.
        span: Its characters in the text.
    """

    text: str
    kind: str
    span: Span


APOSTROPHES = "'\u2018\u2019\u02bc\u2032\u00b4`\uff07"
"""Characters typed as apostrophes, including quotes, primes, accents and the full-width form."""

# Combining accents belong to the word that they follow.
_LETTER = r"[\w\u0300-\u036f]"
_APOSTROPHE = f"[{APOSTROPHES}]"
# An underscore is part of a word ("not_a"), except as Markdown emphasis ("_not_", "__not__").
_START = rf"(?: (?<!{_LETTER}) (?<!{_LETTER}-) | (?<=\b_) | (?<=\b__) )"
_END = rf"(?! (?!__?(?!\w)) {_LETTER} | -{_LETTER} )"
_ATTACHED_END = rf"(?! (?!__?(?!\w)) {_LETTER} )"
# "No. 5", "no. 5", "No 5" and "the no. of doors" stand for "number"; "no 5 doors" is a negation.
_NUMBER = r"(?: no\.\s*(?:\d|of\b) | (?-i:N[oO])\s+\d )"
# Auxiliaries as written before "n't". Only after one of them is a separated "n ' t" a cue.
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
    """All cues of a text, from left to right, ignoring case.

    - "n't" is a cue of three characters ("can't" is "ca" + "n't"), with any of `APOSTROPHES`. Written with spaces, as
      some tokenizers do ("don ' t"), it extends from the "n" to the "t".
    - "no longer" is one cue (but in "no longer than" only "no" is), "neither ... nor" are two, "can not" contains
      "not".
    - "no one" and "no-one" contain "no". Other hyphenated words contain no cue ("no-fly", "never-ending").
    - Markdown emphasis is not part of a word: "_not_" and "*not*" are cues, but "not_a" is not.
    - "No. 5", "no. 5", "No 5" and "no. of" mean "number" and are not cues.
    - "dont" without an apostrophe is not a cue, because "wont" and "cant" are words.

    Example:
        >>> from negprobe.statements import find_cues
        >>> [(cue.kind, cue.span) for cue in find_cues("It isn't open, and it never was.")]
        [("n't", (5, 8)), ('never', (22, 27))]
    """
    return tuple(_cue(found) for found in _CUE.finditer(text))


@checked
def added_cues(original: str, counterfactual: str) -> tuple[Cue, ...]:
    """The cues of the counterfactual that the original lacks, from left to right.

    The words of both are aligned, so that the new one of several cues is found ("not open" -> "never not open" adds
    "never"). A cue that only moved does not count as added. If only the original has a cue, none was added.

    Raises:
        StatementError: for statements too different to align (see `alignment.match_equal`).

    Example:
        >>> from negprobe.statements import added_cues
        >>> [cue.text for cue in added_cues("It is not open.", "It is never not open.")]
        ['never']
    """
    original_words, counterfactual_words = _words(original), _words(counterfactual)
    matches = match_equal([key for key, _ in original_words], [key for key, _ in counterfactual_words])
    matched_original, matched_counterfactual = {i for i, _ in matches}, {j for _, j in matches}
    removed = Counter(cue.kind for i, (_, cue) in enumerate(original_words) if cue and i not in matched_original)
    added = []
    for j, (_, cue) in enumerate(counterfactual_words):
        if cue is None or j in matched_counterfactual:
            continue
        if removed[cue.kind] > 0:
            removed[cue.kind] -= 1
        else:
            added.append(cue)
    return tuple(added)


def _cue(found: re.Match[str]) -> Cue:
    group = str(found.lastgroup)
    text = found[group]
    kind = {"longer": "no longer", "word": text.lower()}.get(group, "n't")
    return Cue(text, kind, found.span(group))


def _words(text: str) -> list[tuple[tuple[bool, str], Cue | None]]:
    """The words, punctuation marks and cues in order: a key to compare two texts by, and the cue if it is one."""
    words: list[tuple[tuple[bool, str], Cue | None]] = []
    at = 0
    for cue in find_cues(text):
        words += [((False, word), None) for word in _plain_words(text[at : cue.span[0]])]
        words.append(((True, cue.kind), cue))
        at = cue.span[1]
    return words + [((False, word), None) for word in _plain_words(text[at:])]


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
