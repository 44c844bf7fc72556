"""Reading files into records, with the unreadable ones marked, and parsing records into items."""

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
"""The suffixes of the supported files."""

TEXT_COLUMN = "text"
"""The only column of a plain text file, named as in Hugging Face's `datasets`."""

# A cell may contain line breaks, but a quote that is never closed must not consume the rest of the file.
_MOST_LINES = 1000

# Tried in this order if the separator that the suffix suggests splits the header into only one column.
_SEPARATORS = ",;\t|"

# Some programs write a line before the header that names the separator, and Excel reads it.
_NAMED_SEPARATOR = re.compile(r"sep=([,;\t|])")

_NOT_UTF8 = "is not UTF-8 text; save the file as UTF-8."


@dataclass(frozen=True)
class Record:
    """A row of a file.

    Attributes:
        line: The number of its last line, from 1.
        cells: Its values by column; None if it could not be read.
        problem: Why it could not be read; empty if it could.
    """

    line: int
    cells: Row | None
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of a file, of one split of a data set, or of a data frame.

    Attributes:
        where: The file or data set, for messages.
        name: The name of the file without its suffix, or of the data set.
        columns: The column names in the form of `column_name`; for a JSON lines file, the most common set of keys.
        records: The rows in order, without blank lines.
        is_whole: Whether `records` has all rows.
        unit: What messages call the number of a record: "line" or "row".
    """

    where: str
    name: str
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    is_whole: bool = True
    unit: str = "line"


@dataclass(frozen=True)
class ParsedRows(Generic[T]):
    """The items parsed from the records of a table, and the records that could not be used.

    Attributes:
        items: The line and the item of each usable record, in order.
        dropped: The line and the reason of each other record.
    """

    items: tuple[tuple[int, T], ...]
    dropped: tuple[tuple[int, str], ...]

    def then(self, convert: Callable[[T], U]) -> "ParsedRows[U]":
        """The results of `convert` for the items; those for which it raises `StatementError` are dropped."""
        items: list[tuple[int, U]] = []
        dropped = list(self.dropped)
        for line, item in self.items:
            try:
                items.append((line, convert(item)))
            except StatementError as error:
                dropped.append((line, str(error)))
        return ParsedRows(tuple(items), tuple(sorted(dropped)))

    def first(self, n: int | None) -> "ParsedRows[T]":
        """The first `n` items, and the dropped rows before the last of them."""
        if n is None or len(self.items) < n:
            return self
        items = self.items[:n]
        last = items[-1][0] if items else 0
        return ParsedRows(items, tuple((line, reason) for line, reason in self.dropped if line < last))


def read_table(path: Path, rows: int | None = None) -> Table:
    """The table in a `.csv`, `.tsv`, `.jsonl` or `.txt` file in UTF-8.

    Args:
        path: The file.
        rows: The maximum number of rows; no more of the file is read. None reads all.

    Raises:
        StatementError: for a file that is missing, is of another kind or encoding, or has no readable header.
    """
    readers = dict(zip(SUFFIXES, (_csv_table, _csv_table, _json_table, _text_table), strict=True))
    suffix = path.suffix.lower()
    check_name(path)
    if suffix not in readers:
        raise StatementError(f"{path} is not a supported kind of file; give a {', '.join(SUFFIXES)} file.")
    try:
        check_file(path)
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name. Iterating over the file splits
        # lines as an editor does; str.splitlines would also split at rarer separators.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            columns, all_records = readers[suffix](path, _checked_lines(path, file))
            records = tuple(islice(all_records, rows))
            is_whole = rows is None or next(all_records, None) is None
    except OSError as error:
        raise StatementError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    return Table(str(path), path.stem, columns or _json_columns(path, records), records, is_whole)


def check_name(path: str | Path) -> None:
    """Refuse a path that is not valid UTF-8, which messages and tables could not contain.

    Raises:
        StatementError: for such a path.
    """
    if not is_utf8(str(path)):
        raise StatementError(f"The name {quoted(str(path))} is not UTF-8 text; rename the file or folder.")


def column_name(name: object) -> str:
    """A column's name in lower case, with `_` for spaces and hyphens: "Cue Start" is `cue_start`."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def column_names(where: str, names: Sequence[object]) -> tuple[str, ...]:
    """Column names in the form of `column_name`; an unnamed column is named after its position, `column_3`.

    Raises:
        StatementError: for duplicate names, or a name that is not valid UTF-8.
    """
    columns = tuple(column_name(name) or f"column_{position}" for position, name in enumerate(names, start=1))
    if not all(map(is_utf8, columns)):
        raise StatementError(f"{where} is not UTF-8 text; save it as UTF-8.")
    duplicates = sorted({column for column in columns if columns.count(column) > 1})
    if duplicates:
        as_given = ", ".join(
            repr(str(name)) for name, column in zip(names, columns, strict=True) if column in duplicates
        )
        raise StatementError(
            f"{where} has duplicate column(s) {', '.join(map(repr, duplicates))} ({as_given}; names ignore case, "
            "spaces and hyphens); rename or remove one."
        )
    return columns


