"""Negation cues ("not", "never", "no longer", ...), found as whole words and never inside other words."""

import re
from collections import Counter
from dataclasses import dataclass

from negprobe.base.arguments import checked
from negprobe.statements.alignment import match_equal
from negprobe.statements.cue_lexicon import Lexicon, english_lexicon, lexicon_in_use
from negprobe.statements.cue_phrases import APOSTROPHES
from negprobe.statements.pair import Span

__all__ = ["APOSTROPHES", "CUE_KINDS", "Cue", "added_cues", "find_cues"]

CUE_KINDS = english_lexicon().searched
"""The kinds of cues of the English lexicon without optional classes."""


@checked
@dataclass(frozen=True)
class Cue:
    """A negation cue in a text.

    Attributes:
        text: The cue as written ("Not", "N'T").
        kind: Its kind: one of `CUE_KINDS`, or of the kinds that another lexicon has.
        span: Its characters in the text.
    """

    text: str
    kind: str
    span: Span


@checked
def find_cues(text: str, *, lexicon: Lexicon | None = None) -> tuple[Cue, ...]:
    """All cues of a text, from left to right, ignoring case.

    - "n't" is a cue of three characters ("can't" is "ca" + "n't"), with any of `APOSTROPHES`. Written with spaces, as
      some tokenizers do ("don ' t"), it extends from the "n" to the "t". Without an apostrophe ("dont"), it is "nt";
      in "wont" and "cant", which are other words too, only after a subject or before a verb ("he wont answer").
    - "no longer" is one cue (but in "no longer than" only "no" is), "neither ... nor" are two, "can not" contains
      "not".
    - "no one" and "no-one" contain "no". Other hyphenated words contain no cue ("no-fly", "never-ending").
    - Markdown emphasis is not part of a word: "_not_" and "*not*" are cues, but "not_a" is not.
    - "No. 5", "no. 5", "No 5" and "no. of" mean "number" and are not cues.
    - A cue that does not make its clause negative is not found: in a tag question (", isn't it?"), alone in quotation
      marks, and in phrases such as "not only", "no doubt" and "whether or not" (listed in
      `statements/languages/english.toml`).

    Args:
        text: The text.
        lexicon: The cues to search for; by default those that `use_lexicon` set, or English.

    Example:
        >>> from negprobe.statements import find_cues
        >>> [(cue.kind, cue.span) for cue in find_cues("It isn't open, and it never was.")]
        [("n't", (5, 8)), ('never', (22, 27))]
    """
    found = (lexicon or lexicon_in_use()).matcher.cues(text)
    return tuple(Cue(text[start:end], kind, (start, end)) for kind, (start, end) in found)


@checked
def added_cues(original: str, counterfactual: str, *, lexicon: Lexicon | None = None) -> tuple[Cue, ...]:
    """The cues (see `find_cues`) of the counterfactual that the original lacks, from left to right.

    The words of both are aligned, so that the new one of several cues is found ("not open" -> "never not open" adds
    "never"). A cue that only moved does not count as added. If only the original has a cue, none was added.

    Raises:
        StatementError: for statements too different to align (see `alignment.match_equal`).

    Example:
        >>> from negprobe.statements import added_cues
        >>> [cue.text for cue in added_cues("It is not open.", "It is never not open.")]
        ['never']
    """
    original_words, counterfactual_words = _words(original, lexicon), _words(counterfactual, lexicon)
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


def _words(text: str, lexicon: Lexicon | None) -> list[tuple[tuple[bool, str], Cue | None]]:
    """The words, punctuation marks and cues in order: a key to compare two texts by, and the cue if it is one."""
    words: list[tuple[tuple[bool, str], Cue | None]] = []
    at = 0
    for cue in find_cues(text, lexicon=lexicon):
        words += [((False, word), None) for word in _plain_words(text[at : cue.span[0]])]
        words.append(((True, cue.kind), cue))
        at = cue.span[1]
    return words + [((False, word), None) for word in _plain_words(text[at:])]


def _plain_words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
