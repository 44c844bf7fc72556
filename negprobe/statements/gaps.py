"""Filling the gap of statements, for models without a masked-LM head."""

import re
from collections.abc import Sequence
from dataclasses import replace

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import MASK

# The gap, with an article before it if there is one.
_GAP = re.compile(rf"(?:\b(?P<article>an?)(?P<space>\s+))?{re.escape(MASK)}", re.IGNORECASE)

# By sound and not by letter: "an hour", "a uniform", "a one-way street".
_AN = re.compile(
    r"(?:hour|honest|hono[u]?r|heir)|(?!uni(?![nm])|us[aeiu]|use|util|eu|ewe|one\b|once|ubiq)[aeiou]", re.I
)


def article(word: str) -> str:
    """ "a" or "an", by how the word is pronounced."""
    return "an" if _AN.match(word) else "a"


@checked
def has_gap(pair: StatementPair) -> bool:
    """Whether a statement of the pair, or its control, has a [MASK]."""
    return any(MASK in text for text in (pair.original, pair.counterfactual, pair.control or ""))


@checked
def filled(pair: StatementPair) -> StatementPair:
    """The pair as complete sentences: the target replaces each [MASK], and "a" or "an" before it is adjusted.

    Original, counterfactual and control get the same word, so that they still differ only in the negation. The spans
    move with their words. A pair without a [MASK] is returned unchanged.

    Raises:
        StatementError: for a pair without a target, or a statement with several [MASK].

    Example:
        >>> from negprobe.statements import StatementPair, filled
        >>> filled(StatementPair("It is a [MASK].", "It is not a [MASK].", target="apple")).counterfactual
        'It is not an apple.'
    """
    if not has_gap(pair):
        return pair
    if not pair.target:
        raise StatementError(
            f"{quoted(pair.counterfactual)} has a {MASK}, but the pair has no target to fill it with. Give a target "
            "or complete sentences."
        )
    for text in (pair.original, pair.counterfactual, pair.control or ""):
        if text.count(MASK) > 1:
            raise StatementError(
                f"{quoted(text)} has {text.count(MASK)} {MASK}, but only one word, {quoted(pair.target)}, to fill them "
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
    """The pairs as the model takes them: unchanged for a masked LM, `filled` for any other model.

    A filled pair has no target and foil for a classifier, because they are words and not labels.

    Args:
        head: The model's head, "masked_lm", "classification" or "none".
        pairs: The pairs.
        labels: A classifier's labels.

    Raises:
        StatementError: as `filled`, for a model without a masked-LM head, and if the target of a pair with a [MASK] is
            a label.
    """
    if head == "masked_lm":
        return list(pairs)
    return [_complete(head, pair, {label.lower() for label in labels}) for pair in pairs]


def _complete(head: str, pair: StatementPair, labels: set[str]) -> StatementPair:
    if not has_gap(pair):
        return pair
    if pair.target and pair.target.lower() in labels:
        raise StatementError(
            f"{quoted(pair.counterfactual)} has a {MASK}, but the target {quoted(pair.target)} is a label of the "
            "model, not a word to fill it with. Write complete sentences."
        )
    whole = filled(pair)
    return replace(whole, target=None, foil=None) if head == "classification" else whole


def _filled(text: str, word: str) -> tuple[str, list[tuple[Span, int]]]:
    """The text with the word in its gap, and each replaced range with the length of its replacement."""
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
    """A span after edits from left to right; a span that overlaps an edit is extended to all of it."""
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
