"""Statements with a gap as complete sentences, for models that predict no word."""

import re
from collections.abc import Sequence
from dataclasses import replace

from negprobe.arguments import checked
from negprobe.errors import StatementError
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import MASK
from negprobe.texts import quoted

# An article before the gap, and the gap.
_GAP = re.compile(rf"(?:\b(?P<article>an?)(?P<space>\s+))?{re.escape(MASK)}", re.IGNORECASE)

# By sound and not by letter: "an hour", "a uniform", "a one-way street".
_AN = re.compile(
    r"(?:hour|honest|hono[u]?r|heir)|(?!uni(?![nm])|us[aeiu]|use|util|eu|ewe|one\b|once|ubiq)[aeiou]", re.I
)


def article(word: str) -> str:
    """ "a" or "an", by how English words that begin like this one sound."""
    return "an" if _AN.match(word) else "a"


@checked
def has_gap(pair: StatementPair) -> bool:
    """Whether a statement of the pair, or its control, has a [MASK]."""
    return any(MASK in text for text in (pair.original, pair.counterfactual, pair.control or ""))


@checked
def filled(pair: StatementPair) -> StatementPair:
    """The pair as complete sentences: each [MASK] is the target, with "a" or "an" before it as the target wants it.

    Original, counterfactual and control take the same word, so that they still differ by the negation alone. The spans
    move with the words they stand for. A pair without a [MASK] is returned as it is.

    Raises:
        StatementError: for a pair without a target, or a statement with several [MASK].
    """
    if not has_gap(pair):
        return pair
    if not pair.target:
        raise StatementError(
            f"{quoted(pair.counterfactual)} has a {MASK} and the pair no target to fill it with. Give a target, or "
            "complete sentences."
        )
    for text in (pair.original, pair.counterfactual, pair.control or ""):
        if text.count(MASK) > 1:
            raise StatementError(
                f"{quoted(text)} has {text.count(MASK)} {MASK}, and one word, {quoted(pair.target)}, to fill them "
                f"with. Write complete sentences, or one {MASK} in each."
            )
    counterfactual, edits = _filled(pair.counterfactual, pair.target)
    return replace(
        pair,
        original=_filled(pair.original, pair.target)[0],
        counterfactual=counterfactual,
        control=None if pair.control is None else _filled(pair.control, pair.target)[0],
        cue_spans=tuple(_moved(span, edits) for span in pair.cue_spans),
        affected_spans=tuple(_moved(span, edits) for span in pair.affected_spans),
    )


@checked
def readable_by(head: str, pairs: Sequence[StatementPair], labels: Sequence[str] = ()) -> list[StatementPair]:
    """The pairs as a model can read them: with their gaps for a masked LM, and `filled` for any other.

    For a classifier, words that filled a gap are no labels: the filled pair has no target and no foil.

    Args:
        head: The model's head, "masked_lm", "classification" or "none".
        pairs: The pairs.
        labels: A classifier's labels.

    Raises:
        StatementError: as `filled`, for a model that is no masked LM; also where the target is one of the labels, which
            fills no gap.
    """
    if head == "masked_lm":
        return list(pairs)
    return [_complete(head, pair, {label.lower() for label in labels}) for pair in pairs]


def _complete(head: str, pair: StatementPair, labels: set[str]) -> StatementPair:
    if not has_gap(pair):
        return pair
    if pair.target and pair.target.lower() in labels:
        raise StatementError(
            f"{quoted(pair.counterfactual)} has a {MASK}, and the target {quoted(pair.target)} is a label of the "
            "model and no word to fill it with. Write complete sentences."
        )
    whole = filled(pair)
    return replace(whole, target=None, foil=None) if head == "classification" else whole


def _filled(text: str, word: str) -> tuple[str, list[tuple[Span, int]]]:
    """The text with the word in its gap, and which characters were replaced by how many."""
    found = _GAP.search(text)
    if found is None:
        return text, []
    gap = found.end() - len(MASK), found.end()
    edits = [(gap, len(word))]
    filling = text[: gap[0]] + word + text[gap[1] :]
    written = found["article"]
    if written is None or written.lower() == article(word):
        return filling, edits
    wanted = article(word)
    wanted = wanted.upper() if written.isupper() and len(written) > 1 else written[0] + wanted[1:]
    start, end = found.span("article")
    return filling[:start] + wanted + filling[end:], [((start, end), len(wanted)), *edits]


def _moved(span: Span, edits: Sequence[tuple[Span, int]]) -> Span:
    """Where a span stands after its text was edited, from left to right; a part of an edit stands for all of it."""
    start, end = span
    moved_start, moved_end = start, end
    for (begin, stop), length in edits:
        grown = length - (stop - begin)
        if start >= stop:
            moved_start += grown
        elif start > begin:
            moved_start += begin - start
        if end >= stop:
            moved_end += grown
        elif end > begin:
            moved_end += begin + length - end
    return moved_start, moved_end
