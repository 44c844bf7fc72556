"""Pairs from any of the formats: which one a file has is told by its columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from negprobe.arguments import checked
from negprobe.errors import StatementError
from negprobe.reprs import short_repr
from negprobe.statements.builtin import builtin_pairs
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers import blimp, neg136, nli
from negprobe.statements.readers.cloze import cloze_pair
from negprobe.statements.readers.hub import hub_tables, is_hub_name
from negprobe.statements.readers.neg1500 import neg1500_clozes
from negprobe.statements.readers.plain import check_columns, plain_pairs
from negprobe.statements.readers.records import SUFFIXES, TEXT_COLUMN, Read, Table, explained, read_table

BUILTIN = "builtin"
"""What names the built-in pairs wherever a file could stand."""

T = TypeVar("T")

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
def load_pairs(*paths: str | Path) -> LoadedPairs:
    """Read statement pairs from files, from folders with all that is below them, or from the Hugging Face hub.

    "builtin" stands for `builtin_pairs`.

    A `.csv`, `.tsv` or `.jsonl` file in UTF-8 has the columns (or keys) `original` and `counterfactual`, and
    may have `target`, `foil`, `control`, `cue`, `category`, `cue_start` and `cue_end`, `affected_start` and
    `affected_end` (characters of the counterfactual, the end not included). An empty cell is a value not
    given; blank lines are skipped. Any other column is an error, so that nothing is lost unseen.

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

    Raises:
        StatementError: for a path that is not there, a file of another kind or with wrong columns, or a file or folder
            of which no row is usable.
    """
    return _together([_load(path) for path in paths])


def read_each(path: str | Path, use: Callable[[Table], T]) -> tuple[list[T], list[str]]:
    """What `use` makes of each table of a file, a folder with all that is below it, or a data set of the hub.

    Returns:
        What was made, and the reasons why other files of a folder are of no use.

    Raises:
        StatementError: if there is no table, or none of use.
    """
    place = Path(path)
    if not str(path):
        raise StatementError("An empty name is no file of pairs; give a file, a folder, or a data set of the hub.")
    try:
        is_folder, is_there = place.is_dir(), place.exists()
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if not is_folder:
        from_hub = not is_there and place.suffix.lower() not in SUFFIXES and is_hub_name(str(path))
        return [use(table) for table in (hub_tables(str(path)) if from_hub else [read_table(place)])], []
    made: list[T] = []
    useless: list[str] = []
    for file in sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and not _is_about(file)):
        try:
            made.append(use(read_table(file)))
        except StatementError as error:
            useless.append(str(error))
    if not made:
        more = f" And {len(useless) - 3} more." if len(useless) > 3 else ""
        reasons = " ".join(useless[:3]) + more or f"It has no {', '.join(SUFFIXES)} file."
        raise StatementError(f"{path} is a folder without a file of use. {reasons}")
    return made, useless


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
        first = f"; line {read.dropped[0][0]}: {read.dropped[0][1]}" if read.dropped else "."
        raise StatementError(f"{table.where} has no {what} in {len(table.records)} rows{first}")
    return explained(table, read.dropped)


def _load(path: str | Path) -> LoadedPairs:
    if path == BUILTIN:
        return LoadedPairs(tuple(builtin_pairs()))
    parts, useless = read_each(path, _loaded)
    return _together([*parts, LoadedPairs((), tuple(useless), useless=tuple(useless))])


def _loaded(table: Table) -> LoadedPairs:
    read = pairs_of(table)
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
