"""Reading data sets from the Hugging Face hub."""

import re
from collections.abc import Mapping
from typing import Any

from negprobe.base.errors import StatementError
from negprobe.statements.readers.records import Record, Table, column_names

_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def is_hub_name(name: str) -> bool:
    """Whether a name has the form "owner/name" or "owner/name:configuration"."""
    return _NAME.fullmatch(name) is not None


def hub_tables(name: str) -> list[Table]:
    """A table for each split of a hub data set, such as "nyu-mll/blimp:sentential_negation_npi_licensor_present".

    Rows are counted from 1, without the header: row 1 of a .csv file is its line 2.

    Raises:
        StatementError: if Hugging Face's `datasets` is not installed or cannot load the data set.
    """
    # Imported here, so that reading local files does not import torch.
    from negprobe.models.hub import token_problem

    try:
        import datasets
    except ImportError as error:
        raise StatementError(
            f"There is no file or folder {name}, and reading it from the Hugging Face hub requires another package: "
            "pip install 'negprobe[datasets]'."
        ) from error
    repository, _, configuration = name.partition(":")
    if problem := token_problem():
        raise StatementError(problem)
    try:
        splits: Mapping[str, Any] = datasets.load_dataset(repository, configuration or None)
    # Besides its own errors, it raises those of the hub's client, of HTTP and JSON libraries, and of parsers.
    except Exception as error:
        raise StatementError(
            f"There is no file or folder {name}, and it could not be loaded as a data set of the Hugging Face hub: "
            f"{_reason(error, repository)}"
        ) from error
    table_name = configuration or repository.rpartition("/")[2]
    return [_table(f"{name}, {split}", table_name, rows) for split, rows in splits.items()]


def _reason(error: Exception, repository: str) -> str:
    """Why loading failed: the hub's error if there was one, otherwise the error in the data."""
    from negprobe.models.hub import explain, hub_error

    at_hub = hub_error(error)
    if at_hub is not None:
        return explain(at_hub, repository, kind="data set")
    # Errors of `datasets` often give the reason only in their cause.
    text = f"{error} ({error.__cause__})" if error.__cause__ is not None else str(error)
    return " ".join(text.split())


def _table(where: str, name: str, rows: Any) -> Table:
    original_names = tuple(rows.column_names)
    columns = column_names(where, original_names)
    records = (
        Record(number, {column: row[key] for column, key in zip(columns, original_names, strict=True) if key in row})
        for number, row in enumerate(rows, start=1)
    )
    return Table(where, name, columns, tuple(records))
