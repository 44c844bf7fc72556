"""The items of public data sets as they are scored, in the order in which they were published."""

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
from negprobe.statements.readers import blimp, neg136, nli
from negprobe.statements.readers.blimp import MinimalPair
from negprobe.statements.readers.cloze import Cloze
from negprobe.statements.readers.load import read_each, usable
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.nli import Inference
from negprobe.statements.readers.plain import REQUIRED, check_columns, plain_pairs
from negprobe.statements.readers.records import TEXT_COLUMN, Read, Table
from negprobe.statements.tokens import MASK, SEPARATOR

Kind = Literal["cloze", "minimal pairs", "inference"]


@dataclass(frozen=True, repr=False)
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
        where: The file, or the data set and split of the hub, that it was read from.
    """

    name: str
    condition: str
    kind: Kind
    items: tuple[Cloze, ...] | tuple[MinimalPair, ...] | tuple[Inference, ...]
    n_statements: int
    dropped: tuple[str, ...] = ()
    by_category: bool = False
    where: str = ""

    __repr__ = short_repr


@checked
def scored_sets(path: str | Path) -> tuple[list[ScoredSet], tuple[str, ...]]:
    """Read what `load_pairs` reads, as it is scored: a set for each file, or split of the hub.

    NEG-136 and NEG-1500 keep the items whose two words want different articles, for each word is asked behind its own,
    and those whose two statements differ by more, for the scores that are not about the difference; BLiMP and ScoNe
    keep every condition. A file of pairs is scored where its statements have a `[MASK]` with target and foil and the
    counterfactual has a negation that the original lacks. If none of its statements has a `[MASK]`, target and foil are
    labels for a classifier, which give two sets: the originals labelled with the target, and the counterfactuals
    labelled with the foil.

    An item that stands in a file more than once is scored once, for it tells nothing new, and so is a file whose items
    are those of another. Sets of one name have the file's or split's name behind it.

    Returns:
        The sets, and the reasons why other files of a folder are of no use.

    Raises:
        StatementError: as `load_pairs`.
    """
    sets, useless = read_each(path, lambda read: _scored_sets(read(None)))
    kept: dict[tuple[Kind, frozenset[Any]], ScoredSet] = {}
    for part in chain.from_iterable(sets):
        first = kept.setdefault((part.kind, frozenset(map(_asked, part.items))), part)
        if first is not part:
            useless.append(f"{part.where} has the items of {first.where}, which are scored once.")
    return _told_apart(list(kept.values()), str(Path(path))), tuple(useless)


@checked
def builtin_set() -> ScoredSet:
    """The built-in pairs."""
    clozes = tuple(_plain_cloze(numbered) for numbered in enumerate(builtin_pairs()))
    return ScoredSet("builtin", "", "cloze", clozes, 2 * len(clozes))


def _scored_sets(table: Table) -> list[ScoredSet]:
    columns = set(table.columns)
    if columns >= frozenset(REQUIRED):
        read = plain_pairs(table)
        if not any(has_gap(pair) for _, pair in read.items):
            sides = {"original": "target", "counterfactual": "foil"}
            return [
                _of(table, read.then(partial(_labelled, side=side, field=field)), "inference", table.name, side)
                for side, field in sides.items()
            ]
    return [_scored_set(table)]


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
    items: dict[Any, Any] = {}
    for _, item in read.items:
        items.setdefault(_asked(item), item)
    n_again = len(read.items) - len(items)
    if n_again:
        again = "1 item repeats an earlier one" if n_again == 1 else f"{n_again} items repeat earlier ones"
        reasons = (*reasons, f"{table.where}: {again}; each is scored once.")
    return ScoredSet(
        name, condition, kind, tuple(items.values()), n_statements or len(table.records), reasons, where=table.where
    )


def _asked(item: Cloze | MinimalPair | Inference) -> Cloze | MinimalPair | Inference:
    """An item without where it stands and how it is grouped: equal for items that ask the same."""
    return replace(item, places=(0, 0), category="") if isinstance(item, Cloze) else item


def _told_apart(sets: list[ScoredSet], path: str) -> list[ScoredSet]:
    """The sets, with what tells its place from the others' behind each name that several have."""
    # What stands between a folder and a file's name, or a hub name and its split.
    between = "/\\, "
    names = Counter((part.name, part.condition) for part in sets)
    return [
        replace(part, name=f"{part.name} ({part.where.removeprefix(path).lstrip(between)})")
        if names[part.name, part.condition] > 1
        else part
        for part in sets
    ]


def _labelled(pair: StatementPair, side: str, field: str) -> Inference:
    """One statement of a pair with its label."""
    if not (pair.target and pair.foil):
        raise StatementError("The pair names no target and foil.")
    premise, _, hypothesis = getattr(pair, side).partition(SEPARATOR)
    return Inference(premise.strip(), hypothesis.strip(), str(getattr(pair, field)))


def _plain_cloze(numbered: tuple[int, StatementPair]) -> Cloze:
    number, pair = numbered
    if not (pair.target and pair.foil):
        raise StatementError("The pair names no target and foil.")
    if pair.original.count(MASK) != 1 or pair.counterfactual.count(MASK) != 1:
        raise StatementError(f"The pair does not have one {MASK} in each statement.")
    if added_cues(pair.counterfactual, pair.original):
        raise StatementError("The original has the negation; give the affirmative as the original to score the pair.")
    # A negation that is not in our list can be told by its span.
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
