"""Files that are there as a whole or not at all, whatever stops the writing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"
"""How the name of a file ends that is not finished."""


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A place beside `path` to write to, whose content takes the place of `path` once all of it is on the disk.

    Whoever reads `path` meanwhile, or after a crash, finds the old file or the new one. If writing fails, the old one
    stays as it was.

    Raises:
        OSError: as writing and renaming do.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
