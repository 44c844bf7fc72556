"""Data sets by their name on the Hugging Face hub."""

import re
from collections.abc import Mapping
from typing import Any

from negprobe.base.errors import StatementError
from negprobe.statements.readers.records import Record, Table, column_names

_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def is_hub_name(name: str) -> bool:
    """Whether a name is written as the hub writes it, "owner/name", with ":configuration" behind it if it has any."""
    return _NAME.fullmatch(name) is not None


def hub_tables(name: str) -> list[Table]:
    """Each split of a data set of the hub, such as "nyu-mll/blimp:sentential_negation_npi_licensor_present".

    Rows are counted from 1 and a header is not counted, so that row 1 of a .csv file is its line 2.

    Raises:
        StatementError: without Hugging Face's `datasets`, or for a data set that it cannot load.
    """
    # Imported here, so that reading local files does not import torch.
    from negprobe.models.hub import token_problem

    try:
        import datasets
    except ImportError as error:
        raise StatementError(
            f"{name} is not a file or folder here, and reading it from the Hugging Face hub needs another package: "
            "pip install 'negprobe[datasets]'."
        ) from error
    repository, _, configuration = name.partition(":")
    if problem := token_problem():
        raise StatementError(problem)
    try:
        splits: Mapping[str, Any] = datasets.load_dataset(repository, configuration or None)
    # Besides its own errors it raises those of the hub's client, of HTTP and JSON libraries, and of parsers.
    except Exception as error:
        raise StatementError(
            f"{name} is not a file or folder here, and the Hugging Face hub does not give it as a data set: "
            f"{_reason(error, repository)}"
        ) from error
    called = configuration or repository.rpartition("/")[2]
    return [_table(f"{name}, {split}", called, rows) for split, rows in splits.items()]


def _reason(error: Exception, repository: str) -> str:
    """What failed: at the hub, if that is the cause; otherwise in the data."""
    from negprobe.models.hub import explain, hub_error

    at_hub = hub_error(error)
    if at_hub is not None:
        return explain(at_hub, repository, kind="data set")
    # Errors of `datasets` often give the reason only in their cause.
    text = f"{error} ({error.__cause__})" if error.__cause__ is not None else str(error)
    return " ".join(text.split())


def _table(where: str, name: str, rows: Any) -> Table:
    written = tuple(rows.column_names)
    columns = column_names(where, written)
    records = (
        Record(number, {column: row[key] for column, key in zip(columns, written, strict=True) if key in row})
        for number, row in enumerate(rows, start=1)
    )
    return Table(where, name, columns, tuple(records))
