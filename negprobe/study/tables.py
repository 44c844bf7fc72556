"""The numbers of a study as tidy tables, written to files in its folder."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import xarray as xr
from pyarrow.parquet import ParquetWriter

from negprobe.attention import BY_ROLE, DISTANCES, METRICS
from negprobe.base.arguments import checked
from negprobe.base.errors import InputError, NegprobeError
from negprobe.base.files import whole_file
from negprobe.base.provenance import now, versions
from negprobe.base.texts import is_utf8, quoted
from negprobe.patching import Direction
from negprobe.patching.effects import RUN_NAMES, tidy
from negprobe.statements import StatementPair, to_dataframe
from negprobe.statements.readers.plain import EXTRA
from negprobe.statistics import effects_table
from negprobe.study.figure_file import FIGURE_FILE, write_figure_file
from negprobe.study.formats import FORMAT
from negprobe.study.results import Mechanism, StudyResults
from negprobe.study.summary_table import SUMMARY, write_summary

_PAIRS_IN_CHUNK = 128


@checked
def write_numbers(results: StudyResults, out: str | Path, command: str | None = None) -> dict[str, object]:
    """The manifest of a study, after the tables, the circuit and the manifest have been written to a folder.

    Args:
        results: The results of the study.
        out: The folder; it is created if it does not exist.
        command: The command that ran the study, for the manifest; by default that of this process.

    Raises:
        NegprobeError: if the folder cannot be written to.
        InputError: for a command that is not valid UTF-8 text.
    """
    out = Path(out)
    if command is not None and not is_utf8(command):
        raise InputError(f"The command {quoted(command)} is not valid UTF-8 text; correct it.")
    tables = {
        "pairs": pairs_table(results.pairs).join(results.alignments),
        "negation_effects": negation_effects_table(results),
        "replication": replication_table(results.replications),
        "answers": results.answers,
        "patching": patching_table(results.patching),
        **mechanism_tables(results.mechanism),
    }
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: not a valid name of a folder
        raise cannot_write(out, error) from error
    try:
        files = [f"{name}.parquet" for name in (*_write_measures(results, out), *tables)]
        for name, table in tables.items():
            with whole_file(out / f"{name}.parquet") as part:
                _for_parquet(table).to_parquet(part, index=False)
        write_summary(results.summary, out / SUMMARY)
        files.append(SUMMARY)
        if results.tests is not None:
            with whole_file(out / "negation_effects.nc") as part:
                results.tests.to_netcdf(part, engine="scipy")
            files.append("negation_effects.nc")
        if results.mechanism is not None and results.mechanism.circuit is not None:
            results.mechanism.circuit.save(out / "circuit.json")
            files.append("circuit.json")
        write_figure_file(results, out / FIGURE_FILE)
        files.append(FIGURE_FILE)
        files += ["figures", "manifest.json", *(name for name in ("study.json", "shards") if (out / name).exists())]
        manifest = _manifest(results, command or " ".join(sys.argv), files)
        # The manifest is written last, so that a folder with a manifest has all the other files.
        with whole_file(out / "manifest.json") as part:
            part.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(out, error) from error
    return manifest


def cannot_write(out: Path, error: OSError | ValueError) -> NegprobeError:
    """The error for a folder of a study that cannot be written to."""
    return NegprobeError(
        f"The folder {str(out)!a} cannot be written to: {error}. The files in it are kept. Remove the cause of the "
        "error, then run the same study again to resume."
    )


def _write_measures(results: StudyResults, out: Path) -> list[str]:
    """The names of the tables of metrics and cue shares, after writing them in chunks of pairs to save memory."""
    with ExitStack() as files:
        writers: dict[str, ParquetWriter] = {}
        for start in range(0, len(results.pairs), _PAIRS_IN_CHUNK):
            chunk = slice(start, start + _PAIRS_IN_CHUNK)
            in_chunk = results.cue_shares["pair"].isin(range(chunk.start, chunk.stop))
            shares = results.cue_shares[in_chunk.values].to_dataframe("share").dropna().reset_index()
            tables = metrics_tables(results.metrics.isel(pair=chunk).load()) | {"cue_shares": shares}
            for name, table in tables.items():
                if name not in writers:
                    part = files.enter_context(whole_file(out / f"{name}.parquet"))
                    schema = pa.Schema.from_pandas(table.astype({c: "str" for c in table if table[c].dtype == object}))
                    writers[name] = files.enter_context(ParquetWriter(part, schema))
                writers[name].write_table(pa.Table.from_pandas(table, writers[name].schema, preserve_index=False))
        return list(writers)


def pairs_table(pairs: Sequence[StatementPair]) -> pd.DataFrame:
    """The pairs as a table, one row per pair; the names of columns that negprobe does not use begin with `extra.`."""
    own = {field.name for field in fields(StatementPair)}
    table = to_dataframe(pairs).rename(columns=lambda name: name if name in own else f"{EXTRA}{name}")
    return table.rename_axis("pair").reset_index()


def patching_table(patching: Mapping[tuple[str, Direction], xr.Dataset]) -> pd.DataFrame:
    """All patching results as one tidy table: one row per site, direction, pair, layer and part (such as "3,cue")."""
    tables = []
    for (site, direction), results in patching.items():
        by = [str(dim) for dim in results["patched"].dims if dim not in ("pair", "layer")]
        table = results.to_dataframe().reset_index()
        part = table[by[0]].astype(str)
        for other in by[1:]:
            part = part + "," + table[other].astype(str)
        table = table.assign(site=site, direction=direction, by=",".join(by), part=part)
        tables.append(table.dropna(subset=["patched"]))
    columns = ["site", "direction", "by", "pair", "layer", "part", "patched", "base", "source", *RUN_NAMES]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def mechanism_tables(mechanism: Mechanism | None) -> dict[str, pd.DataFrame]:
    """The tidy tables `knock_out` (by head), `knock_out_sets` (by layer and role) and `readings`; empty for None."""
    if mechanism is None:
        return {}
    readings = mechanism.readings["share"].to_dataframe("share").dropna().reset_index()
    return {
        "knock_out": tidy(mechanism.knock_out),
        "knock_out_sets": tidy(mechanism.knock_out_sets),
        "readings": readings,
    }


def metrics_tables(metrics: xr.Dataset) -> dict[str, pd.DataFrame]:
    """The metrics as tidy tables, without the rows in which every metric is NaN.

    Returns:
        `metrics` (one row per pair, compared, layer and head), `metrics_by_role` (also per role), and `distances` of
        the original (one row per pair, layer and head).
    """
    names = {"metrics": METRICS, "metrics_by_role": BY_ROLE, "distances": DISTANCES}
    along_pair = [name for name, coord in metrics.coords.items() if coord.dims == ("pair",) and name != "pair"]
    bare = metrics.drop_vars(along_pair)
    return {
        table: bare[list(columns)].to_dataframe().dropna(how="all").reset_index() for table, columns in names.items()
    }


def negation_effects_table(results: StudyResults) -> pd.DataFrame:
    """`statistics.effects_table` of the study's tests, with the mean of each metric for counterfactual and control."""
    columns = ["metric", "layer", "head", "counterfactual", "control"]
    if results.tests is None:
        return pd.DataFrame(columns=columns)
    by_metric = xr.Dataset({name: _means_of_both(results.metrics[name]) for name in METRICS}).to_array("metric")
    means = by_metric.to_dataset("compared").to_dataframe().reset_index()
    return means[columns].merge(effects_table(results.tests), on=columns[:3], how="right")


