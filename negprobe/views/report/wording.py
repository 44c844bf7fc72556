"""Phrases from rows of a summary: a share, an effect or a difference, with its 95 % interval in brackets."""

from dataclasses import dataclass

import pandas as pd

from negprobe.statistics import ALPHA
from negprobe.study.summary_table import StudySummary
from negprobe.views.labels import percent


@dataclass(frozen=True)
class Terms:
    """The words for the difference between the two statements of a pair.

    Attributes:
        change: What was changed.
        words: The words that were changed, in the counterfactual.
        effect: The effect of the change.
        statements: The two statements.
    """

    change: str
    words: str
    effect: str
    statements: str


_TERMS = {
    "cue": Terms("the negation", "the cue", "the effect of negation", "a statement and its negation"),
    "changed": Terms("the change", "the changed words", "the effect of the change", "the two statements of a pair"),
}


def terms(summary: StudySummary) -> Terms:
    """The words for the difference between the statements of a study's or comparison's pairs."""
    differing = summary.row("differing_role")
    # The pairs of studies by older versions differ by a cue.
    return _TERMS["cue" if differing is None else differing["note"]]


def both_right(summary: StudySummary) -> str:
    """A verb phrase, before a share of pairs, for a right answer to both statements of a pair."""
    return f"gives the right answer both without and with {terms(summary).change} on"


def between(low: str, high: str, n: int) -> str:
    """An interval in brackets; empty for a single pair, which has no interval."""
    return f" [{low}, {high}]" if n > 1 else ""


def share_in_words(row: pd.Series) -> str:
    """A count of pairs: `hits` of `n`, the share, and its interval."""
    interval = between(percent(row["low"]), percent(row["high"]), int(row["n"]))
    return f"{row['hits']} of {row['n']} pairs, {percent(row['estimate'])}{interval}"


def head_name(row: pd.Series) -> str:
    """The head that a row is about, as "2.1"."""
    return f"{row['layer']}.{row['head']}"


def furthest_from_0(rows: pd.DataFrame) -> pd.Series:
    """The row with the estimate furthest from 0."""
    return rows.sort_values("estimate", key=lambda values: -values.abs(), kind="stable").iloc[0]


def effect_in_words(row: pd.Series) -> str:
    """A normalised effect in percent with its interval, if it has one."""
    interval = "" if pd.isna(row["low"]) else f" [{percent(row['low'])}, {percent(row['high'])}]"
    return percent(row["estimate"]) + interval


def points(row: pd.Series) -> str:
    """A difference of shares in percentage points with its interval, if it has one."""
    value, *bounds = (_number(100 * row[name], "+.0f") for name in ("estimate", "low", "high"))
    return f"{value} percentage points" + ("" if pd.isna(row["low"]) else f" [{bounds[0]}, {bounds[1]}]")


def signed(row: pd.Series, form: str = "+.3g") -> str:
    """A difference in its own unit with its interval, if it has one.

    Args:
        row: A row of a summary.
        form: The format specification of the numbers, as for `format`.
    """
    written, *bounds = (_number(row[name], form) for name in ("estimate", "low", "high"))
    return written + ("" if pd.isna(row["low"]) else f" [{bounds[0]}, {bounds[1]}]")


def with_interval(row: pd.Series, decimals: int) -> str:
    """An effect with its interval, for a cell of a table."""
    # Adding 0.0 turns -0.0 into 0.0.
    rounded = (f"{round(row[name], decimals) + 0.0:.{decimals}f}" for name in ("estimate", "low", "high"))
    written, *bounds = (text.replace("-", "−") for text in rounded)
    return written + ("" if pd.isna(row["low"]) else f" [{bounds[0]}, {bounds[1]}]")


def heads_respond(summary: StudySummary) -> str:
    """A clause on how many heads show any difference between the negation and a neutral word, without a full stop."""
    by_q, by_max_t = (summary.rows("responding_heads", part=part).iloc[0] for part in ("q", "p_max_t"))
    pairs = summary.rows("tests").iloc[0]["n"]
    corrected = f"q ≤ {ALPHA:g} after correction for every head and metric, {pairs} pairs"
    change = terms(summary).change
    if summary.row("strongest_effect") is None:
        return f"none of {by_q['n']} heads responds differently to {change} than to a neutral word ({corrected})"
    return (
        f"some difference, of any size, between {change} and a neutral word of the same length is significant in "
        f"{by_q['hits']} of {by_q['n']} heads ({corrected}; {by_max_t['hits']} by max-T)"
    )


def circuit_preserves(summary: StudySummary) -> str:
    """A clause on the size of a circuit and what it preserves, without a full stop; "" without a circuit."""
    circuit, faithful = summary.row("circuit"), summary.row("faithfulness")
    random = summary.row("random_faithfulness", part="mean")
    if circuit is None or faithful is None or random is None:
        return ""
    return (
        f"a circuit of {circuit['hits']} of {circuit['n']} components preserves {effect_in_words(faithful)} of "
        f"{terms(summary).effect} on {faithful['n']} held-out pairs; random sets of the same size preserve "
        f"{percent(random['estimate'])} on average"
    )


def sentence(text: str) -> str:
    """A clause as a sentence, with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _number(value: float, form: str) -> str:
    """A number with its sign; without a sign if all its digits are 0."""
    text = format(value, form)
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("+-")
