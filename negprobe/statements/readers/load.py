"""Loading pairs from files of any supported format, which is recognised by the columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, StatementError
from negprobe.base.reprs import short_repr
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.changes import change_pairs
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers import blimp, neg136, nli, queries
from negprobe.statements.readers.cloze import cloze_pair
from negprobe.statements.readers.hub import hub_tables, is_hub_name
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.plain import REQUIRED, check_columns, plain_pairs
from negprobe.statements.readers.records import (
    SUFFIXES,
    TEXT_COLUMN,
    ParsedRows,
    Table,
    check_name,
    grouped_reasons,
    read_table,
)

BUILTIN = "builtin"
"""The name of the built-in pairs, accepted in place of a file."""

CHANGES = "changes"
"""The name of the built-in pairs without a cue, accepted in place of a file."""

_BUILT_IN = {BUILTIN: builtin_pairs, CHANGES: change_pairs}

T = TypeVar("T")

ReadRows = Callable[[int | None], Table]
"""Reads at most the given number of a table's first rows, or all of them for None."""

# The number of rows that are read first if only a few pairs are requested.
_FIRST_ROWS = 256

# Names of text files that document a data set; they are not read, and not reported as unusable.
_DOCUMENTATION = frozenset({"readme", "license", "licence", "source", "citation", "notice", "changelog"})


@dataclass(frozen=True, repr=False)
class LoadedPairs:
    """The pairs of one or more files, and what was left out.

    Attributes:
        pairs: The pairs, in the order of the files; `source` of each is its data set.
        dropped: For rows and whole files that were left out, where they are and why. Rows with the same reason share
            one entry, so use `n_dropped` to count them.
        n_dropped: Number of rows (NEG-1500: pairs of lines) that were left out of files with usable pairs.
        unusable_files: The entries of `dropped` for whole files without a usable pair, not counted in `n_dropped`.
    """

    pairs: tuple[StatementPair, ...]
    dropped: tuple[str, ...] = ()
    n_dropped: int = 0
    unusable_files: tuple[str, ...] = ()

    __repr__ = short_repr


