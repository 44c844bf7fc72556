"""Files that are there as a whole or not at all, whatever stops the writing, and are read only if they are files."""

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
"""How the name of a file ends that is not finished."""

# What a spreadsheet takes for a formula, behind whatever it does not show; full-width signs too, as OWASP lists them.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A place beside `path` to write to, whose content takes the place of `path` once all of it is on the disk.

    Whoever reads `path` meanwhile, or after a crash, finds the old file or the new one. If writing fails, the old one
    stays as it was.

    Raises:
        OSError: as writing and renaming do.
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
    """What is in a file.

    Raises:
        OSError: as reading does, and for a pipe or a device, which may keep a reader waiting or never end.
    """
    check_file(path)
    return Path(path).read_bytes()


def check_file(path: str | Path) -> None:
    """Refuse what is no regular file, or a link to one.

    Raises:
        OSError: for a folder, a pipe or a device, for a name that no file can have, and if nothing is there.
    """
    if not _can_be_named(path):
        raise OSError(errno.EINVAL, "no file can have this name", ascii(str(path)))
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def _can_be_named(path: str | Path) -> bool:
    """Whether a file system takes the name: bytes that are not UTF-8 are one, half a surrogate pair is none."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def write_csv(table: "pd.DataFrame", path: str | Path) -> None:
    """Write a table as CSV in UTF-8, without its index, in which no text can run as a spreadsheet's formula.

    Text, a column's name too, that begins with = + - @, a tab or a line's end, also behind spaces, gets an apostrophe
    in front (OWASP, CSV Injection). Numbers are as they are; for texts as they are, write parquet.

    Raises:
        OSError: as `whole_file`.
    """
    import pandas as pd

    inert = table.rename(columns=_inert).apply(
        lambda cells: cells if cells.dtype.kind in "biufc" else pd.Series(map(_inert, cells), cells.index, object)
    )
    with whole_file(path) as part:
        # As RFC 4180 has it; with another line's end, a cell with \r in it would not be quoted, and end its row.
        inert.to_csv(part, index=False, encoding="utf-8", lineterminator="\r\n")


def _inert(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell
