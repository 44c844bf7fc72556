"""Sentences on what a head of a circuit reads, with their numbers."""

from negprobe.attention import HeadReading, Reading, ReadingChange
from negprobe.base.arguments import checked

ROLE_NAMES = {
    "cue": "the cue",
    "affected": "the affected word",
    "changed": "the changed words",
    "target": "the target word",
    "mask": "[MASK]",
    "cls": "the first token",
    "sep": "the separator",
    "other": "the other tokens",
}
"""Phrases for the roles."""

_NO_CHANGE = 0.005  # smaller changes are 0.00 when rounded


@checked
def head_sentence(story: HeadReading) -> str:
    """What one head attends to most in the counterfactual, and what changes most compared with the control.

    "2.1: attention from [MASK] to the cue stands out most (raw 0.41, norm-weighted 0.62, uniform 0.08; n = 40). The
    same attention changes most compared with the control (raw +0.38, norm-weighted +0.59; n = 40)."
    """
    parts = [f"{story.layer}.{story.head}: {_attention(story.norm)} stands out most {_numbers(story.norm)}."]
    if _cell(story.raw) != _cell(story.norm):
        parts.append(f"In the raw weights, {_attention(story.raw)} stands out most {_numbers(story.raw)}.")
    if story.change is not None:
        parts.append(_changes(story.change, story.norm))
    return " ".join(parts)


def signed(change: float) -> str:
    """A change to two decimals, with its sign."""
    return f"{round(change, 2) + 0.0:+.2f}".replace("-", "−")


def _numbers(reading: Reading) -> str:
    return f"(raw {reading.raw:.2f}, norm-weighted {reading.norm:.2f}, uniform {reading.even:.2f}; n = {reading.n})"


def _changes(change: ReadingChange, norm: Reading) -> str:
    if abs(change.norm) < _NO_CHANGE:
        return f"Its norm-weighted attention is the same in the {change.base}."
    numbers = f"(raw {signed(change.raw)}, norm-weighted {signed(change.norm)}; n = {change.n})"
    changed = "the same attention" if _cell(change) == _cell(norm) else _attention(change)
    return f"{changed[0].upper()}{changed[1:]} changes most compared with the {change.base} {numbers}."


def _attention(reading: Reading | ReadingChange) -> str:
    return f"attention from {ROLE_NAMES[reading.query]} to {ROLE_NAMES[reading.key]}"


def _cell(reading: Reading | ReadingChange) -> tuple[str, str]:
    return reading.query, reading.key
