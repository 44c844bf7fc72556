"""The scored items of public data sets, in the order in which they were published."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from negprobe.base.arguments import checked
from negprobe.base.errors import StatementError
from negprobe.base.reprs import short_repr
from negprobe.statements import StatementPair, added_cues, builtin_pairs, has_gap
from negprobe.statements.readers import blimp, neg136, nli, queries
from negprobe.statements.readers.blimp import MinimalPair
from negprobe.statements.readers.cloze import Cloze
from negprobe.statements.readers.load import dropped_reasons, for_each_table
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.nli import Inference
from negprobe.statements.readers.plain import REQUIRED, check_columns, plain_pairs
from negprobe.statements.readers.queries import Ranking
from negprobe.statements.readers.records import TEXT_COLUMN, ParsedRows, Table
from negprobe.statements.tokens import MASK, SEPARATOR

Kind = Literal["cloze", "minimal pairs", "inference", "ranking"]
Item = Cloze | MinimalPair | Inference | Ranking


@dataclass(frozen=True, repr=False)
class ScoredSet:
    """Items that are scored together.

    Attributes:
        name: The data set.
        condition: The part of the data set, as its authors name it.
        kind: The task: predict the word at a gap ("cloze"), choose the acceptable sentence ("minimal pairs"), decide
            whether a hypothesis follows ("inference"), or rank two documents for a query ("ranking").
        items: The items.
        n_statements: Number of statements in the data set, including those left out.
        dropped: The items left out, each with its place in the file and the reason.
        by_category: Whether each category of items is also scored separately.
        where: The file, or the hub data set and split, that it was read from.
    """

    name: str
    condition: str
    kind: Kind
    items: tuple[Cloze, ...] | tuple[MinimalPair, ...] | tuple[Inference, ...] | tuple[Ranking, ...]
    n_statements: int
    dropped: tuple[str, ...] = ()
    by_category: bool = False
    where: str = ""

    __repr__ = short_repr


@checked
def scored_sets(path: str | Path) -> tuple[list[ScoredSet], tuple[str, ...]]:
    """The sets to score in a file, folder or hub data set that `load_pairs` reads: one per file or split.

    This keeps items that `load_pairs` leaves out. NEG-136 and NEG-1500 keep items whose target and foil need different
    articles, because each word is scored after its own article. They also keep items whose statements differ by more
    than the negation; these are used only for the scores that do not compare the two words. BLiMP and ScoNe keep all
    conditions. A pair from a file of pairs is scored if its statements have a `[MASK]`, it has a target and a foil, and
    the counterfactual has a negation that the original lacks. If no statement in the file has a `[MASK]`, target and
    foil are labels for a classifier, and the file gives two sets: the originals labelled with the target, and the
    counterfactuals labelled with the foil. A table of queries with two documents gives a set for the original queries
    and one for the counterfactual ones.

    Repeated items in a file are scored once, and of files with the same items only the first is scored. If several sets
    have the same name, the name of the file or split is appended.

    Returns:
        The sets, and the reasons why other files of a folder cannot be used.

    Raises:
        StatementError: in the same cases as `load_pairs`.
    """
    sets, unusable = for_each_table(path, lambda read_rows: _scored_sets(read_rows(None)))
    kept: dict[tuple[Kind, frozenset[Any]], ScoredSet] = {}
    for part in chain.from_iterable(sets):
        first = kept.setdefault((part.kind, frozenset(map(_content, part.items))), part)
        if first is not part:
            unusable.append(f"{part.where} has the same items as {first.where}, which are scored once.")
    return _with_unique_names(list(kept.values()), str(Path(path))), tuple(unusable)


@checked
def builtin_set() -> ScoredSet:
    """The built-in pairs as a set to score."""
    clozes = tuple(_plain_cloze(numbered) for numbered in enumerate(builtin_pairs()))
    return ScoredSet("builtin", "", "cloze", clozes, 2 * len(clozes))


def _scored_sets(table: Table) -> list[ScoredSet]:
    columns = set(table.columns)
    if columns >= frozenset(REQUIRED):
        pairs = plain_pairs(table)
        if not any(has_gap(pair) for _, pair in pairs.items):
            labels = {"original": "target", "counterfactual": "foil"}
            return [
                _make_set(table, pairs.then(partial(_labelled, side=side, field=field)), "inference", table.name, side)
                for side, field in labels.items()
            ]
    elif columns >= queries.COLUMNS:
        sides: tuple[Literal["original", "counterfactual"], ...] = ("original", "counterfactual")
        return [
            _make_set(table, queries.rankings(table, side), "ranking", table.name, f"{side} query") for side in sides
        ]
    return [_scored_set(table)]


def _scored_set(table: Table) -> ScoredSet:
    columns = set(table.columns)
    if columns >= neg136.COLUMNS:
        source, clozes = neg136.neg136_source(table), neg136.neg136_clozes(table)
        part = _make_set(table, clozes, "cloze", source, n_statements=2 * len(table.records))
        return replace(part, by_category="licensing" in table.columns)
    if columns == {TEXT_COLUMN}:
        return _make_set(table, neg1500_clozes(table), "cloze", table.name)
    if columns >= blimp.COLUMNS:
        pairs = blimp.blimp_minimal_pairs(table)
        phenomenon = pairs.items[0][1].phenomenon if pairs.items else ""
        return _make_set(table, pairs, "minimal pairs", "BLiMP", phenomenon)
    if columns >= nli.MONLI_COLUMNS:
        return _make_set(table, nli.monli_inferences(table), "inference", "MoNLI", table.name)
    if columns >= nli.SCONE_COLUMNS:
        return _make_set(table, nli.scone_inferences(table), "inference", nli.scone_source(table), table.name)
    check_columns(table.where, table.columns)
    number = {record.line: number for number, record in enumerate(table.records)}
    plain = plain_pairs(table)
    numbered = ParsedRows(tuple((line, (number[line], pair)) for line, pair in plain.items), plain.dropped)
    return _make_set(table, numbered.then(_plain_cloze), "cloze", table.name, n_statements=2 * len(table.records))


def _make_set(
    table: Table, parsed: ParsedRows[Any], kind: Kind, name: str, condition: str = "", n_statements: int | None = None
) -> ScoredSet:
    reasons = dropped_reasons(table, parsed, "item to score")
    items: dict[Any, Any] = {}
    for _, item in parsed.items:
        items.setdefault(_content(item), item)
    n_repeats = len(parsed.items) - len(items)
    if n_repeats:
        repeats = "1 item repeats an earlier one" if n_repeats == 1 else f"{n_repeats} items repeat earlier ones"
        reasons = (*reasons, f"{table.where}: {repeats}; each is scored once.")
    return ScoredSet(
        name, condition, kind, tuple(items.values()), n_statements or len(table.records), reasons, where=table.where
    )


def _content(item: Item) -> Item:
    """The item without its position, category and cluster, so that repeated items are equal."""
    return replace(item, statement_indices=(0, 0), category="", cluster="") if isinstance(item, Cloze) else item


def _with_unique_names(sets: list[ScoredSet], path: str) -> list[ScoredSet]:
    """The sets, with the name of the file or split appended if several sets have the same name and condition."""
    # Characters between a folder and a file's name, or between a hub name and its split.
    separators = "/\\, "
    names = Counter((part.name, part.condition) for part in sets)
    return [
        replace(part, name=f"{part.name} ({part.where.removeprefix(path).lstrip(separators)})")
        if names[part.name, part.condition] > 1
        else part
        for part in sets
    ]


def _labelled(pair: StatementPair, side: str, field: str) -> Inference:
    """One statement of a pair with its label."""
    if not (pair.target and pair.foil):
        raise StatementError("The pair has no target or no foil; a scored pair needs both.")
    premise, _, hypothesis = getattr(pair, side).partition(SEPARATOR)
    return Inference(premise.strip(), hypothesis.strip(), str(getattr(pair, field)))


def _plain_cloze(numbered: tuple[int, StatementPair]) -> Cloze:
    number, pair = numbered
    if not (pair.target and pair.foil):
        raise StatementError("The pair has no target or no foil; a scored pair needs both.")
    if pair.original.count(MASK) != 1 or pair.counterfactual.count(MASK) != 1:
        raise StatementError(f"The pair does not have exactly one {MASK} in each statement.")
    if added_cues(pair.counterfactual, pair.original):
        raise StatementError("The original has the negation; give the affirmative as the original to score the pair.")
    # A span can mark a negation that is not in the list of cues.
    if not (pair.cue_spans or added_cues(pair.original, pair.counterfactual)):
        raise StatementError("The counterfactual has no negation that the original lacks.")
    return Cloze(
        pair.original,
        pair.counterfactual,
        pair.target,
        pair.foil,
        ("", ""),
        pair.category,
        (2 * number, 2 * number + 1),
    )