def _means_of_both(metric: xr.DataArray) -> xr.DataArray:
    """The means of a metric over the pairs in which it is defined for both counterfactual and control."""
    # A sum taken shard by shard would differ in its last digits, so the metric is loaded whole.
    both = metric.compute()
    return both.where(both.notnull().all("compared")).mean("pair")


def replication_table(replications: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """All replications as one tidy table: one row per kind of group, group, metric, layer and head."""
    tables = [found.to_dataframe().reset_index().assign(by=by) for by, found in replications.items()]
    columns = ["by", "group", "metric", "layer", "head"]
    if not tables:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables, ignore_index=True)
    return table[[*columns, *(name for name in table.columns if name not in columns)]]


def _for_parquet(table: pd.DataFrame) -> pd.DataFrame:
    """The table with tuples, and columns of mixed types, converted to text, which every parquet reader can read."""
    kinds = {c: set(table[c].dropna().map(type)) if table[c].dtype == object else set() for c in table.columns}
    odd = [c for c, found in kinds.items() if tuple in found or len(found) > 1]
    return table.assign(**{c: table[c].map(lambda value: value if value is None else str(value)) for c in odd})


def _manifest(results: StudyResults, command: str, files: Sequence[str]) -> dict[str, object]:
    cfg = results.cfg
    return {
        "format": FORMAT,
        "command": command,
        "made": now(),
        "seconds": round(results.seconds, 1),
        "model": {
            "name": cfg.model_name,
            # Empty for a model that was not loaded from the hub.
            "revision": cfg.revision,
            # The text before each statement; empty for most models.
            "prompt": cfg.prompt,
            "family": cfg.family,
            "head": cfg.head,
            "labels": list(cfg.labels),
            "layers": cfg.n_layers,
            "heads": cfg.n_heads,
            "d_model": cfg.d_model,
            "dtype": str(cfg.dtype).removeprefix("torch."),
            "device": cfg.device,
        },
        "data": {
            "source": results.source,
            "pairs": len(results.pairs),
            "answered": len(results.answers),
            "patched": len(results.patched),
            "contributions": results.cue_shares.sizes["pair"],
            "searched": 0 if results.mechanism is None else len(results.mechanism.searched),
            "dropped": list(results.dropped),
            "not_patched": list(results.unpatched),
            "notes": list(results.notes),
            "unknown_words": list(results.unknown_words),
        },
        "seed": results.seed,
        "objective": results.objective,
        "smallest_effect": results.smallest_effect,
        "files": list(files),
        **versions(),
        "earlier_environments": [one for one in results.environments if one != versions()],
    }
