"""The scores themselves: pure functions of what a model said, wherever that was got from."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError
from negprobe.base.texts import quoted

Column = np.ndarray | pd.Series
"""An array, or a column of a table: what scores are made of comes out of these as well as out of lists."""

Words = Sequence[str] | Column
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
def share(hits: Iterable[Any]) -> Share:
    """The share of the hits, each true or false, with its interval.

    Raises:
        InputError: for hits that are no list of yes and no.
    """
    try:
        counted = [bool(hit) for hit in hits]
    except (TypeError, ValueError, RuntimeError) as error:  # as arrays, tables and tensors have it
        raise InputError(f"The hits are no list of yes and no, one each: {error}.") from error
    if not counted:
        return Share(0, 0, math.nan, math.nan, math.nan)
    n_hits, n = sum(counted), len(counted)
    interval = binomtest(n_hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(n_hits, n, n_hits / n, float(interval.low), float(interval.high))


@checked
def top_k_accuracy(predictions: Sequence[Words] | Column, targets: Sequence[str] | Column, k: int) -> Share:
    """The share of gaps whose target is among the k most probable words, in any case.

    Ettinger 2020's word prediction accuracy, on affirmatives alone: in a negation many words are true.

    Raises:
        InputError: for a k below 1, for more gaps than targets or fewer, and for what are no words.
    """
    if k < 1:
        raise InputError(f"The {k} most probable words are none; give a k of 1 or more.")
    return share([_word(target) in _words(words)[:k] for words, target in _paired(predictions, targets)])


@checked
def sensitivity(affirmative: Sequence[Words] | Column, negated: Sequence[Words] | Column) -> Share:
    """The share of pairs whose most probable word changes under the negation.

    Shivagunde et al. 2023's sensitivity. A pair for which either list is empty counts as unchanged.

    Raises:
        InputError: for more affirmatives than negations or fewer, and for what are no words.
    """
    both = [(_words(before), _words(after)) for before, after in _paired(affirmative, negated)]
    return share([bool(before and after) and before[0] != after[0] for before, after in both])


@checked
def preference(wanted: Sequence[float] | Column, unwanted: Sequence[float] | Column) -> Share:
    """The share of pairs of scores in which the wanted one is the larger.

    With the log-probabilities of the word that makes a statement true and of the one that makes it false, Ettinger
    2020's completion sensitivity for NEG-136; with pseudo-log-likelihoods of the acceptable and the unacceptable
    sentence, BLiMP's accuracy (Warstadt et al. 2020; Salazar et al. 2020 for masked language models).

    Raises:
        InputError: for more wanted than unwanted scores or fewer, and for what are no numbers.
    """
    return share([a > b for a, b in _paired(_numbers(wanted), _numbers(unwanted))])


@checked
def accuracy(predicted: Words, labels: Words) -> Share:
    """The share of labels that were predicted, in any case.

    Raises:
        InputError: for more predictions than labels or fewer, and for what are no words.
    """
    return share([given == label for given, label in _paired(_words(predicted), _words(labels))])


def _paired(one: Sequence[Any] | Column, other: Sequence[Any] | Column) -> Iterator[tuple[Any, Any]]:
    if getattr(one, "ndim", 1) == 0 or getattr(other, "ndim", 1) == 0:
        raise InputError("An array of no dimension is no column; give a list, one for each.")
    if len(one) != len(other):
        raise InputError(f"Each needs its counterpart, but there are {len(one)} and {len(other)}.")
    return zip(one, other, strict=True)


def _words(words: Any) -> list[str]:
    """Words in lower case, out of a list or a column."""
    if not isinstance(words, Sequence | np.ndarray | pd.Series) or getattr(words, "ndim", 1) != 1:
        raise InputError(f"{quoted(words)} is no list of words; give one, the most probable word first.")
    return [_word(word) for word in words]


def _word(word: Any) -> str:
    if not isinstance(word, str):
        raise InputError(f"{quoted(word)} is no word; give words as text.")
    return word.strip().lower()


def _numbers(column: Sequence[float] | Column) -> list[float]:
    try:
        numbers = np.asarray(column, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"The scores are not all numbers: {error}.") from error
    if numbers.ndim != 1:
        raise InputError(f"The scores have {numbers.ndim} dimensions; give a list of numbers, one each.")
    return numbers.tolist()
