"""Pairs from files of any format, recognised by their columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, StatementError
from negprobe.base.reprs import short_repr
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers import blimp, neg136, nli
from negprobe.statements.readers.cloze import cloze_pair
from negprobe.statements.readers.hub import hub_tables, is_hub_name
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.plain import check_columns, plain_pairs
from negprobe.statements.readers.records import (
    SUFFIXES,
    TEXT_COLUMN,
    Read,
    Table,
    check_name,
    explained,
    read_table,
)

BUILTIN = "builtin"
"""What names the built-in pairs wherever a file could stand."""

T = TypeVar("T")

ReadRows = Callable[[int | None], Table]
"""Reads at most the given number of a table's first rows, or all of them for None."""

# How many rows are read first if only a few pairs are requested.
_FIRST_ROWS = 256

# Texts about a data set, as they stand beside it; no data, so not reported as a file of no use.
_ABOUT = frozenset({"readme", "license", "licence", "source", "citation", "notice", "changelog"})


@dataclass(frozen=True, repr=False)
class LoadedPairs:
    """What files of pairs gave.

    Attributes:
        pairs: The pairs, in the files' order; each says in `source` which data set it is from.
        dropped: What was left out, rows and whole files: where it stands and why. Rows of one reason are told together,
            so this is not the place to count them.
        n_dropped: How many rows (of NEG-1500: pairs of lines) were left out of the files that gave pairs.
        useless: Those of `dropped` that are whole files: they gave no pair, and are not counted in `n_dropped`.
    """

    pairs: tuple[StatementPair, ...]
    dropped: tuple[str, ...] = ()
    n_dropped: int = 0
    useless: tuple[str, ...] = ()

    __repr__ = short_repr


@checked
def load_pairs(*paths: str | Path, limit: int | None = None) -> LoadedPairs:
    """Read statement pairs from files, from folders with all that is below them, or from the Hugging Face hub.

    "builtin" stands for `builtin_pairs`.

    A `.csv`, `.tsv` or `.jsonl` file in UTF-8 has the columns (or keys) `original` and `counterfactual`, and
    may have `target`, `foil`, `control`, `cue`, `category`, `source`, `cue_start` and `cue_end`, `affected_start` and
    `affected_end` (characters of the counterfactual, the end not included), or for several ranges `cue_spans` and
    `affected_spans` (`((4, 7), (20, 23))`). Any other column is kept in `StatementPair.extra`. Column names ignore
    case, spaces and hyphens ("Cue Start" is `cue_start`). An empty cell or a NaN is a missing value; blank lines are
    skipped, and pairs of equal statements are dropped. The cells of a `.csv` file may be separated by commas,
    semicolons, tabs or `|`; spaces before a quote that opens a cell are ignored.

    These data sets are known by their columns, or lines, as they were published:

    - NEG-136 (Ettinger 2020) and NEG-1500-SIMP (Shivagunde et al. 2023): statements that end in `[MASK]`, with the
      word that is true of the affirmative as the target and the one true of the negation as the foil. Both are asked
      in the same context; where they want different articles, either would give the answer away, and the item is
      left out.
    - ScoNe's NLI files (She et al. 2023) and MoNLI (Geiger et al. 2020): "premise [SEP] hypothesis" without and with
      negation, the labels as target and foil.
    - BLiMP (Warstadt et al. 2020), where the two sentences differ by a negation; no target and no foil.

    A name like "text-machine-lab/NEG-1500-SIMP-TEMP" or "nyu-mll/blimp:sentential_negation_npi_licensor_present" that
    is not a path is read from the hub, which needs `pip install negprobe[datasets]`.

    A row that is broken or of no use is left out and named in `dropped`, and so is a file of no use in a folder. A
    text about the data beside them (README.txt, LICENSE.txt, SOURCE.txt) is not read.

    Args:
        paths: What to read.
        limit: The most pairs to take from each path; no more of its files is read than necessary.

    Raises:
        StatementError: for a path that is not there, a file of another kind or with wrong columns, or a file or folder
            of which no row is usable.
        InputError: for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, or None for all pairs; got {limit}.")
    return _together([_load(path, limit) for path in paths])


def read_each(
    path: str | Path, use: Callable[[ReadRows], T], enough: Callable[[], bool] = lambda: False
) -> tuple[list[T], list[str]]:
    """The result of `use` for each table of a file, a folder with its subfolders, or a hub data set.

    Args:
        path: The file, folder or name.
        use: Called with a function that reads the table.
        enough: Called before each table; True stops reading.

    Returns:
        The results, and the reasons why other files of a folder are unusable.

    Raises:
        StatementError: if there is no table, or none of use.
    """
    place = Path(path)
    if not str(path):
        raise StatementError("An empty name is no file of pairs; give a file, a folder, or a data set of the hub.")
    check_name(path)
    try:
        is_folder, is_there = place.is_dir(), place.exists()
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    made: list[T] = []
    useless: list[str] = []
    for read in _tables(place, str(path), is_folder=is_folder, is_there=is_there):
        if enough():
            break
        try:
            made.append(use(read))
        except StatementError as error:
            if not is_folder:
                raise
            useless.append(str(error))
    if not made:
        more = f" And {len(useless) - 3} more." if len(useless) > 3 else ""
        reasons = " ".join(useless[:3]) + more or f"It has no {', '.join(SUFFIXES)} file."
        raise StatementError(f"No readable pair files in {path}. {reasons}")
    return made, useless


def _tables(place: Path, name: str, *, is_folder: bool, is_there: bool) -> list[ReadRows]:
    if is_folder:
        files = sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and not _is_about(file))
        return [partial(read_table, file) for file in files]
    if not is_there and place.suffix.lower() not in SUFFIXES and is_hub_name(name):
        return [lambda rows, table=table: table for table in hub_tables(name)]  # type: ignore[misc]
    return [partial(read_table, place)]


def pairs_of(table: Table) -> Read[StatementPair]:
    """The pairs of a table of any format.

    Raises:
        StatementError: for columns that are none of them.
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
    check_columns(table.where, table.columns)
    return plain_pairs(table)


