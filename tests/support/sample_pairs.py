"""Pairs of equal length, with a replaced run, and with an inserted cue; and what is known of them, written by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from negprobe.statements import StatementPair

EQUAL = StatementPair(
    "The door is now open. So the door is [MASK].", "The door is not open. So the door is [MASK].", "open", "closed"
)
LONGER = StatementPair(
    "The soup is hot. So it is [MASK].", "The soup isn't hot. So it is [MASK].", target="hot", foil="cold"
)
INSERTED = StatementPair("The cat is awake and [MASK].", "The cat is no longer awake and [MASK].", "happy", "sad")
PAIRS = [EQUAL, LONGER, INSERTED]


@dataclass(frozen=True)
class Known:
    """A pair with what the package has to find out about it.

    Attributes:
        pair: The pair.
        links: `(original position, counterfactual position)` of every aligned token.
        roles: The roles of the original's tokens and of the counterfactual's.
    """

    pair: StatementPair
    links: tuple[tuple[int, int], ...]
    roles: tuple[tuple[str, ...], tuple[str, ...]]

    def texts(self, direction: str) -> tuple[str, str]:
        """The base and the source."""
        both = self.pair.original, self.pair.counterfactual
        return both if direction == "noising" else both[::-1]

    def source_of(self, direction: str) -> dict[int, int]:
        """Base position -> source position."""
        return dict(self.links) if direction == "noising" else {j: i for i, j in self.links}

    def base_roles(self, direction: str) -> tuple[str, ...]:
        """The roles of the base's tokens."""
        return self.roles[direction == "denoising"]


def known(pair: StatementPair, links: Sequence[tuple[int, int]], original: str, counterfactual: str) -> Known:
    """Roles are written as words, `.` for "other"."""
    named = (tuple("other" if word == "." else word for word in line.split()) for line in (original, counterfactual))
    return Known(pair, tuple(links), (next(named), next(named)))


def whole(of: Known) -> Known:
    """The same with the target in the gap, as a model without a masked-LM head reads it."""
    texts = {side: getattr(of.pair, side).replace("[MASK]", of.pair.target) for side in ("original", "counterfactual")}
    roles = tuple(tuple("target" if role == "mask" else role for role in side) for side in of.roles)
    return Known(replace(of.pair, **texts), of.links, (roles[0], roles[1]))


def answering(of: Known, target: str, foil: str) -> Known:
    """The same statements, the gap filled, with an answer that stands nowhere in them, such as a label."""
    of = whole(of)
    roles = tuple(tuple("other" if role == "target" else role for role in side) for side in of.roles)
    return Known(replace(of.pair, target=target, foil=foil), of.links, (roles[0], roles[1]))


def diagonal(n: int, first: int = 0, shift: int = 0) -> list[tuple[int, int]]:
    """`n` links in a row from `first`, the counterfactual's positions `shift` further on."""
    return [(i, i + shift) for i in range(first, first + n)]


# In the words of `tiny_models`. [CLS] the door is now|not open . so the dog is [MASK] . [SEP]
TINY_EQUAL = known(
    StatementPair(
        "The door is now open. So the dog is [MASK].", "The door is not open. So the dog is [MASK].", "big", "red"
    ),
    diagonal(14),
    "cls . . . cue affected . . . . . mask . sep",
    "cls . . . cue affected . . . . . mask . sep",
)
# [CLS] the red house is really|not now open and [MASK] . [SEP]
TINY_REPLACED = known(
    StatementPair(
        "The red house is really open and [MASK].", "The red house is not now open and [MASK].", "red", "closed"
    ),
    [*diagonal(5), *diagonal(5, 6, shift=1)],
    "cls . target . . . affected . mask . sep",
    "cls . target . . cue . affected . mask . sep",
)
# [CLS] a dog is |never big , [MASK] . [SEP]
TINY_INSERTED = known(
    StatementPair("A dog is big, [MASK].", "A dog is never big, [MASK].", "big", "red"),
    [*diagonal(4), *diagonal(5, 4, shift=1)],
    "cls . . . affected . mask . sep",
    "cls . . . cue affected . mask . sep",
)
TINY = [TINY_EQUAL, TINY_REPLACED, TINY_INSERTED]
# A premise and a hypothesis, the second of token type 1. [CLS] the door is now|not open [SEP] it is [MASK] [SEP]
TINY_TWO_TEXTS = known(
    StatementPair("The door is now open [SEP] it is [MASK]", "The door is not open [SEP] it is [MASK]", "big", "red"),
    diagonal(11),
    "cls . . . cue affected sep . . mask sep",
    "cls . . . cue affected sep . . mask sep",
)

# The first pairs again, in wordpieces.
# [CLS] the door is now|not open . so the door is [MASK] . [SEP]
# [CLS] the soup is|isn ' t hot . so it is [MASK] . [SEP]
# [CLS] the cat is | no longer | awake and [MASK] . [SEP]
WORDPIECES = [
    known(
        EQUAL,
        diagonal(14),
        "cls . . . cue affected . . . . . mask . sep",
        "cls . . . cue affected . . . . . mask . sep",
    ),
    known(
        LONGER,
        [*diagonal(3), *diagonal(8, 4, shift=2)],
        "cls . . . affected . . . . mask . sep",
        "cls . . cue cue cue affected . . . . mask . sep",
    ),
    known(
        INSERTED,
        [*diagonal(4), *diagonal(5, 4, shift=2)],
        "cls . . . affected . mask . sep",
        "cls . . . cue cue affected . mask . sep",
    ),
]
