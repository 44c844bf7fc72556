"""The scores: pure functions of a model's answers, whatever their source."""

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
"""An array or a column of a table, accepted wherever a list is."""

Words = Sequence[str] | Column
"""A model's words for one gap, most probable first."""


@dataclass(frozen=True)
class Share:
    """A proportion with its 95% Wilson interval.

    Attributes:
        hits: Number of hits.
        n: Number of items.
        share: `hits / n`; NaN if n is 0.
        low: Lower end of the interval, computed by scipy; NaN if n is 0.
        high: Upper end; NaN if n is 0.
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
    """The share of true values among the hits, with its interval.

    Raises:
        InputError: if the hits are not a list of true or false values.
    """
    try:
        counted = [bool(hit) for hit in hits]
    except (TypeError, ValueError, RuntimeError) as error:  # raised by arrays, tables and tensors
        raise InputError(f"hits must be a list of true or false values, one per item: {error}.") from error
    if not counted:
        return Share(0, 0, math.nan, math.nan, math.nan)
    n_hits, n = sum(counted), len(counted)
    interval = binomtest(n_hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Share(n_hits, n, n_hits / n, float(interval.low), float(interval.high))


@checked
def top_k_accuracy(predictions: Sequence[Words] | Column, targets: Sequence[str] | Column, k: int) -> Share:
    """The share of gaps whose target is among the k most probable words, ignoring case.

    This is the word prediction accuracy of Ettinger 2020, defined for affirmatives only: many words make a negation
    true.

    Raises:
        InputError: if k is below 1, the numbers of gaps and targets differ, or a value is not a word.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    return share([_word(target) in _words(words)[:k] for words, target in _paired(predictions, targets)])


@checked
def sensitivity(affirmative: Sequence[Words] | Column, negated: Sequence[Words] | Column) -> Share:
    """The share of pairs whose most probable word changes under the negation.

    This is the sensitivity of Shivagunde et al. 2023. A pair with an empty list counts as unchanged.

    Raises:
        InputError: if the numbers of affirmatives and negations differ, or a value is not a word.
    """
    both = [(_words(before), _words(after)) for before, after in _paired(affirmative, negated)]
    return share([bool(before and after) and before[0] != after[0] for before, after in both])


@checked
def preference(wanted: Sequence[float] | Column, unwanted: Sequence[float] | Column) -> Share:
    """The share of pairs in which the wanted number is larger than the unwanted one.

    For the log-probabilities of the word that makes a statement true and the word that makes it false, this is
    Ettinger 2020's completion sensitivity on NEG-136. For the pseudo-log-likelihoods of an acceptable and an
    unacceptable sentence, it is BLiMP's accuracy (Warstadt et al. 2020; Salazar et al. 2020 for masked LMs).

    Raises:
        InputError: if the two lists have different lengths, or a value is not a number.
    """
    return share([a > b for a, b in _paired(_numbers(wanted), _numbers(unwanted))])


@checked
def accuracy(predicted: Words, labels: Words) -> Share:
    """The share of items whose predicted label is correct, ignoring case.

    Raises:
        InputError: if the numbers of predictions and labels differ, or a value is not a word.
    """
    return share([guess == label for guess, label in _paired(_words(predicted), _words(labels))])


def _paired(one: Sequence[Any] | Column, other: Sequence[Any] | Column) -> Iterator[tuple[Any, Any]]:
    if getattr(one, "ndim", 1) == 0 or getattr(other, "ndim", 1) == 0:
        raise InputError("Expected a list or a one-dimensional array with one value per item, got a scalar array.")
    if len(one) != len(other):
        raise InputError(f"The two lists must have the same length; got {len(one)} and {len(other)} values.")
    return zip(one, other, strict=True)


def _words(words: Any) -> list[str]:
    """The words of a list or a column in lower case."""
    if not isinstance(words, Sequence | np.ndarray | pd.Series) or getattr(words, "ndim", 1) != 1:
        raise InputError(f"{quoted(words)} is not a list of words; give a list of strings.")
    return [_word(word) for word in words]


def _word(word: Any) -> str:
    if not isinstance(word, str):
        raise InputError(f"{quoted(word)} is not a word; give words as strings.")
    return word.strip().lower()


def _numbers(column: Sequence[float] | Column) -> list[float]:
    try:
        numbers = np.asarray(column, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"The scores are not all numbers: {error}.") from error
    if numbers.ndim != 1:
        raise InputError(f"The scores have {numbers.ndim} dimensions; give a list with one number per item.")
    return numbers.tolist()
