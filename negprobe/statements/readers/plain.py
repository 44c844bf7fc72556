"""Files in negprobe's own format: a column for each field of a pair, and any extra columns."""

import ast
import json
import re
from collections.abc import Collection
from typing import Any

from negprobe.base.errors import StatementError
from negprobe.base.texts import quoted
from negprobe.statements.pair import Extra, Span, StatementPair
from negprobe.statements.readers.records import (
    ParsedRows,
    Row,
    Table,
    cell_text,
    is_missing,
    label_text,
    parse_rows,
    stripped_text,
)

REQUIRED = ("original", "counterfactual")
OPTIONAL = (
    "target", "foil", "control", "cue", "category", "source", "cluster",
    "cue_start", "cue_end", "affected_start", "affected_end", "cue_spans", "affected_spans",
)  # fmt: skip

EXTRA = "extra."
"""The prefix of extra columns in a study's table of pairs."""


def check_columns(where: str, names: tuple[str, ...]) -> None:
    """Refuse a table that lacks a required column.

    Raises:
        StatementError: naming the missing columns.
    """
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise StatementError(
            f"{where} is missing column(s) {', '.join(map(repr, missing))}; it has {quoted(', '.join(names))}. "
            f"Required: {', '.join(REQUIRED)}; optional: {', '.join(OPTIONAL)}."
        )


def plain_pairs(table: Table) -> ParsedRows[StatementPair]:
    """One pair per row; without a `source` in the row it is the name of the table. Other columns become `extra`."""
    return parse_rows(table, lambda row, _: _pair(row, table.name))


def _pair(row: Row, source: str) -> StatementPair:
    check_columns("This row", tuple(row))
    original, counterfactual = (cell_text(row, name) or "" for name in REQUIRED)
    if original and original.split() == counterfactual.split():
        raise StatementError("The two statements of the pair are the same.")
    return StatementPair(
        original=original,
        counterfactual=counterfactual,
        target=stripped_text(row, "target"),
        foil=stripped_text(row, "foil"),
        control=cell_text(row, "control"),
        cue=stripped_text(row, "cue"),
        cue_spans=_spans(row, "cue"),
        affected_spans=_spans(row, "affected"),
        category=stripped_text(row, "category") or "",
        source=stripped_text(row, "source") or source,
        cluster=label_text(row, "cluster"),
        extra=extra_columns(row, (*REQUIRED, *OPTIONAL)),
    )


def extra_columns(row: Row, used: Collection[str]) -> tuple[tuple[str, Extra], ...]:
    """The columns of a row that are not used, as `StatementPair.extra`."""
    return tuple(
        (name.removeprefix(EXTRA), _extra(value))
        for name, value in row.items()
        if name not in used and not is_missing(value)
    )


def _extra(value: Any) -> Extra:
    """A value that a table can store: text or a number, and JSON for anything else."""
    # Integers that do not fit a 64-bit column are kept as text.
    if isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _spans(row: Row, name: str) -> tuple[Span, ...]:
    """The character range in `cue_start` and `cue_end`, or the ranges in `cue_spans`."""
    spans, ends = row.get(f"{name}_spans"), [row.get(f"{name}_start"), row.get(f"{name}_end")]
    if all(map(is_missing, ends)):
        return () if is_missing(spans) else _listed_spans(spans, f"{name}_spans")
    if not is_missing(spans):
        raise StatementError(f"The row has both {name}_spans and {name}_start; give only one.")
    start, end = map(_whole_number, ends)
    if start is None or end is None:
        raise StatementError(
            f"{name}_start and {name}_end are {quoted(ends[0])} and {quoted(ends[1])}; give two whole numbers, or "
            "leave both empty."
        )
    return ((start, end),)


def _listed_spans(value: Any, name: str) -> tuple[Span, ...]:
    """Ranges from a list of pairs of numbers, or from a string in Python or JSON syntax."""
    try:
        listed = ast.literal_eval(value) if isinstance(value, str) else value
        spans = tuple((_whole_number(start), _whole_number(end)) for start, end in listed)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        spans = ((None, None),)
    if any(edge is None for span in spans for edge in span):
        raise StatementError(f"{name} is {quoted(value)}; give character ranges such as ((0, 3), (8, 11)).")
    return spans  # type: ignore[return-value]


def _whole_number(value: Any) -> int | None:
    """A whole number, including "5.0", which pandas writes in a column with missing values; None for anything else."""
    found = re.fullmatch(r"\s*(\d{1,18})(\.0*)?\s*", str(value))
    return int(found[1]) if found else None
