"""Writing an HTML page to a file."""

from pathlib import Path

from negprobe.base.errors import ViewError
from negprobe.base.files import whole_file


def write_html(page: str, path: Path) -> Path:
    """Write a page to `path` atomically, and return the path.

    Raises:
        ViewError: if the file cannot be written.
    """
    try:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ViewError(f"The page {path} cannot be written: {error}. Choose another path.") from error
    return path
