"""Tables of queries and documents for a reranker, recognised by their columns."""

from dataclasses import dataclass, replace
from typing import Literal

from negprobe.base.errors import StatementError
from negprobe.statements.documents import document_pair
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.plain import extra_columns
from negprobe.statements.readers.records import (
    ParsedRows,
    Row,
    Table,
    cell_text,
    label_text,
    parse_rows,
    required_text,
    stripped_text,
)

COLUMNS = frozenset({"query", "document"})
_TEXTS = ("counterfactual_query", "counterfactual_document", "other_document", "control_query")
_OTHERS = ("cue", "category", "source", "cluster")


@dataclass(frozen=True)
class Ranking:
    """A query, and two documents of which one should be ranked above the other.

    Attributes:
        query: The query.
        better: The document that fits the query.
        worse: The other document.
    """

    query: str
    better: str
    worse: str


def query_pairs(table: Table) -> ParsedRows[StatementPair]:
    """One pair per row, which differs in the query or in the document (see `document_pair`).

    Without a `cluster` in the row, the pairs of a query form a cluster. Other columns become `extra`.
    """
    return parse_rows(table, lambda row, _: _pair(row, table.name))


def rankings(table: Table, side: Literal["original", "counterfactual"]) -> ParsedRows[Ranking]:
    """For each row with two documents, the original or the counterfactual query and its right document."""
    return parse_rows(table, lambda row, _: _ranking(_pair(row, table.name), row, side))


def _pair(row: Row, source: str) -> StatementPair:
    query = required_text(row, "query")
    pair = document_pair(
        query, required_text(row, "document"), **{name: text for name in _TEXTS if (text := cell_text(row, name))}
    )
    if pair.original.split() == pair.counterfactual.split():
        raise StatementError("The two statements of the pair are the same.")
    return replace(
        pair,
        cue=stripped_text(row, "cue"),
        category=stripped_text(row, "category") or "",
        source=stripped_text(row, "source") or source,
        cluster=label_text(row, "cluster") or query,
        extra=extra_columns(row, (*COLUMNS, *_TEXTS, *_OTHERS)),
    )


def _ranking(pair: StatementPair, row: Row, side: Literal["original", "counterfactual"]) -> Ranking:
    if pair.target is None or pair.foil is None:
        raise StatementError("The row has no other_document; a scored row needs two documents and two queries.")
    if side == "original":
        return Ranking(required_text(row, "query"), pair.target, pair.foil)
    return Ranking(required_text(row, "counterfactual_query"), pair.foil, pair.target)
