"""Completing a pair from its two sentences: the cue, the word that the cue acts on, and a control."""

from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.statements.affected_word import affected_word
from negprobe.statements.controls import length_matched_controls
from negprobe.statements.cues import Cue, added_cues, find_cues
from negprobe.statements.pair import Span, StatementPair

# Pairs have few negations, and each one takes another search of the whole text.
_MOST_CUES = 64


@checked
def complete(pair: StatementPair, tokenizer: PreTrainedTokenizerBase | None = None) -> StatementPair:
    """The pair with its missing `cue`, `cue_spans`, `affected_spans` and `control` filled in.

    The cues are those of the counterfactual that the original lacks, of the kind `pair.cue` only if that is given.
    `cue` becomes the kind of the first one. The control, for which a tokenizer is needed, replaces all of these cues,
    and differs from the original. What cannot be found stays empty: all four in a pair whose counterfactual adds no
    cue.

    Raises:
        StatementError: for more than 64 cues, or statements too different to align (see `alignment.match_equal`).

    Example:
        >>> from negprobe import HookedEncoder, StatementPair
        >>> from negprobe.statements import complete
        >>> tokenizer = HookedEncoder.from_pretrained("tiny-negation").tokenizer
        >>> pair = complete(StatementPair("The door is open.", "The door is not open."), tokenizer)
        >>> pair.cue, pair.cue_spans, pair.affected_spans, pair.control
        ('not', ((12, 15),), ((16, 20),), 'The door is now open.')
    """
    cues = _marked_cues(pair) if pair.cue_spans else _of_kind(pair.cue, added_cues(pair.original, pair.counterfactual))
    if not cues:
        return pair
    if len(cues) > _MOST_CUES:
        raise StatementError(
            f"The counterfactual adds {len(cues)} negations to {pair.original[:60]!r}; a pair may have at most "
            f"{_MOST_CUES}. Shorten the counterfactual."
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


def _affected_words(text: str, cues: tuple[Cue, ...]) -> tuple[Span, ...]:
    """The spans of the words that cues act on, without duplicates: "neither" and "nor" may share one."""
    words = (affected_word(text, cue) for cue in cues)
    return tuple(dict.fromkeys(word for word in words if word))


def _marked_cues(pair: StatementPair) -> tuple[Cue, ...]:
    """The cues at the pair's own spans, from left to right, of the kind that the pair names or that is found there."""
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
    """The counterfactual with neutral words in place of its cues; None if a cue has no fitting ones."""
    control = pair.counterfactual
    # From right to left, so that the spans of the remaining cues stay valid.
    for cue in reversed(cues):
        fitting = length_matched_controls(control, cue, tokenizer)
        found = next((text for text in fitting if text != pair.original), None)
        if found is None:
            return None
        control = found
    return control
