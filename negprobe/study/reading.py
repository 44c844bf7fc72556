"""Reads the tables in a study's folder, with clear errors for missing or damaged ones."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from negprobe.base.errors import NegprobeError
from negprobe.base.files import check_file


def read_table(path: Path, columns: Iterable[str], *, absent: str) -> pd.DataFrame:
    """The table in a parquet file.

    Args:
        path: The file.
        columns: The columns that it must have.
        absent: The error message if there is no such file.

    Raises:
        NegprobeError: if the file does not exist, cannot be read, or is missing columns.
    """
    try:
        check_file(path)
        table = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise NegprobeError(absent) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, str(error)) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise damaged(path, f"it is missing columns {', '.join(missing)}")
    return table


def damaged(path: Path, why: str) -> NegprobeError:
    """The error for a damaged file of a finished study."""
    return NegprobeError(f"{path} is damaged: {why}. Run the study again.")
