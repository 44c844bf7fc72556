"""Pairs from and to pandas tables."""

from collections.abc import Sequence
from dataclasses import asdict, fields

import numpy as np
import pandas as pd

from negprobe.base.arguments import checked
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.load import LoadedPairs, loaded
from negprobe.statements.readers.records import Record, Table, column_names


@checked
def from_dataframe(frame: pd.DataFrame, source: str = "") -> LoadedPairs:
    """Statement pairs from a table with the columns of any format that `load_pairs` reads.

    NaN, None and `pd.NA` are missing values. Unusable rows are left out and listed in `dropped`, counted from 1.

    Args:
        frame: One pair per row, or whatever a row of the format contains.
        source: The data set that the pairs are from, if the table has no column `source`.

    Raises:
        StatementError: for missing or duplicate columns, or a table without a usable row.
    """
    where = "The DataFrame"
    columns = column_names(where, list(frame.columns))
    cells = frame.astype(object).to_numpy()
    missing = frame.isna().to_numpy()
    records = tuple(
        Record(
            number,
            {
                name: None if gone else value.item() if isinstance(value, np.generic) else value
                for name, value, gone in zip(columns, row, row_missing, strict=True)
            },
        )
        for number, (row, row_missing) in enumerate(zip(cells, missing, strict=True), start=1)
    )
    return loaded(Table(where, source, columns, records, unit="row"))


@checked
def to_dataframe(pairs: Sequence[StatementPair]) -> pd.DataFrame:
    """A row for each pair, with a column for each field and each name in `extra`; `from_dataframe` reads it back.

    Returns:
        Missing values are None; spans are tuples.
    """
    names = [field.name for field in fields(StatementPair) if field.name != "extra"]
    rows = [
        {name: value for name, value in asdict(pair).items() if name != "extra"} | dict(pair.extra) for pair in pairs
    ]
    extra = dict.fromkeys(name for pair in pairs for name, _ in pair.extra)
    columns = [*names, *extra]
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns})
