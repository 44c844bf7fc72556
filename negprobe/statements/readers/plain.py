"""Pairs as negprobe writes them: a column for each field."""

from negprobe.errors import StatementError
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.readers.records import Read, Row, Table, cell, each, label
from negprobe.texts import quoted

REQUIRED = ("original", "counterfactual")
OPTIONAL = (
    "target", "foil", "control", "cue", "category",
    "cue_start", "cue_end", "affected_start", "affected_end",
)  # fmt: skip


def check_columns(where: str, names: tuple[str, ...]) -> None:
    """Refuse columns that would be lost unseen.

    Raises:
        StatementError: for a missing or unknown column.
    """
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in (*REQUIRED, *OPTIONAL)]
    for problem, columns in (("lacks", missing), ("has the unknown", unknown)):
        if columns:
            raise StatementError(
                f"{where} {problem} column(s) {', '.join(map(repr, columns))}; it needs {', '.join(REQUIRED)} and may "
                f"have {', '.join(OPTIONAL)}."
            )


def plain_pairs(table: Table) -> Read[StatementPair]:
    """A pair a row, from the data set that the file is named after."""
    return each(table, lambda row, _: _pair(row, table.name))


def _pair(row: Row, source: str) -> StatementPair:
    check_columns("This row", tuple(row))
    return StatementPair(
        original=cell(row, "original") or "",
        counterfactual=cell(row, "counterfactual") or "",
        target=label(row, "target"),
        foil=label(row, "foil"),
        control=cell(row, "control"),
        cue=label(row, "cue"),
        cue_spans=_spans(row, "cue"),
        affected_spans=_spans(row, "affected"),
        category=label(row, "category") or "",
        source=source,
    )


def _spans(row: Row, name: str) -> tuple[Span, ...]:
    edges = [row.get(f"{name}_start"), row.get(f"{name}_end")]
    if all(edge in (None, "") for edge in edges):
        return ()
    try:
        start, end = (int(str(edge)) for edge in edges)
    except ValueError as error:
        raise StatementError(
            f"{name}_start and {name}_end are {quoted(edges[0])} and {quoted(edges[1])}; give two whole "
            "numbers, or neither."
        ) from error
    return ((start, end),)
