"""Statement pairs from and to pandas data frames."""

from collections.abc import Sequence
from dataclasses import asdict, fields

import numpy as np
import pandas as pd

from negprobe.base.arguments import checked
from negprobe.statements.pair import StatementPair
from negprobe.statements.readers.load import LoadedPairs, loaded_pairs
from negprobe.statements.readers.records import Record, Table, column_names


@checked
def from_dataframe(frame: pd.DataFrame, source: str = "") -> LoadedPairs:
    """Statement pairs from a data frame with the columns of any format that `load_pairs` reads.

    NaN, None and `pd.NA` are missing values. Unusable rows are left out and listed in `dropped`, counted from 1.

    Args:
        frame: One pair per row, or one item of another format.
        source: The data set that the pairs are from, if the data frame has no column `source`.

    Raises:
        StatementError: for missing or duplicate columns, or a data frame without a usable row.

    Example:
        >>> import pandas as pd
        >>> from negprobe.statements import from_dataframe
        >>> frame = pd.DataFrame({"original": ["It is open.", ""], "counterfactual": ["It is not open.", "No."]})
        >>> loaded = from_dataframe(frame)
        >>> len(loaded.pairs), loaded.dropped
        (1, ('The DataFrame, row 2: The original of a pair is empty; give it at least one word.',))
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
    return loaded_pairs(Table(where, source, columns, records, unit="row"))


@checked
def to_dataframe(pairs: Sequence[StatementPair]) -> pd.DataFrame:
    """A data frame with a row per pair, and a column per field and per name in `extra`.

    Missing values are None, and spans are tuples. `from_dataframe` reads it back.

    Example:
        >>> from negprobe.statements import StatementPair, to_dataframe
        >>> frame = to_dataframe([StatementPair("It is open.", "It is not open.", target="open", foil="closed")])
        >>> frame[["original", "target"]].iloc[0].tolist()
        ['It is open.', 'open']
    """
    names = [field.name for field in fields(StatementPair) if field.name != "extra"]
    rows = [
        {name: value for name, value in asdict(pair).items() if name != "extra"} | dict(pair.extra) for pair in pairs
    ]
    extra = dict.fromkeys(name for pair in pairs for name, _ in pair.extra)
    columns = [*names, *extra]
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns})
