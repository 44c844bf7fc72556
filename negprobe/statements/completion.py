"""Fills in what a pair's two sentences already say: its cue, the word the cue acts on, and a control."""

import re
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.controls import length_matched_controls
from negprobe.statements.cues import APOSTROPHES, Cue, added_cues, find_cues
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import MASK, SEPARATOR

# Words a negation reaches through: it acts on what they lead to.
_FUNCTION_WORDS = """
    a an the this that these those any some all every each no my your his her its our their of to
    i you he she it we they there one
    am is are was were be been being do does did have has had
    will would can could may might must shall should
    very really quite so too yet also just only now always ever even still at particularly
"""

# A pair is of one negation or a few; each takes another search of the whole text.
_MOST_CUES = 64

_WORD = re.compile(rf"{re.escape(MASK)}|{re.escape(SEPARATOR)}|\w+(?:[-{APOSTROPHES}]\w+)*|[.?!;]")


@checked
def complete(pair: StatementPair, tokenizer: PreTrainedTokenizerBase | None = None) -> StatementPair:
    """The pair with `cue`, `cue_spans`, `affected_spans` and `control` where it leaves them out.

    The cues are those that the counterfactual has and the original lacks, and of the kind `pair.cue` if that is
    given; `cue` is the kind of the first. The control replaces all of them, one after the other, and never is the
    original itself; it needs a tokenizer. What cannot be found is left out: a pair whose counterfactual is the
    affirmative gets nothing.

    Raises:
        StatementError: for more than 64 cues, or statements too long to compare (see `alignment.match_equal`).
    """
    cues = _marked_cues(pair) if pair.cue_spans else _of_kind(pair.cue, added_cues(pair.original, pair.counterfactual))
    if not cues:
        return pair
    if len(cues) > _MOST_CUES:
        raise StatementError(
            f"The counterfactual adds {len(cues)} negations to {pair.original[:60]!r}, and a pair may have "
            f"{_MOST_CUES}; shorten it."
        )
    control = pair.control
    if control is None and tokenizer is not None:
        control = _control(pair, cues, tokenizer)
    return replace(
        pair,
        cue=pair.cue or cues[0].kind,
        cue_spans=tuple(cue.span for cue in cues),
        affected_spans=pair.affected_spans or _affected_words(pair.counterfactual, cues),
        control=control,
    )


def affected_word(text: str, cue: Cue) -> Span | None:
    """The word a cue acts on: the first after it, in its sentence, that is more than a function word.

    A heuristic: it skips determiners, pronouns, auxiliaries and adverbs of degree ("isn't very safe" ->
    "safe"), and takes the first word after the cue if all are of that sort. The masked word counts as a word.
    """
    first = None
    for word in _WORD.finditer(text, cue.span[1]):
        if word[0] in (*".?!;", SEPARATOR):
            break
        first = first or word
        if word[0].lower() not in _FUNCTION_WORDS.split():
            return word.span()
    return first.span() if first else None


def _affected_words(text: str, cues: tuple[Cue, ...]) -> tuple[Span, ...]:
    """The words that cues act on, each once: "neither" and "nor" may share one."""
    words = (affected_word(text, cue) for cue in cues)
    return tuple(dict.fromkeys(word for word in words if word))


def _marked_cues(pair: StatementPair) -> tuple[Cue, ...]:
    """The cues at the pair's own spans, of a known kind or of the one the pair names, from left to right."""
    known = find_cues(pair.counterfactual)
    cues = []
    for start, end in sorted(pair.cue_spans):
        text = pair.counterfactual[start:end]
        found = [cue.kind for cue in known if start <= cue.span[0] and cue.span[1] <= end]
        cues.append(Cue(text, pair.cue or (found[0] if found else text.lower()), (start, end)))
    return tuple(cues)


def _of_kind(kind: str | None, cues: tuple[Cue, ...]) -> tuple[Cue, ...]:
    return tuple(cue for cue in cues if kind is None or cue.kind == kind)


def _control(pair: StatementPair, cues: tuple[Cue, ...], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The counterfactual without `cues`, replaced from the right so that the spans to the left still hold."""
    control = pair.counterfactual
    for cue in reversed(cues):
        fitting = length_matched_controls(control, cue, tokenizer)
        found = next((text for text in fitting if text != pair.original), None)
        if found is None:
            return None
        control = found
    return control
