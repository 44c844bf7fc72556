"""Numbers as they stand in sentences: a share, an effect or a difference, with its 95 % interval in brackets."""

import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from negprobe.behaviour import share
from negprobe.views.labels import percent


def between(low: str, high: str, n: int) -> str:
    """An interval in brackets; nothing for one pair, which has none."""
    return f" [{low}, {high}]" if n > 1 else ""


def share_of(hits: Bool[ndarray, " pair"]) -> str:
    """How many of how many pairs, with Wilson's interval."""
    counted = share(hits.tolist())
    interval = between(percent(counted.low), percent(counted.high), counted.n)
    return f"{counted.hits} of {counted.n} pairs, {percent(counted.share)}{interval}"


def share_in_words(row: pd.Series) -> str:
    """A row of a summary that counts pairs: `hits` of `n`, the share, and its interval."""
    interval = between(percent(row["low"]), percent(row["high"]), int(row["n"]))
    return f"{row['hits']} of {row['n']} pairs, {percent(row['estimate'])}{interval}"


def head_name(row: pd.Series) -> str:
    """The head that a row is about, as "2.1"."""
    return f"{row['layer']}.{row['head']}"


def effect_in_words(row: pd.Series) -> str:
    """A row of a summary that is a normalised effect, in percent with its interval."""
    return in_percent(row["estimate"], row["low"], row["high"])


def in_percent(value: float, low: float, high: float) -> str:
    """A normalised effect in percent with its interval, if it has one."""
    return percent(value) + ("" if pd.isna(low) else f" [{percent(low)}, {percent(high)}]")


def points(difference: float, low: float, high: float) -> str:
    """A difference of shares in percentage points with its interval, if it has one."""
    value, *bounds = (_number(100 * number, "+.0f") for number in (difference, low, high))
    return f"{value} percentage points" + ("" if pd.isna(low) else f" [{bounds[0]}, {bounds[1]}]")


def signed(value: float, low: float, high: float, form: str = "+.3g") -> str:
    """A difference in its own unit with its interval, if it has one.

    Args:
        value: The difference.
        low: Its interval's lower end.
        high: Its upper end.
        form: How numbers are written, as `format` takes it.
    """
    written, *bounds = (_number(number, form) for number in (value, low, high))
    return written + ("" if pd.isna(low) else f" [{bounds[0]}, {bounds[1]}]")


def with_interval(value: float, low: float, high: float, decimals: int) -> str:
    """An effect with its interval as a cell of a table has it."""
    # A sum with 0.0 takes the minus away from what is rounded to nothing.
    rounded = (f"{round(number, decimals) + 0.0:.{decimals}f}" for number in (value, low, high))
    written, *bounds = (text.replace("-", "−") for text in rounded)
    return written + ("" if pd.isna(low) else f" [{bounds[0]}, {bounds[1]}]")


def _number(value: float, form: str) -> str:
    """A number with its sign, and without one if all its digits are 0."""
    text = format(value, form)
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("+-")
