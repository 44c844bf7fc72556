"""Atomic writing of files, even if the process is killed, and reading of regular files only."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PART = ".part"
"""The suffix of a file that is still being written."""

# The start of a cell that a spreadsheet runs as a formula, with any invisible characters before it. Full-width signs
# are included, as OWASP lists them.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` that replaces `path` once it is completely on the disk.

    A reader of `path`, also after a crash, sees either the complete old file or the complete new one. If writing fails,
    the old file is unchanged.

    Raises:
        OSError: if the file cannot be written or renamed.
    """
    path = Path(path)
    if not path.name or not _can_be_named(path):
        raise OSError(errno.EINVAL, "no file can have this name", ascii(str(path)))
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device, where reading may block or never end.
    """
    check_file(path)
    return Path(path).read_bytes()


def check_file(path: str | Path) -> None:
    """Check that a path is a regular file or a link to one.

    Raises:
        OSError: for a folder, a pipe or a device, for an invalid file name, and if the file does not exist.
    """
    if not _can_be_named(path):
        raise OSError(errno.EINVAL, "no file can have this name", ascii(str(path)))
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a regular file", str(path))


def _can_be_named(path: str | Path) -> bool:
    """Whether a file can have this name: bytes that are not UTF-8 are allowed, a lone surrogate and NUL are not."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def write_csv(table: "pd.DataFrame", path: str | Path) -> None:
    """Write a table as UTF-8 CSV, without its index, so that a spreadsheet cannot run any text as a formula.

    A text or column name that begins with a tab or line break, or with = + - @ after any spaces, is prefixed with an
    apostrophe (OWASP, CSV Injection). Numbers are unchanged. To keep texts unchanged, write parquet instead.

    Raises:
        OSError: as `whole_file`.
    """
    import pandas as pd

    inert = table.rename(columns=_inert).apply(
        lambda cells: cells if cells.dtype.kind in "biufc" else pd.Series(map(_inert, cells), cells.index, object)
    )
    with whole_file(path) as part:
        # RFC 4180 line endings. With "\n", pandas would not quote a cell that contains "\r", which would end the row.
        inert.to_csv(part, index=False, encoding="utf-8", lineterminator="\r\n")


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell
