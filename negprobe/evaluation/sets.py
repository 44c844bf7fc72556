"""The items of public data sets as they are scored, in the order in which they were published."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from negprobe.errors import StatementError
from negprobe.statements import StatementPair, builtin_pairs
from negprobe.statements.readers import blimp, neg136, nli
from negprobe.statements.readers.blimp import MinimalPair
from negprobe.statements.readers.cloze import Cloze
from negprobe.statements.readers.load import read_each, usable
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.nli import Inference
from negprobe.statements.readers.plain import check_columns, plain_pairs
from negprobe.statements.readers.records import TEXT_COLUMN, Read, Table
from negprobe.statements.tokens import MASK

Kind = Literal["cloze", "minimal pairs", "inference"]


@dataclass(frozen=True)
class ScoredSet:
    """Items that are scored together.

    Attributes:
        name: The data set.
        condition: Which part of it, as its authors name it.
        kind: What is asked: a word at a gap, which of two sentences is acceptable, or whether a hypothesis follows.
        items: What is asked.
        n_statements: How many statements the data set has, those that were left out among them.
        dropped: What was left out: where it stands and why.
        by_category: Whether the categories of the items are scored apart as well.
    """

    name: str
    condition: str
    kind: Kind
    items: tuple[Cloze, ...] | tuple[MinimalPair, ...] | tuple[Inference, ...]
    n_statements: int
    dropped: tuple[str, ...] = ()
    by_category: bool = False


def scored_sets(path: str | Path) -> tuple[list[ScoredSet], tuple[str, ...]]:
    """Read what `load_pairs` reads, as it is scored: a set for each file.

    NEG-136 and NEG-1500 keep the items whose two words want different articles, for each word is asked behind its own;
    BLiMP and ScoNe keep every condition. A file of pairs is scored where its statements have a `[MASK]` with target
    and foil.

    Returns:
        The sets, and the reasons why other files of a folder are of no use.

    Raises:
        StatementError: as `load_pairs`.
    """
    sets, useless = read_each(path, _scored_set)
    return sets, tuple(useless)


def builtin_set() -> ScoredSet:
    """The built-in pairs."""
    clozes = tuple(_plain_cloze(numbered) for numbered in enumerate(builtin_pairs()))
    return ScoredSet("builtin", "", "cloze", clozes, 2 * len(clozes))


def _scored_set(table: Table) -> ScoredSet:
    columns = set(table.columns)
    if columns >= neg136.COLUMNS:
        source, clozes = neg136.neg136_source(table), neg136.neg136_clozes(table)
        part = _of(table, clozes, "cloze", source, n_statements=2 * len(table.records))
        return replace(part, by_category="licensing" in table.columns)
    if columns == {TEXT_COLUMN}:
        return _of(table, neg1500_clozes(table), "cloze", table.name)
    if columns >= blimp.COLUMNS:
        pairs = blimp.blimp_minimal_pairs(table)
        phenomenon = pairs.items[0][1].phenomenon if pairs.items else ""
        return _of(table, pairs, "minimal pairs", "BLiMP", phenomenon)
    if columns >= nli.MONLI_COLUMNS:
        return _of(table, nli.monli_inferences(table), "inference", "MoNLI", table.name)
    if columns >= nli.SCONE_COLUMNS:
        return _of(table, nli.scone_inferences(table), "inference", nli.scone_source(table), table.name)
    check_columns(table.where, table.columns)
    number = {record.line: number for number, record in enumerate(table.records)}
    read = plain_pairs(table)
    numbered = Read(tuple((line, (number[line], pair)) for line, pair in read.items), read.dropped)
    return _of(table, numbered.then(_plain_cloze), "cloze", table.name, n_statements=2 * len(table.records))


def _of(
    table: Table, read: Read[Any], kind: Kind, name: str, condition: str = "", n_statements: int | None = None
) -> ScoredSet:
    reasons = usable(table, read, "item to score")
    items = tuple(item for _, item in read.items)
    return ScoredSet(name, condition, kind, items, n_statements or len(table.records), reasons)


def _plain_cloze(numbered: tuple[int, StatementPair]) -> Cloze:
    number, pair = numbered
    if not (pair.target and pair.foil):
        raise StatementError("The pair names no target and foil.")
    if pair.original.count(MASK) != 1 or pair.counterfactual.count(MASK) != 1:
        raise StatementError(f"The pair does not have one {MASK} in each statement.")
    return Cloze(
        pair.original,
        pair.counterfactual,
        pair.target,
        pair.foil,
        ("", ""),
        pair.category,
        (2 * number, 2 * number + 1),
    )
