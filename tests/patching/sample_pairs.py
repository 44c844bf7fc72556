"""Pairs of equal length, with a replaced word, and with an inserted cue."""

from negprobe.statements import StatementPair

EQUAL = StatementPair(
    "The door is now open. So the door is [MASK].", "The door is not open. So the door is [MASK].", "open", "closed"
)
LONGER = StatementPair(
    "The soup is hot. So it is [MASK].", "The soup isn't hot. So it is [MASK].", target="hot", foil="cold"
)
INSERTED = StatementPair("The cat is awake and [MASK].", "The cat is no longer awake and [MASK].", "happy", "sad")
PAIRS = [EQUAL, LONGER, INSERTED]