def parse_rows(table: Table, parse: Callable[[Row, int], T]) -> ParsedRows[T]:
    """The results of `parse` for each record and its index; those for which it raises `StatementError` are dropped."""
    items: list[tuple[int, T]] = []
    dropped: list[tuple[int, str]] = []
    for index, record in enumerate(table.records):
        if record.cells is None:
            dropped.append((record.line, record.problem))
            continue
        try:
            items.append((record.line, parse(record.cells, index)))
        except StatementError as error:
            dropped.append((record.line, str(error)))
    return ParsedRows(tuple(items), tuple(dropped))


def grouped_reasons(table: Table, dropped: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """A sentence for each different reason, with the lines of the records that were dropped for it."""
    lines: dict[str, list[int]] = {}
    for line, reason in dropped:
        lines.setdefault(reason, []).append(line)
    return tuple(f"{table.where}, {_line_list(numbers, table.unit)}: {reason}" for reason, numbers in lines.items())


def is_missing(value: object) -> bool:
    """Whether a cell has no value: empty, None, NaN, or NaN as pandas writes it to a file."""
    if isinstance(value, str):
        return value.strip() in ("", "nan", "NaN", "<NA>")
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell_text(row: Row, name: str) -> str | None:
    """The text of a cell, unchanged; None for an empty cell.

    Raises:
        StatementError: for a value that is not text or not valid UTF-8.
    """
    value = row.get(name)
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise StatementError(f"The {name} is {quoted(value)}; it must be text, in quotes.")
    if not is_utf8(value):
        raise StatementError(f"The {name} {_NOT_UTF8}")
    return value


def stripped_text(row: Row, name: str) -> str | None:
    """The text of a cell without white space at its ends; None for an empty cell."""
    text = cell_text(row, name)
    return text.strip() if text else None


def label_text(row: Row, name: str) -> str:
    """The text of a cell that names a group of rows, such as a cluster; a number is accepted too. "" for an empty cell.

    Raises:
        StatementError: for any other value, and for text that is not valid UTF-8.
    """
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():
        # pandas writes the whole numbers of a column with missing values as 3.0.
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value):
        return str(value)
    return stripped_text(row, name) or ""


def required_text(row: Row, name: str) -> str:
    """The text of a cell without white space at its ends.

    Raises:
        StatementError: for an empty or missing cell.
    """
    text = stripped_text(row, name)
    if text is None:
        raise StatementError(f"The {name} is empty." if name in row else f"The row has no {name!r}.")
    return text


def _line_list(lines: Sequence[int], unit: str, shown: int = 10) -> str:
    """ "line 3" or "lines 3, 7", with at most `shown` numbers."""
    if len(lines) == 1:
        return f"{unit} {lines[0]}"
    more = f" and {len(lines) - shown} more" if len(lines) > shown else ""
    return f"{unit}s {', '.join(map(str, lines[:shown]))}{more}"