def usable(table: Table, read: Read[Any], what: str) -> tuple[str, ...]:
    """The reasons why rows were left out.

    Raises:
        StatementError: if every row was.
    """
    if not read.items:
        first = f"; {table.unit} {read.dropped[0][0]}: {read.dropped[0][1]}" if read.dropped else "."
        raise StatementError(f"{table.where} has no {what} in {len(table.records)} rows{first}")
    return explained(table, read.dropped)


def _load(path: str | Path, limit: int | None) -> LoadedPairs:
    if path == BUILTIN:
        return LoadedPairs(tuple(builtin_pairs()[:limit]))
    left = limit

    def use(read: ReadRows) -> LoadedPairs:
        nonlocal left
        part = _first_pairs(read, left)
        left = None if left is None else left - len(part.pairs)
        return part

    parts, useless = read_each(path, use, enough=lambda: left == 0)
    return _together([*parts, LoadedPairs((), tuple(useless), useless=tuple(useless))])


def _first_pairs(read: ReadRows, limit: int | None) -> LoadedPairs:
    """The first `limit` pairs of a table, reading more rows until there are enough."""
    rows = None if limit is None else max(_FIRST_ROWS, 2 * limit)
    while True:
        table = read(rows)
        if table.is_whole or rows is None:
            return loaded(table, limit)
        try:
            found = loaded(table, limit)
            if len(found.pairs) == limit:
                return found
        except StatementError:
            # Later rows may be usable, or determine the format of a JSON lines file.
            pass
        rows *= 4


def loaded(table: Table, limit: int | None = None) -> LoadedPairs:
    """The first pairs of a table, and what was left out before the last of them.

    Raises:
        StatementError: for columns of no known format, or if no row is usable.
    """
    read = pairs_of(table).first(limit)
    reasons = usable(table, read, "usable pair")
    return LoadedPairs(tuple(pair for _, pair in read.items), reasons, len(read.dropped))


def _together(parts: Sequence[LoadedPairs]) -> LoadedPairs:
    return LoadedPairs(
        tuple(pair for part in parts for pair in part.pairs),
        tuple(reason for part in parts for reason in part.dropped),
        sum(part.n_dropped for part in parts),
        tuple(reason for part in parts for reason in part.useless),
    )


def _is_about(file: Path) -> bool:
    return file.suffix.lower() == ".txt" and file.stem.lower() in _ABOUT
