"""Files as records, a broken one among them told apart from the good ones, and records as items."""

import codecs
import csv
import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from negprobe.base.errors import StatementError
from negprobe.base.files import check_file
from negprobe.base.texts import is_utf8, quoted

Row = Mapping[str, Any]
T = TypeVar("T")
U = TypeVar("U")

SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
"""How the names of the files end that are read."""

TEXT_COLUMN = "text"
"""The one column of a file of plain lines, named as Hugging Face names it."""

# A cell may contain line breaks, but a quote that is never closed must not swallow the rest of the file.
_MOST_LINES = 1000

# Tried in this order if the separator that the suffix suggests splits the header into only one column.
_SEPARATORS = ",;\t|"

# Excel reads, and some programs write, a line before the header that names the separator.
_NAMED_SEPARATOR = re.compile(r"sep=([,;\t|])")

_NOT_UTF8 = "is not UTF-8 text; save the file as UTF-8."


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
        columns: The names of its columns as `column_name` writes them; in a JSON lines file, the keys that most of its
            objects have.
        records: Its rows in order, without blank lines.
        is_whole: Whether these are all of its rows.
        unit: What a row's number counts, for messages: lines or rows.
    """

    where: str
    name: str
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    is_whole: bool = True
    unit: str = "line"


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

    def first(self, n: int | None) -> "Read[T]":
        """The first `n` items, and the dropped rows before the last of them."""
        if n is None or len(self.items) < n:
            return self
        items = self.items[:n]
        return Read(items, tuple((line, reason) for line, reason in self.dropped if items and line < items[-1][0]))


def read_table(path: Path, rows: int | None = None) -> Table:
    """Read a `.csv`, `.tsv`, `.jsonl` or `.txt` file in UTF-8.

    Args:
        path: The file.
        rows: Read at most this many rows, and only the part of the file that contains them; None reads all.

    Raises:
        StatementError: for a file that is missing, of another kind or encoding, or has no readable header.
    """
    readers = dict(zip(SUFFIXES, (_csv_table, _csv_table, _json_table, _text_table), strict=True))
    suffix = path.suffix.lower()
    check_name(path)
    if suffix not in readers:
        raise StatementError(f"{path} is not a kind of file that is read; give a {', '.join(SUFFIXES)} file.")
    try:
        check_file(path)
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name. Lines end where an editor ends
        # them, not at the rarer separators that str.splitlines recognises.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            columns, found = readers[suffix](path, _checked_lines(path, file))
            records = tuple(islice(found, rows))
            is_whole = rows is None or next(found, None) is None
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    return Table(str(path), path.stem, columns or _json_columns(path, records), records, is_whole)


def check_name(path: str | Path) -> None:
    """Refuse a path that cannot be written in messages and tables.

    Raises:
        StatementError: for one with bytes that are not UTF-8.
    """
    if not is_utf8(str(path)):
        raise StatementError(f"The name {quoted(str(path))} is not UTF-8 text; rename the file or folder.")


def column_name(name: object) -> str:
    """A column's name in lower case, with `_` for spaces and hyphens: "Cue Start" is `cue_start`."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def column_names(where: str, names: Sequence[object]) -> tuple[str, ...]:
    """Column names as `column_name` writes them; an unnamed column is named after its position, `column_3`.

    Raises:
        StatementError: for duplicate names, or a name that is not valid UTF-8.
    """
    found = tuple(column_name(name) or f"column_{place}" for place, name in enumerate(names, start=1))
    if not all(map(is_utf8, found)):
        raise StatementError(f"{where} is not UTF-8 text; save it as UTF-8.")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        written = ", ".join(repr(str(name)) for name, read in zip(names, found, strict=True) if read in twice)
        raise StatementError(
            f"{where} has duplicate column(s) {', '.join(map(repr, twice))} ({written}; names ignore case, spaces and "
            "hyphens); rename or remove one."
        )
    return found


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
    return tuple(f"{table.where}, {_listed(found, table.unit)}: {reason}" for reason, found in lines.items())


def is_missing(value: object) -> bool:
    """Whether a cell has no value: empty, None, NaN, or a NaN that pandas has written as text."""
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN", "<NA>")
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell(row: Row, name: str) -> str | None:
    """The text in a cell as it stands there; None for an empty one.

    Raises:
        StatementError: for a value that is not text, or not text that UTF-8 can write.
    """
    value = row.get(name)
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise StatementError(f"The {name} is {quoted(value)}; it has to be text, in quotes.")
    if not is_utf8(value):
        raise StatementError(f"The {name} {_NOT_UTF8}")
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


def _listed(lines: Sequence[int], unit: str, shown: int = 10) -> str:
    if len(lines) == 1:
        return f"{unit} {lines[0]}"
    more = f" and {len(lines) - shown} more" if len(lines) > shown else ""
    return f"{unit}s {', '.join(map(str, lines[:shown]))}{more}"


