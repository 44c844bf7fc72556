"""What a head of a circuit reads, in a sentence with its numbers."""

from negprobe.attention import HeadReading, Reading, ReadingChange
from negprobe.base.arguments import checked

ROLE_NAMES = {
    "cue": "the cue",
    "affected": "the affected word",
    "target": "the target word",
    "mask": "[MASK]",
    "cls": "the first token",
    "sep": "the separator",
    "other": "the other tokens",
}
"""What each role is called in a sentence."""

_NO_CHANGE = 0.005  # what two decimals round away


@checked
def head_sentence(story: HeadReading) -> str:
    """One head: what it reads most in the counterfactual, and what it reads otherwise than in the control.

    "2.1: at [MASK] it reads the cue (raw 0.41, after the values 0.62; an even share is 0.08; n = 40); that is also
    what changes most against the control (raw +0.38, after the values +0.59; n = 40)."
    """
    parts = [f"{story.layer}.{story.head}: {_reads(story.norm)}"]
    if _cell(story.raw) != _cell(story.norm):
        parts.append(f"; before the values it stands out more that {_reads(story.raw)}")
    if story.change is not None:
        parts.append(_changes(story.change, story.norm))
    return "".join(parts) + "."


def signed(change: float) -> str:
    """A change to two decimals, with its sign."""
    return f"{round(change, 2) + 0.0:+.2f}".replace("-", "−")


def _reads(reading: Reading) -> str:
    return (
        f"{_where(reading)} (raw {reading.raw:.2f}, after the values {reading.norm:.2f}; an even share is "
        f"{reading.even:.2f}; n = {reading.n})"
    )


def _changes(change: ReadingChange, norm: Reading) -> str:
    if abs(change.norm) < _NO_CHANGE:
        return f"; after the values it reads alike in the {change.base}"
    numbers = f"(raw {signed(change.raw)}, after the values {signed(change.norm)}; n = {change.n})"
    if _cell(change) == _cell(norm):
        return f"; that is also what changes most against the {change.base} {numbers}"
    more = "more" if change.norm > 0 else "less"
    return f"; what changes most against the {change.base} is that {_where(change, more)} {numbers}"


def _where(reading: Reading | ReadingChange, more: str = "") -> str:
    key = f"{more} of {ROLE_NAMES[reading.key]}" if more else ROLE_NAMES[reading.key]
    return f"at {ROLE_NAMES[reading.query]} it reads {key}"


def _cell(reading: Reading | ReadingChange) -> tuple[str, str]:
    return reading.query, reading.key
