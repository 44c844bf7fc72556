"""The tidy table that holds every number stated about a study or a comparison: building, selecting, writing, reading.

`views` formats its rows and computes nothing.
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
"""The file of a summary in the folder of its study."""

_SINCE_2 = ("study", "cue")
SUBJECT = ("study", "site", "direction", "metric", "compared", "layer", "head", "role", "part", "group", "cue")
"""The columns that say what a row is about; those that do not apply are empty."""

A, B, CHANGE = "A", "B", "B - A"
"""The values of `study` in the summary of a comparison: each study on the common pairs, and the difference."""

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
        table: One row per number. `statistic` names the number; the columns `SUBJECT` say what it is about. `estimate`
            has the 95 % interval `low` to `high`; `hits` of `n` are counts, `n` alone is the number of pairs (or
            heads); `effect_size`, `p`, `q` and `p_max_t` are those of `statistics.effect_tests`; `note` is text. Rows
            of one statistic that form a ranking are in its order. `study` is empty for a study; in a comparison it is
            "A", "B" or "B - A", and empty for what concerns both.
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
        """The rows of one study of a comparison, as in a summary of that study alone."""
        return StudySummary(self.table[self.table["study"] == study].assign(study=""))

    def row(self, statistic: str, **subject: object) -> pd.Series | None:
        """The first of these rows; None if there is none."""
        found = self.rows(statistic, **subject)
        return None if found.empty else found.iloc[0]


def summary_of(rows: Iterable[Row]) -> StudySummary:
    """A summary of these rows; columns that a row does not give are empty."""
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
    """Read the summary from the folder of a study, or from the file that a comparison wrote.

    Summaries of earlier versions have fewer rows.

    Raises:
        NegprobeError: if there is no summary, as in the folders of earlier versions, or it is damaged or of a newer
            format.
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
    """The format of the file; the current one if the file cannot be read, so that reading it raises the error."""
    try:
        check_file(path)
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return _FORMAT
    version = metadata.get(_FORMAT_KEY, b"none").decode(errors="replace")
    if not version.isdecimal() or int(version) < 1:
        raise damaged(path, f"it has format {version}")
    if int(version) > _FORMAT:
        raise NegprobeError(
            f"{path} has format {version}, but this version of negprobe reads formats up to {_FORMAT}. Update "
            "negprobe, or run the study again."
        )
    return int(version)
