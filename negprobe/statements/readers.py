"""Statement pairs from files: CSV, TSV and JSON lines with named columns, and NEG-136 as it was published."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negprobe.errors import StatementError
from negprobe.statements.pair import Span, StatementPair
from negprobe.statements.tokens import MASK

REQUIRED = ("original", "counterfactual")
COLUMNS = (
    *REQUIRED, "target", "foil", "control", "cue", "category",
    "cue_start", "cue_end", "affected_start", "affected_end",
)  # fmt: skip

NEG136_COLUMNS = {"item", "context_aff", "context_neg", "target_aff", "target_neg"}
EITHER_ARTICLE = "(a|an)"

Row = Mapping[str, Any]


class _Unusable(Exception):
    """A row that is well-formed and cannot be measured."""


@dataclass(frozen=True)
class LoadedPairs:
    """What a file of pairs gave.

    Attributes:
        pairs: The pairs, in the file's order.
        dropped: For each row that was left out on purpose, where it stands and why.
    """

    pairs: tuple[StatementPair, ...]
    dropped: tuple[str, ...] = ()


def load_pairs(path: str | Path) -> LoadedPairs:
    """Read statement pairs from a file, or NEG-136 from its folder.

    A `.csv`, `.tsv` or `.jsonl` file in UTF-8 has the columns (or keys) `original` and `counterfactual`, and
    may have `target`, `foil`, `control`, `cue`, `category`, `cue_start` and `cue_end`, `affected_start` and
    `affected_end` (characters of the counterfactual, the end not included). An empty cell is a value not
    given; blank lines are skipped. Any other column is an error, so that nothing is lost unseen.

    NEG-136 (Ettinger 2020, doi:10.1162/tacl_a_00298) is known by its columns. Its contexts become statements
    that end in `[MASK]`, with the completion that is true of the affirmative as the target and the one true
    of the negation as the foil; the category is SIMP or NAT (its `licensing` is not kept). One article stands
    before both nouns of a SIMP item; an item whose nouns want different ones is dropped, for its article
    would give the answer away.

    Raises:
        StatementError: for a file that is missing or of another kind, and, with its line, for a row
            that is not a pair.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    rows = list(_rows(path))
    if not rows:
        raise StatementError(f"{path} has no pairs in it; give it a row for each pair.")
    pairs, dropped = [], []
    for line, row in rows:
        try:
            pairs.append(_neg136_pair(row) if set(row) >= NEG136_COLUMNS else _pair(row))
        except _Unusable as reason:
            dropped.append(f"{path}, line {line}: {reason}")
        except StatementError as error:
            raise StatementError(f"{path}, line {line}: {error}") from error
    return LoadedPairs(tuple(pairs), tuple(dropped))


def _load_folder(folder: Path) -> LoadedPairs:
    files = sorted(folder.glob("NEG-136-*.tsv"))
    if not files:
        raise StatementError(
            f"{folder} is a folder without NEG-136-*.tsv files; give one .csv, .tsv or .jsonl file of pairs."
        )
    parts = [load_pairs(file) for file in files]
    return LoadedPairs(
        tuple(pair for part in parts for pair in part.pairs),
        tuple(reason for part in parts for reason in part.dropped),
    )


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows by column name, each with the number of the line it ends on."""
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise StatementError(f"{path} is not a kind of file pairs are read from; give a .csv, .tsv or .jsonl file.")
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from readers[path.suffix.lower()](path, file)
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise StatementError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error


def _csv_rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    names: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise StatementError(f"{path}, line {reader.line_num}: {error}; check the quotes there.") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells) and len(cells) <= 1:
            continue
        if names is None:
            names = [cell.strip() for cell in cells]
            _check_columns(names, path)
        elif len(cells) != len(names):
            raise StatementError(
                f"{path}, line {reader.line_num}: {len(cells)} cells under {len(names)} columns; "
                "quote a cell that holds the separator."
            )
        else:
            yield reader.line_num, dict(zip(names, cells, strict=True))


def _json_rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise StatementError(f"{path}, line {number}: not JSON ({error}); give one object a line.") from error
        if not isinstance(row, dict):
            raise StatementError(f'{path}, line {number}: {line.strip()} is not an object like {{"original": ...}}.')
        _check_columns(list(row), f"{path}, line {number}")
        yield number, row


def _check_columns(names: list[str], where: str | Path) -> None:
    if set(names) - {"licensing"} == NEG136_COLUMNS and len(names) == len(set(names)):
        return
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    twice = sorted({name for name in names if names.count(name) > 1})
    for problem, columns in (("lacks", missing), ("has the unknown", unknown), ("has twice the", twice)):
        if columns:
            raise StatementError(
                f"{where} {problem} column(s) {', '.join(map(repr, columns))}; it needs "
                f"{', '.join(REQUIRED)} and may have "
                f"{', '.join(name for name in COLUMNS if name not in REQUIRED)}."
            )


def _pair(row: Row) -> StatementPair:
    return StatementPair(
        original=_text(row, "original") or "",
        counterfactual=_text(row, "counterfactual") or "",
        target=_label(row, "target"),
        foil=_label(row, "foil"),
        control=_text(row, "control"),
        cue=_label(row, "cue"),
        cue_spans=_spans(row, "cue"),
        affected_spans=_spans(row, "affected"),
        category=_label(row, "category") or "",
    )


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if not isinstance(value, str | None):
        raise StatementError(f"The {name} is {value!r}; it has to be text, in quotes.")
    return value if value and value.strip() else None


def _label(row: Row, name: str) -> str | None:
    text = _text(row, name)
    return text.strip() if text else None


def _spans(row: Row, name: str) -> tuple[Span, ...]:
    edges = [row.get(f"{name}_start"), row.get(f"{name}_end")]
    if all(edge in (None, "") for edge in edges):
        return ()
    try:
        start, end = (int(str(edge)) for edge in edges)
    except ValueError as error:
        raise StatementError(
            f"{name}_start and {name}_end are {edges[0]!r} and {edges[1]!r}; give two whole numbers, or neither."
        ) from error
    return ((start, end),)


def _neg136_pair(row: Row) -> StatementPair:
    contexts = [_text(row, name) or "" for name in ("context_aff", "context_neg")]
    target, foil = _label(row, "target_aff"), _label(row, "target_neg")
    if not (all(contexts) and target and foil):
        raise StatementError("A context or target of this NEG-136 item is empty; fill it in, or take the row out.")
    article, other = _article(target), _article(foil)
    if EITHER_ARTICLE in "".join(contexts) and article != other:
        raise _Unusable(
            f"the target {target!r} wants {article!r} and the foil {foil!r} {other!r}, "
            "so either article would give the answer away."
        )
    original, counterfactual = (f"{context.replace(EITHER_ARTICLE, article)} {MASK}." for context in contexts)
    category = "NAT" if "licensing" in row else "SIMP"
    return StatementPair(original, counterfactual, target, foil, category=category)


def _article(noun: str) -> str:
    """By the first letter, which is enough for NEG-136's nouns."""
    return "an" if noun[0].lower() in "aeiou" else "a"