@checked
def load_pairs(*paths: str | Path, limit: int | None = None) -> LoadedPairs:
    """Statement pairs from files, from folders and their subfolders, or from the Hugging Face hub.

    "builtin" gives the built-in pairs, and "changes" those that differ by something other than a negation.

    A `.csv`, `.tsv` or `.jsonl` file in UTF-8 must have the columns (or keys) `original` and `counterfactual`. It may
    have `target`, `foil`, `control`, `cue`, `category`, `source`, `cluster` (see `StatementPair`), `cue_start` and
    `cue_end`, `affected_start` and `affected_end` (characters of the counterfactual, the end not included), or for
    several ranges `cue_spans` and `affected_spans` (`((4, 7), (20, 23))`). Any other column is kept in
    `StatementPair.extra`. Column names ignore case, spaces and hyphens ("Cue Start" is `cue_start`). An empty cell or a
    NaN is a missing value. Blank lines are skipped, and pairs of two equal statements are dropped. The cells of a
    `.csv` file may be separated by commas, semicolons, tabs or `|`; spaces before a quote that opens a cell are
    ignored.

    These data sets are recognised as published, by their columns or lines:

    - NEG-136 (Ettinger 2020) and NEG-1500-SIMP (Shivagunde et al. 2023): statements that end in `[MASK]`. The target is
      the word that makes the affirmative true, and the foil the word that makes the negation true. Items whose target
      and foil need different articles are left out, because either article would give the answer away.
    - ScoNe's NLI files (She et al. 2023) and MoNLI (Geiger et al. 2020): "premise [SEP] hypothesis" without and with
      negation, with the labels as target and foil. Pairs made from the same sentence form a cluster.
    - BLiMP (Warstadt et al. 2020): sentences that differ by a negation, without target and foil.
    - Tables for a reranker, with the columns `query`, `document`, and either `counterfactual_query` (and, if known,
      `other_document` and `control_query`) or `counterfactual_document`: "query [SEP] document" statements (see
      `document_pair`).

    A name such as "text-machine-lab/NEG-1500-SIMP-TEMP" or "nyu-mll/blimp:sentential_negation_npi_licensor_present"
    that is not a path is read from the hub, which requires `pip install negprobe[datasets]`.

    Unusable rows, and unusable files of a folder, are left out and listed in `dropped`. Text files that document a data
    set (README.txt, LICENSE.txt, SOURCE.txt) are not read.

    Args:
        paths: The files, folders and names.
        limit: Maximum number of pairs from each path; its files are read only as far as necessary.

    Raises:
        StatementError: for a path that does not exist, a file of an unsupported kind or with wrong columns, or a file
            or folder without a usable row.
        InputError: for a limit below 1.

    Example:
        >>> from negprobe import load_pairs
        >>> load_pairs("builtin", limit=3).pairs[2].cue
        'never'
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, or None for all pairs; got {limit}.")
    return _concatenated([_load(path, limit) for path in paths])


def for_each_table(
    name_or_path: str | Path, use: Callable[[ReadRows], T], is_enough: Callable[[], bool] = lambda: False
) -> tuple[list[T], list[str]]:
    """The result of `use` for each table of a file, a folder with its subfolders, or a hub data set.

    Args:
        name_or_path: The file, the folder, or the name of the data set.
        use: Called with a function that reads the table.
        is_enough: Called before each table; True stops reading.

    Returns:
        The results, and the reasons why other files of a folder are unusable.

    Raises:
        StatementError: if there is no usable table.
    """
    path = Path(name_or_path)
    if not str(name_or_path):
        raise StatementError("The name of the pair file is empty; give a file, a folder, or a data set of the hub.")
    check_name(name_or_path)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise StatementError(f"{name_or_path} cannot be read ({error.strerror}); check the path.") from error
    results: list[T] = []
    unusable: list[str] = []
    for read_rows in _tables(path, str(name_or_path), is_folder=is_folder, exists=exists):
        if is_enough():
            break
        try:
            results.append(use(read_rows))
        except StatementError as error:
            if not is_folder:
                raise
            unusable.append(str(error))
    if not results:
        more = f" And {len(unusable) - 3} more." if len(unusable) > 3 else ""
        reasons = " ".join(unusable[:3]) + more or f"It has no {', '.join(SUFFIXES)} file."
        raise StatementError(f"No readable pair files in {name_or_path}. {reasons}")
    return results, unusable


def _tables(path: Path, name: str, *, is_folder: bool, exists: bool) -> list[ReadRows]:
    """Functions that read the tables; a hub data set has one per split, a folder one per file."""
    if is_folder:
        return [
            partial(read_table, file)
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in SUFFIXES and not _is_documentation(file)
        ]
    if not exists and path.suffix.lower() not in SUFFIXES and is_hub_name(name):
        return [lambda rows, table=table: table for table in hub_tables(name)]  # type: ignore[misc]
    return [partial(read_table, path)]


def parse_pairs(table: Table) -> ParsedRows[StatementPair]:
    """The pairs of a table, in the format that its columns match.

    Raises:
        StatementError: if they match none.
    """
    columns = set(table.columns)
    if columns >= neg136.COLUMNS:
        return neg136.neg136_clozes(table).then(lambda cloze: cloze_pair(cloze, neg136.neg136_source(table)))
    if columns == {TEXT_COLUMN}:
        return neg1500_clozes(table).then(lambda cloze: cloze_pair(cloze, table.name))
    if columns >= blimp.COLUMNS:
        return blimp.blimp_pairs(table)
    if columns >= nli.MONLI_COLUMNS:
        return nli.monli_pairs(table)
    if columns >= nli.SCONE_COLUMNS:
        return nli.scone_pairs(table)
    if columns >= queries.COLUMNS and not columns & set(REQUIRED):
        return queries.query_pairs(table)
    check_columns(table.where, table.columns)
    return plain_pairs(table)


def dropped_reasons(table: Table, parsed: ParsedRows[Any], what: str) -> tuple[str, ...]:
    """The reasons why rows were left out.

    Raises:
        StatementError: if all rows were; `what` is what the message calls one usable row.
    """
    if not parsed.items:
        first = f"; {table.unit} {parsed.dropped[0][0]}: {parsed.dropped[0][1]}" if parsed.dropped else "."
        raise StatementError(f"{table.where} has no {what} in {len(table.records)} rows{first}")
    return grouped_reasons(table, parsed.dropped)


def _load(path: str | Path, limit: int | None) -> LoadedPairs:
    if path in _BUILT_IN:
        return LoadedPairs(tuple(_BUILT_IN[str(path)]()[:limit]))
    remaining = limit

    def load_table(read_rows: ReadRows) -> LoadedPairs:
        nonlocal remaining
        part = _first_pairs(read_rows, remaining)
        remaining = None if remaining is None else remaining - len(part.pairs)
        return part

    parts, unusable = for_each_table(path, load_table, is_enough=lambda: remaining == 0)
    return _concatenated([*parts, LoadedPairs((), tuple(unusable), unusable_files=tuple(unusable))])


def _first_pairs(read_rows: ReadRows, limit: int | None) -> LoadedPairs:
    """The first `limit` pairs of a table; more rows are read until there are enough."""
    rows = None if limit is None else max(_FIRST_ROWS, 2 * limit)
    while True:
        table = read_rows(rows)
        if table.is_whole or rows is None:
            return loaded_pairs(table, limit)
        try:
            found = loaded_pairs(table, limit)
            if len(found.pairs) == limit:
                return found
        except StatementError:
            # Later rows may be usable, or determine the format of a JSON lines file.
            pass
        rows *= 4


def loaded_pairs(table: Table, limit: int | None = None) -> LoadedPairs:
    """The first `limit` pairs of a table, and the rows that were dropped before the last of them.

    Raises:
        StatementError: for columns that match no format, or if no row is usable.
    """
    parsed = parse_pairs(table).first(limit)
    reasons = dropped_reasons(table, parsed, "usable pair")
    return LoadedPairs(tuple(pair for _, pair in parsed.items), reasons, len(parsed.dropped))


def _concatenated(parts: Sequence[LoadedPairs]) -> LoadedPairs:
    return LoadedPairs(
        tuple(pair for part in parts for pair in part.pairs),
        tuple(reason for part in parts for reason in part.dropped),
        sum(part.n_dropped for part in parts),
        tuple(reason for part in parts for reason in part.unusable_files),
    )


def _is_documentation(file: Path) -> bool:
    return file.suffix.lower() == ".txt" and file.stem.lower() in _DOCUMENTATION