def _checked_lines(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a file, which must not be UTF-16.

    Raises:
        StatementError: at the first line, if it is.
    """
    utf16 = tuple(mark.decode("utf-8", errors="surrogateescape") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for number, line in enumerate(lines):
        if number == 0 and ("\0" in line or line.startswith(utf16)):
            raise StatementError(f"{path} is not UTF-8 text but has NUL characters, as UTF-16 has; save it as UTF-8.")
        yield line


def _csv_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    above: list[str] = []
    for line in lines:
        named = _NAMED_SEPARATOR.fullmatch(line.strip("\r\n"))
        if named:
            separator = named[1]
        # A blank line in its place keeps the line numbers.
        above.append("\n" if named else line)
        if line.strip() and not named:
            separator = _separator(line, separator)
            break
    rows = _csv_rows(chain(above, lines), separator)
    header = next(rows, None)
    if header is None:
        raise StatementError(f"{path} is empty; its first line has to name the columns.")
    if header.cells is None:
        raise StatementError(f"{path}, line {header.line}: {header.problem}")
    names = column_names(str(path), list(header.cells.values()))
    return names, (
        record if record.cells is None else Record(record.line, dict(zip(names, record.cells.values(), strict=True)))
        for record in rows
    )


def _separator(header: str, own: str) -> str:
    """The separator of a header: the suffix's own, or the first that gives more than one column."""
    for separator in (own, *_SEPARATORS):
        try:
            if len(next(csv.reader([header], delimiter=separator))) > 1:
                return separator
        except csv.Error:  # reported when the header is read
            return own
    return own


def _csv_rows(lines: Iterator[str], separator: str) -> Iterator[Record]:
    """Rows of as many cells as the first one has, by column number, without blank lines.

    A quote that is never closed swallows the lines after it, so after a broken row reading starts again on the line
    below the one where the row began. Lines already read are kept in `waiting`. If too many lines had to be read again,
    rows of several lines are no longer looked for, so that the time stays linear in the file's length.
    """
    waiting: deque[str] = deque()
    done, width, read_again = 0, 0, 0
    while True:
        most = _MOST_LINES if read_again <= 10 * (done + _MOST_LINES) else 1
        taken, cells, problem = _csv_row(waiting, lines, separator, most, spaced=False)
        if not taken:
            return
        if any(re.search(rf'(?:^|{re.escape(separator)}) +"', line) for line in taken):
            waiting.extendleft(reversed(taken))
            taken, cells, problem = _csv_row(waiting, lines, separator, most, spaced=True)
        if not problem and len(cells) <= 1 and not any(found.strip() for found in cells):
            done += len(taken)
            continue
        width = width or len(cells)
        if not problem and len(cells) != width:
            problem = f"{len(cells)} cells under {width} columns; quote a cell that holds the separator."
        if problem:
            waiting.extendleft(reversed(taken[1:]))
            read_again += len(taken) - 1
            done += 1
            yield Record(done, None, problem)
        else:
            done += len(taken)
            yield Record(done, {str(column): found for column, found in enumerate(cells)})


def _csv_row(
    waiting: deque[str], lines: Iterator[str], separator: str, most: int, *, spaced: bool
) -> tuple[list[str], list[str], str]:
    """The lines of one row, at most `most`, its cells, and why it cannot be read (empty if it can).

    With `spaced`, spaces before a cell are ignored, so that a quote after them opens the cell.
    """
    taken: list[str] = []

    def counted() -> Iterator[str]:
        while len(taken) < most:
            line = waiting.popleft() if waiting else next(lines, None)
            if line is None:
                return
            taken.append(line)
            yield line

    try:
        cells = next(csv.reader(counted(), delimiter=separator, strict=True, skipinitialspace=spaced), [])
    except csv.Error as error:
        return taken, [], f"{error}; check the quotes there."
    return taken, cells, ""


def _json_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    del path
    return (), (_json_record(number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _json_columns(path: Path, records: Sequence[Record]) -> tuple[str, ...]:
    # One odd object among many does not make the format: the keys that most objects have do.
    keys = Counter(tuple(sorted(record.cells)) for record in records if record.cells is not None)
    columns = keys.most_common(1)[0][0] if keys else ()
    if not columns:
        first = f" Line {records[0].line}: {records[0].problem}" if records else ""
        raise StatementError(f"{path} has no pairs in it; give one object a line.{first}")
    return columns


def _json_record(number: int, line: str) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, or a number of thousands of digits
        return Record(number, None, f"not JSON ({error}); give one object a line.")
    if not isinstance(row, dict) or not row:
        return Record(number, None, f'{line.strip()[:60]} is not an object like {{"original": ...}}.')
    try:
        return Record(number, dict(zip(column_names("It", list(row)), row.values(), strict=True)))
    except StatementError as error:
        return Record(number, None, str(error))


def _text_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    del path
    records = (Record(number, {TEXT_COLUMN: line}) for number, line in enumerate(lines, start=1) if line.strip())
    return (TEXT_COLUMN,), records
