"""Files as records, a broken one among them told apart from the good ones, and records as items."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from negprobe.errors import StatementError
from negprobe.files import read_bytes
from negprobe.texts import is_utf8, quoted

Row = Mapping[str, Any]
T = TypeVar("T")
U = TypeVar("U")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
"""How the names of the files end that are read."""

TEXT_COLUMN = "text"
"""The one column of a file of plain lines, named as Hugging Face names it."""


@dataclass(frozen=True)
class Record:
    """A row of a file.

    Attributes:
        line: The line it ends on, from 1.
        cells: Its values by column; None if it could not be read.
        problem: Why it could not be read.
    """

    line: int
    cells: Row | None
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """A file's rows, or those of one split of a data set.

    Attributes:
        where: Where it was read from, for messages.
        name: What it is called: the file's name without its suffix.
        columns: The names of its columns; in a JSON lines file, the keys that most of its objects have.
        records: Its rows in order, without blank lines.
    """

    where: str
    name: str
    columns: tuple[str, ...]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Read(Generic[T]):
    """What came of the records of a table.

    Attributes:
        items: What was made of the usable ones, each with the line it stands on, in order.
        dropped: Line and reason of each other one.
    """

    items: tuple[tuple[int, T], ...]
    dropped: tuple[tuple[int, str], ...]

    def then(self, make: Callable[[T], U]) -> "Read[U]":
        """What `make` makes of the items; it raises `StatementError` for one of no use."""
        items: list[tuple[int, U]] = []
        dropped = list(self.dropped)
        for line, item in self.items:
            try:
                items.append((line, make(item)))
            except StatementError as error:
                dropped.append((line, str(error)))
        return Read(tuple(items), tuple(sorted(dropped)))


def read_table(path: Path) -> Table:
    """Read a `.csv`, `.tsv`, `.jsonl` or `.txt` file in UTF-8.

    Raises:
        StatementError: for a file that is missing, of another kind or encoding, or has no readable header.
    """
    readers = dict(zip(SUFFIXES, (_csv_table, _csv_table, _json_table, _text_table), strict=True))
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise StatementError(f"{path} is not a kind of file that is read; give a {', '.join(SUFFIXES)} file.")
    if not is_utf8(str(path)):
        raise StatementError(f"The name {quoted(str(path))} is not UTF-8 text; give the file another.")
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of the first column's name.
        text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    # A line ends where an editor says it does: not at the rarer marks that str.splitlines knows.
    lines = list(io.StringIO(text, newline=""))
    if lines and "\0" in lines[0]:
        raise StatementError(f"{path} is not UTF-8 text but has NUL characters, as UTF-16 has; save it as UTF-8.")
    columns, records = readers[suffix](path, lines)
    return Table(str(path), path.stem, columns, tuple(records))


def each(table: Table, parse: Callable[[Row, int], T]) -> Read[T]:
    """What `parse` makes of each record and its number from 0; it raises `StatementError` for one of no use."""
    items: list[tuple[int, T]] = []
    dropped: list[tuple[int, str]] = []
    for number, record in enumerate(table.records):
        if record.cells is None:
            dropped.append((record.line, record.problem))
            continue
        try:
            items.append((record.line, parse(record.cells, number)))
        except StatementError as error:
            dropped.append((record.line, str(error)))
    return Read(tuple(items), tuple(dropped))


def explained(table: Table, dropped: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """One sentence for each reason that records were dropped for, with the lines they stand on."""
    lines: dict[str, list[int]] = {}
    for line, reason in dropped:
        lines.setdefault(reason, []).append(line)
    return tuple(f"{table.where}, {_listed(found)}: {reason}" for reason, found in lines.items())


def cell(row: Row, name: str) -> str | None:
    """The text in a cell as it stands there; None for an empty one.

    Raises:
        StatementError: for a value that is not text, or not text that UTF-8 can write.
    """
    value = row.get(name)
    if not isinstance(value, str | None):
        raise StatementError(f"The {name} is {quoted(value)}; it has to be text, in quotes.")
    if value is None or not value.strip():
        return None
    if not is_utf8(value):
        raise StatementError(f"The {name} {quoted(value)} is not UTF-8 text; save the file as UTF-8.")
    return value


def label(row: Row, name: str) -> str | None:
    """The text in a cell without the spaces around it; None for an empty one."""
    text = cell(row, name)
    return text.strip() if text else None


def needed(row: Row, name: str) -> str:
    """The text in a cell that has to have one, without the spaces around it."""
    text = label(row, name)
    if text is None:
        raise StatementError(f"The {name} is empty." if name in row else f"The row has no {name!r}.")
    return text


def _listed(lines: Sequence[int], shown: int = 10) -> str:
    if len(lines) == 1:
        return f"line {lines[0]}"
    more = f" and {len(lines) - shown} more" if len(lines) > shown else ""
    return f"lines {', '.join(map(str, lines[:shown]))}{more}"


def _csv_table(path: Path, lines: list[str]) -> tuple[tuple[str, ...], list[Record]]:
    rows = _csv_rows(lines, "\t" if path.suffix.lower() == ".tsv" else ",")
    header = next(rows, None)
    if header is None:
        raise StatementError(f"{path} is empty; its first line has to name the columns.")
    if header.cells is None:
        raise StatementError(f"{path}, line {header.line}: {header.problem}")
    names = tuple(name.strip() for name in header.cells.values())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StatementError(f"{path} has twice the column(s) {', '.join(map(repr, twice))}; name each of them once.")
    if any("\udc80" <= mark <= "\udcff" for name in names for mark in name):
        raise StatementError(f"{path} is not UTF-8 text; save it as UTF-8.")
    records = [
        record if record.cells is None else Record(record.line, dict(zip(names, record.cells.values(), strict=True)))
        for record in rows
    ]
    return names, records


def _csv_rows(lines: list[str], delimiter: str) -> Iterator[Record]:
    """Rows of as many cells as the first one has, by column number, without blank lines.

    A quote that is never closed takes in all the lines after it, so after a broken row reading starts again on the
    line below the one it began on.
    """
    width, start = 0, 0
    while start < len(lines):
        reader = csv.reader(islice(lines, start, None), delimiter=delimiter, strict=True)
        begun, broken = 0, ""
        while not broken:
            begun = reader.line_num
            try:
                cells = next(reader, None)
            except csv.Error as error:
                broken = f"{error}; check the quotes there."
                continue
            if cells is None:
                return
            if len(cells) <= 1 and not any(found.strip() for found in cells):
                continue
            width = width or len(cells)
            if len(cells) == width:
                yield Record(start + reader.line_num, {str(column): found for column, found in enumerate(cells)})
            else:
                broken = f"{len(cells)} cells under {width} columns; quote a cell that holds the separator."
        yield Record(start + begun + 1, None, broken)
        start += begun + 1


def _json_table(path: Path, lines: list[str]) -> tuple[tuple[str, ...], list[Record]]:
    records = [_json_record(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    # One odd object among many does not make the format: the keys that most objects have do.
    keys = Counter(tuple(sorted(record.cells)) for record in records if record.cells is not None)
    columns = keys.most_common(1)[0][0] if keys else ()
    if not columns:
        first = f" Line {records[0].line}: {records[0].problem}" if records else ""
        raise StatementError(f"{path} has no pairs in it; give one object a line.{first}")
    return columns, records


def _json_record(number: int, line: str) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, or a number of thousands of digits
        return Record(number, None, f"not JSON ({error}); give one object a line.")
    if not isinstance(row, dict) or not row:
        return Record(number, None, f'{line.strip()[:60]} is not an object like {{"original": ...}}.')
    return Record(number, row)


def _text_table(path: Path, lines: list[str]) -> tuple[tuple[str, ...], list[Record]]:
    del path
    records = [Record(number, {TEXT_COLUMN: line}) for number, line in enumerate(lines, start=1) if line.strip()]
    return (TEXT_COLUMN,), records