def _checked_lines(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a file.

    Raises:
        StatementError: at the first line, if the file is UTF-16.
    """
    utf16 = tuple(mark.decode("utf-8", errors="surrogateescape") for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for number, line in enumerate(lines):
        if number == 0 and ("\0" in line or line.startswith(utf16)):
            raise StatementError(f"{path} is not UTF-8 text but has NUL characters, as UTF-16 has; save it as UTF-8.")
        yield line


def _csv_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    lines_read: list[str] = []
    for line in lines:
        named = _NAMED_SEPARATOR.fullmatch(line.strip("\r\n"))
        if named:
            separator = named[1]
        # A blank line in its place keeps the line numbers.
        lines_read.append("\n" if named else line)
        if line.strip() and not named:
            separator = _separator(line, separator)
            break
    rows = _csv_rows(chain(lines_read, lines), separator)
    header = next(rows, None)
    if header is None:
        raise StatementError(f"{path} is empty; its first line must name the columns.")
    if header.cells is None:
        raise StatementError(f"{path}, line {header.line}: {header.problem}")
    names = column_names(str(path), list(header.cells.values()))
    return names, (
        record if record.cells is None else Record(record.line, dict(zip(names, record.cells.values(), strict=True)))
        for record in rows
    )


def _separator(header: str, expected: str) -> str:
    """The separator of a header: the expected one, or the first that gives more than one column."""
    for separator in (expected, *_SEPARATORS):
        try:
            if len(next(csv.reader([header], delimiter=separator))) > 1:
                return separator
        except csv.Error:  # reported when the header is read
            return expected
    return expected


def _csv_rows(lines: Iterator[str], separator: str) -> Iterator[Record]:
    """The rows, by column number, without blank lines; a row must have as many cells as the first one.

    A quote that is never closed consumes the lines after it, so after a broken row, reading restarts on the line after
    the one on which the row began. Lines already read are kept in `pending`. If too many lines had to be read again,
    rows are limited to one line, so that the time stays linear in the length of the file.
    """
    pending: deque[str] = deque()
    n_done, width, n_read_again = 0, 0, 0
    while True:
        max_lines = _MOST_LINES if n_read_again <= 10 * (n_done + _MOST_LINES) else 1
        row_lines, cells, problem = _csv_row(pending, lines, separator, max_lines, skip_spaces=False)
        if not row_lines:
            return
        if any(re.search(rf'(?:^|{re.escape(separator)}) +"', line) for line in row_lines):
            pending.extendleft(reversed(row_lines))
            row_lines, cells, problem = _csv_row(pending, lines, separator, max_lines, skip_spaces=True)
        if not problem and len(cells) <= 1 and not any(cell.strip() for cell in cells):
            n_done += len(row_lines)
            continue
        width = width or len(cells)
        if not problem and len(cells) != width:
            problem = f"{len(cells)} cells in a row of {width} columns; quote a cell that contains the separator."
        if problem:
            pending.extendleft(reversed(row_lines[1:]))
            n_read_again += len(row_lines) - 1
            n_done += 1
            yield Record(n_done, None, problem)
        else:
            n_done += len(row_lines)
            yield Record(n_done, {str(column): cell for column, cell in enumerate(cells)})


def _csv_row(
    pending: deque[str], lines: Iterator[str], separator: str, max_lines: int, *, skip_spaces: bool
) -> tuple[list[str], list[str], str]:
    """The lines of the next row, its cells, and why it cannot be read (empty if it can).

    Args:
        pending: Lines to read before `lines`.
        lines: The remaining lines of the file.
        separator: The separator of the cells.
        max_lines: The maximum number of lines of a row.
        skip_spaces: Whether spaces before a cell are ignored, so that a quote after them opens the cell.
    """
    row_lines: list[str] = []

    def next_lines() -> Iterator[str]:
        while len(row_lines) < max_lines:
            line = pending.popleft() if pending else next(lines, None)
            if line is None:
                return
            row_lines.append(line)
            yield line

    try:
        cells = next(csv.reader(next_lines(), delimiter=separator, strict=True, skipinitialspace=skip_spaces), [])
    except csv.Error as error:
        return row_lines, [], f"{error}; check the quotes there."
    return row_lines, cells, ""


def _json_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    del path
    return (), (_json_record(number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _json_columns(path: Path, records: Sequence[Record]) -> tuple[str, ...]:
    # The most common set of keys, so that a single different object does not change the format.
    keys = Counter(tuple(sorted(record.cells)) for record in records if record.cells is not None)
    columns = keys.most_common(1)[0][0] if keys else ()
    if not columns:
        first = f" Line {records[0].line}: {records[0].problem}" if records else ""
        raise StatementError(f"{path} has no pairs in it; give one JSON object per line.{first}")
    return columns


def _json_record(number: int, line: str) -> Record:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, or a number of thousands of digits
        return Record(number, None, f"not JSON ({error}); give one JSON object per line.")
    if not isinstance(row, dict) or not row:
        return Record(number, None, f'{line.strip()[:60]} is not a JSON object like {{"original": ...}}.')
    try:
        return Record(number, dict(zip(column_names("The object", list(row)), row.values(), strict=True)))
    except StatementError as error:
        return Record(number, None, str(error))


def _text_table(path: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], Iterator[Record]]:
    del path
    records = (Record(number, {TEXT_COLUMN: line}) for number, line in enumerate(lines, start=1) if line.strip())
    return (TEXT_COLUMN,), records
