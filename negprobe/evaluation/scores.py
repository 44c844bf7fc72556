"""The scores themselves: pure functions of what a model said, wherever that was got from."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scipy.stats import binomtest

from negprobe.arguments import checked
from negprobe.errors import InputError

One = TypeVar("One")
Other = TypeVar("Other")
Words = Sequence[str]
"""A model's words for one gap, the most probable first."""


@dataclass(frozen=True)
class Share:
    """How many of how many.

    Attributes:
        hits: The number that were so.
        n: The number that were counted.
        share: `hits / n`; NaN where nothing was counted.
        low: Lower end of the 95 % interval of the share (Wilson's, as scipy gives it).
        high: Upper end.
    """

    hits: int
    n: int
    share: float
    low: float
    high: float


Shares = dict[tuple[str, str], Share]
"""Shares by condition and score."""


@checked
def share(hits: Iterable[bool]) -> Share:
    """The share of the hits, with its interval."""
    counted = [bool(hit) for hit in hits]
    if not counted:
        return Share(0, 0, math.nan, math.nan, math.nan)
    n_hits, n = sum(counted), len(counted)
    interval = binomtest(n_hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(n_hits, n, n_hits / n, float(interval.low), float(interval.high))


@checked
def top_k_accuracy(predictions: Sequence[Words], targets: Sequence[str], k: int) -> Share:
    """The share of gaps whose target is among the k most probable words, in any case.

    Ettinger 2020's word prediction accuracy, on affirmatives alone: in a negation many words are true.

    Raises:
        InputError: for a k below 1, and for more gaps than targets or fewer.
    """
    if k < 1:
        raise InputError(f"The {k} most probable words are none; give a k of 1 or more.")
    return share(
        _word(target) in {_word(word) for word in words[:k]} for words, target in _paired(predictions, targets)
    )


@checked
def sensitivity(affirmative: Sequence[Words], negated: Sequence[Words]) -> Share:
    """The share of pairs whose most probable word changes under the negation.

    Shivagunde et al. 2023's sensitivity. A pair for which either list is empty counts as unchanged.

    Raises:
        InputError: for more affirmatives than negations or fewer.
    """
    return share(
        bool(before and after) and _word(before[0]) != _word(after[0])
        for before, after in _paired(affirmative, negated)
    )


@checked
def preference(wanted: Sequence[float], unwanted: Sequence[float]) -> Share:
    """The share of pairs of scores in which the wanted one is the larger.

    With the log-probabilities of the word that makes a statement true and of the one that makes it false, Ettinger
    2020's completion sensitivity for NEG-136; with pseudo-log-likelihoods of the acceptable and the unacceptable
    sentence, BLiMP's accuracy (Warstadt et al. 2020; Salazar et al. 2020 for masked language models).

    Raises:
        InputError: for more wanted than unwanted scores or fewer.
    """
    return share(a > b for a, b in _paired(wanted, unwanted))


@checked
def accuracy(predicted: Words, labels: Sequence[str]) -> Share:
    """The share of labels that were predicted, in any case.

    Raises:
        InputError: for more predictions than labels or fewer.
    """
    return share(_word(given) == _word(label) for given, label in _paired(predicted, labels))


def _paired(one: Sequence[One], other: Sequence[Other]) -> Iterator[tuple[One, Other]]:
    if len(one) != len(other):
        raise InputError(f"Each needs its counterpart, but there are {len(one)} and {len(other)}.")
    return zip(one, other, strict=True)


def _word(word: str) -> str:
    return word.strip().lower()
