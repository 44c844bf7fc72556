"""The summary table, which holds every number stated about a study or a comparison: build, select, write and read it.

`views` only formats its rows and computes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from negprobe.base.arguments import checked
from negprobe.base.errors import NegprobeError
from negprobe.base.files import check_file, whole_file
from negprobe.base.reprs import short_repr
from negprobe.study.reading import damaged, read_table

SUMMARY = "summary.parquet"
"""The name of the summary file in the folder of a study."""

# The columns that format 1 does not have.
_SINCE_2 = ("study", "cue")
SUBJECT = ("study", "site", "direction", "metric", "compared", "layer", "head", "role", "part", "group", "cue")
"""The columns that identify what a number refers to; those that do not apply are empty."""

A, B, CHANGE = "A", "B", "B - A"
"""The values of `study` in the summary of a comparison: the two studies on the common pairs, and their difference."""

NO_CUE = "(none found)"
"""The value of `cue` for pairs without a known cue."""

_FORMAT = 2
_FORMAT_KEY = b"negprobe.summary.format"
_INTEGERS = ("layer", "head", "hits", "n")
_NUMBERS = ("estimate", "low", "high", "effect_size", "p", "q", "p_max_t")
_COLUMNS = ("statistic", *SUBJECT, "estimate", "low", "high", "effect_size", "hits", "n", "p", "q", "p_max_t", "note")

Row = Mapping[str, object]


@dataclass(frozen=True, repr=False)
class StudySummary:
    """Every number stated about a study, or about a comparison of two studies.

    Attributes:
        table: One row per number. `statistic` names the number; the columns `SUBJECT` identify what it refers to.
            `estimate` has the 95% interval `low` to `high`. `hits` of `n` are counts; `n` alone is the number of pairs
            (or heads). `effect_size`, `p`, `q` and `p_max_t` are those of `statistics.effect_tests`; `note` is text.
            Rows that form a ranking are in its order. `study` is empty for a single study; in a comparison it is "A",
            "B" or "B - A", and empty for numbers of both studies.
    """

    table: pd.DataFrame

    __repr__ = short_repr

    def rows(self, statistic: str, **subject: object) -> pd.DataFrame:
        """The rows of a statistic, optionally of one subject, such as `rows("swap", site="z")`; may be empty."""
        chosen = self.table["statistic"] == statistic
        for name, value in subject.items():
            chosen &= (self.table[name] == value).fillna(False)
        return self.table[chosen]

    def of(self, study: str) -> "StudySummary":
        """The rows of one study of a comparison, in the form of a summary of that study alone."""
        return StudySummary(self.table[self.table["study"] == study].assign(study=""))

    def row(self, statistic: str, **subject: object) -> pd.Series | None:
        """The first row that `rows` returns; None if there is none."""
        found = self.rows(statistic, **subject)
        return None if found.empty else found.iloc[0]


def summary_of(rows: Iterable[Row]) -> StudySummary:
    """A summary of these rows; columns that a row does not have are empty."""
    table = pd.DataFrame(list(rows)).reindex(columns=list(_COLUMNS))
    text = [name for name in _COLUMNS if name not in (*_INTEGERS, *_NUMBERS)]
    types = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(text, "str")
    return StudySummary(table.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, "")).astype(types))


@checked
def write_summary(summary: StudySummary, path: str | Path) -> None:
    """Write a summary as a parquet file.

    Raises:
        OSError: if it cannot be written.
    """
    table = pa.Table.from_pandas(summary.table, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _FORMAT_KEY: str(_FORMAT).encode()})
    with whole_file(path) as part:
        pq.write_table(table, part)


@checked
def read_summary(path: str | Path) -> StudySummary:
    """The summary in the folder of a study, or in the file that a comparison wrote.

    Summaries of earlier versions of negprobe have fewer rows.

    Raises:
        NegprobeError: if there is no summary (early versions of negprobe did not write one), or if it is damaged or of
            a newer format.
    """
    folder = Path(path)
    path = folder / SUMMARY if folder.is_dir() or folder.suffix != ".parquet" else folder
    version = _format(path)
    absent = (
        f"{folder} has no {path.name}: it is not the folder of a study, or an earlier version of negprobe wrote it. "
        "Run the study again."
    )
    needed = [name for name in _COLUMNS if version > 1 or name not in _SINCE_2]
    table = read_table(path, needed, absent=absent)
    if version == 1:
        table = table.assign(**dict.fromkeys(_SINCE_2, ""))
    return StudySummary(table[list(_COLUMNS)])


def _format(path: Path) -> int:
    """The format version of the file; if the file cannot be read, the current one, so that `read_table` raises."""
    try:
        check_file(path)
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return _FORMAT
    version = metadata.get(_FORMAT_KEY, b"none").decode(errors="replace")
    if not version.isdecimal() or int(version) < 1:
        raise damaged(path, f"{version!r} is not a format version")
    if int(version) > _FORMAT:
        raise NegprobeError(
            f"{path} has format version {version}, but this version of negprobe reads only versions up to {_FORMAT}. "
            "Upgrade negprobe to read it, or run the study again."
        )
    return int(version)
