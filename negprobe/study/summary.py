"""Every number that a study states, computed once, as one tidy table; `views` formats its rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from jaxtyping import Float
from scipy import stats

from negprobe.attention import COMPARED
from negprobe.base.arguments import checked
from negprobe.base.errors import NegprobeError
from negprobe.base.files import check_file, whole_file
from negprobe.base.reprs import short_repr
from negprobe.behaviour import share
from negprobe.patching import averages, mean_effect
from negprobe.patching.effects import one_name
from negprobe.statements import ROLES
from negprobe.statistics import ALPHA, agreement, rank_correlation, survivors
from negprobe.study.results import Mechanism, StudyResults

SUMMARY = "summary.parquet"
"""The file of a summary in the folder of its study."""

SUBJECT = ("site", "direction", "metric", "compared", "layer", "head", "role", "part", "group")
"""The columns that say what a row is about; those that do not apply are empty."""

_FORMAT = 1
_FORMAT_KEY = b"negprobe.summary.format"
_N_NAMED = 3
_N_WORDS = 12
_INTEGERS = ("layer", "head", "hits", "n")
_NUMBERS = ("estimate", "low", "high", "effect_size", "p", "q", "p_max_t")
_COLUMNS = ("statistic", *SUBJECT, "estimate", "low", "high", "effect_size", "hits", "n", "p", "q", "p_max_t", "note")

Row = Mapping[str, object]


@dataclass(frozen=True, repr=False)
class StudySummary:
    """What a study states, a row each.

    Attributes:
        table: `statistic` names the number; `SUBJECT` says what it is about. `estimate` has the 95 % interval `low` to
            `high`; `hits` of `n` are counts, `n` alone the number of pairs (or heads); `effect_size`, `p`, `q` and
            `p_max_t` are those of `statistics.effect_tests`; `note` is text. Rows of one statistic that form a ranking
            are in its order.
    """

    table: pd.DataFrame

    __repr__ = short_repr

    def rows(self, statistic: str, **subject: object) -> pd.DataFrame:
        """The rows of a statistic, optionally of one subject, such as `rows("swap", site="z")`; empty if none."""
        chosen = self.table["statistic"] == statistic
        for name, value in subject.items():
            chosen &= (self.table[name] == value).fillna(False)
        return self.table[chosen]

    def row(self, statistic: str, **subject: object) -> pd.Series | None:
        """The first of these rows; None if there is none."""
        found = self.rows(statistic, **subject)
        return None if found.empty else found.iloc[0]


_MADE: WeakKeyDictionary[StudyResults, StudySummary] = WeakKeyDictionary()


@checked
def summarize(results: StudyResults) -> StudySummary:
    """Every number that the report and the command line state of a study, with the study's own seed.

    It is made once for each `results`: tables, figures, captions and sentences share its intervals.
    """
    if results not in _MADE:
        parts = (_pairs, _answers, _attention_changes, _effects, _cue_shares, _replicated, _patched, _mechanism)
        _MADE[results] = StudySummary(_table([row for part in parts for row in part(results)]))
    return _MADE[results]


def _table(rows: Sequence[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows).reindex(columns=list(_COLUMNS))
    text = [name for name in _COLUMNS if name not in (*_INTEGERS, *_NUMBERS)]
    types = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(text, "str")
    return table.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, "")).astype(types)


@checked
def write_summary(summary: StudySummary, folder: str | Path) -> None:
    """Write `summary.parquet` into the folder of a study.

    Raises:
        OSError: if it cannot be written.
    """
    table = pa.Table.from_pandas(summary.table, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _FORMAT_KEY: str(_FORMAT).encode()})
    with whole_file(Path(folder) / SUMMARY) as part:
        pq.write_table(table, part)


@checked
def read_summary(folder: str | Path) -> StudySummary:
    """Read the summary from the folder of a study.

    Raises:
        NegprobeError: if the folder has no summary, as studies of earlier versions, or it is damaged or of a newer
            format.
    """
    path = Path(folder) / SUMMARY
    try:
        check_file(path)
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise NegprobeError(
            f"{folder} has no {SUMMARY}: it is not the folder of a study, or an earlier version of negprobe wrote it. "
            "Run the study again."
        ) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NegprobeError(f"{path} is damaged: {error}. Run the study again.") from error
    version = (table.schema.metadata or {}).get(_FORMAT_KEY, b"none").decode(errors="replace")
    if version != str(_FORMAT):
        raise NegprobeError(
            f"{path} has format {version}, but this version of negprobe reads format {_FORMAT}. Update negprobe, or "
            "run the study again."
        )
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise NegprobeError(f"{path} is damaged: it is missing columns {', '.join(missing)}. Run the study again.")
    return StudySummary(table.to_pandas())


def attention_to_cue(results: StudyResults, patched: xr.Dataset) -> xr.DataArray:
    """The share of its value-weighted attention that a word of a patched counterfactual gives the cue, head by head."""
    shares = results.metrics["norm_to_cue"].sel(compared="counterfactual", drop=True)
    return shares.sel(pair=patched["pair"].values).mean("pair")


def _pairs(results: StudyResults) -> Iterator[Row]:
    """What was left out of the study."""
    n = len(results.pairs)
    yield {"statistic": "pairs", "estimate": n}
    yield from ({"statistic": "note", "note": note} for note in results.notes)
    for statistic, reasons in (("left_out", results.dropped), ("not_patchable", results.unpatched)):
        if reasons:
            yield {"statistic": statistic, "estimate": len(reasons), "note": reasons[0]}
    with_cue = sum(bool(pair.cue_spans) for pair in results.pairs)
    yield {"statistic": "without_cue", "hits": n - with_cue, "n": n}
    yield {"statistic": "without_control", "hits": sum(pair.control is None for pair in results.pairs), "n": n}
    yield {"statistic": "contributions", "hits": results.cue_shares.sizes["pair"], "n": with_cue}
    words = results.unknown_words
    if words:
        more = ", …" if len(words) > _N_WORDS else ""
        yield {"statistic": "unknown_words", "estimate": len(words), "note": ", ".join(words[:_N_WORDS]) + more}


def _answers(results: StudyResults) -> Iterator[Row]:
    """What the model answers before anything is patched; `note` of the first row is the kind of answer."""
    answers, seed = results.answers, results.seed
    kind = _kind_of_answer(results)
    yield {"statistic": "answers", "hits": len(answers), "n": len(results.pairs), "note": kind}
    if answers.empty:
        return
    controlled = answers["control"].dropna()
    if kind == "embedding":
        cosines = 1 - answers["original"]
        yield {"statistic": "cosine", **_mean(cosines.to_numpy(), seed)}
        yield {"statistic": "cosine_range", "low": cosines.min(), "high": cosines.max()}
        if len(controlled):
            yield {"statistic": "control_nearer", **_share(controlled > 0)}
    elif kind == "score":
        change = answers["counterfactual"] - answers["original"]
        yield {"statistic": "score_change", **_mean(change.to_numpy(), seed)}
        for side in ("original", "counterfactual", "control"):
            scores = answers[side].dropna()
            if len(scores):
                yield {"statistic": "score", "compared": side, "estimate": scores.mean(), "n": len(scores)}
    elif kind == "own label":
        changed = np.repeat([True, False], [len(answers), len(results.same_labels)])
        yield {"statistic": "label_changed", **_share(changed)}
    else:
        right = {"original": answers["original"] > 0, "counterfactual": answers["counterfactual"] < 0}
        right |= {"both": right["original"] & right["counterfactual"], "control": controlled > 0}
        for side, hits in right.items():
            if len(hits):
                yield {"statistic": "right", "compared": side, **_share(hits)}


def _kind_of_answer(results: StudyResults) -> str:
    if results.cfg.head == "none":
        return "embedding"
    if len(results.cfg.labels) == 1:
        return "score"
    if results.own_labels:
        return "own label"
    return "word" if results.cfg.head == "masked_lm" else "label"


def _attention_changes(results: StudyResults) -> Iterator[Row]:
    """Where nothing can be tested: the heads whose attention changes most."""
    if results.tests is not None and "untestable" not in results.tests.attrs:
        return
    change = results.metrics["mean_attention_diff"]
    if results.tests is None:
        mean = change.sel(compared=["counterfactual"]).mean("pair")
    else:
        yield {"statistic": "untestable", "note": results.tests.attrs["untestable"]}
        mean = change.dropna("pair", how="any").mean("pair").sel(compared=list(COMPARED))
    for layer, head in _largest(mean.sel(compared="counterfactual", drop=True)):
        for side in mean["compared"].values:
            value = float(mean.sel(compared=side, layer=layer, head=head))
            yield {"statistic": "attention_change", "compared": side, "layer": layer, "head": head, "estimate": value}


def _largest(values: xr.DataArray) -> list[tuple[int, int]]:
    """Layer and head of the largest values, the largest first."""
    cells = values.stack(cell=("layer", "head"))
    order = np.argsort(-cells.fillna(-np.inf).values, kind="stable")[:_N_NAMED]
    return [(int(layer), int(head)) for layer, head in cells["cell"].values[order]]


def _effects(results: StudyResults) -> Iterator[Row]:
    """The tests of every head: how many pass, which are the strongest, and whether the values change the picture."""
    tests = results.tests
    if tests is None:
        return
    n_heads = tests.sizes["layer"] * tests.sizes["head"]
    yield {"statistic": "tests", "hits": int((tests["n"] > 0).sum()), "n": int(tests["n"].max())}
    yield {"statistic": "tested_metrics", "estimate": tests.sizes["metric"]}
    if "resolution" in tests.attrs:
        yield {"statistic": "resolution", "note": tests.attrs["resolution"]}
    for criterion in ("q", "p_max_t"):
        hits = int((tests[criterion] <= ALPHA).any("metric").sum())
        yield {"statistic": "responding_heads", "part": criterion, "hits": hits, "n": n_heads}
    numbers = ["metric", "layer", "head", "low", "high", "effect_size", "n", "p", "q", "p_max_t"]
    passing = survivors(tests).drop_duplicates(["layer", "head"]).head(_N_NAMED)
    for row in passing.to_dict("records"):
        yield {"statistic": "strongest_effect", "estimate": row["effect"], **{name: row[name] for name in numbers}}
    raw, weighted = "attention_to_cue", "norm_to_cue"
    found = agreement(tests, raw, weighted)
    both = {"metric": raw, "compared": weighted}
    yield {"statistic": "rank_correlation", **both, "estimate": found.correlation, "p": found.p}
    yield {"statistic": "opposite_signs", **both, "hits": len(found.disagreeing), "n": n_heads}
    for row in found.disagreeing.head(_N_NAMED).to_dict("records"):
        yield {"statistic": "opposite_sign", **both, "layer": row["layer"], "head": row["head"]}


def _cue_shares(results: StudyResults) -> Iterator[Row]:
    """For each measure, the layer in which the cue's share differs most from the neutral word's."""
    tests = results.cue_share_tests
    if tests is None:
        return
    for measure in tests["metric"].values:
        by_layer = tests.sel(metric=measure)
        layer = int(abs(by_layer["effect"]).argmax("layer"))
        cell = {name: by_layer[name].values[layer] for name in ("low", "high", "effect_size", "n", "p", "q", "p_max_t")}
        effect = by_layer["effect"].values[layer]
        yield {"statistic": "cue_share_effect", "metric": measure, "layer": layer, "estimate": effect, **cell}


def _replicated(results: StudyResults) -> Iterator[Row]:
    """In how many groups of pairs the effects replicate; `group` is what the groups are, "cue" or "source"."""
    for by, found in results.replications.items():
        n_heads = found.sizes["layer"] * found.sizes["head"]
        yield {"statistic": "groups", "group": by, "estimate": found.sizes["group"]}
        hits = int((found["q_partial"] <= ALPHA).any("metric").sum())
        yield {"statistic": "replicated_heads", "group": by, "part": "q_partial", "hits": hits, "n": n_heads}
        hits = int((found["replicated"] >= found.attrs["at_least"]).any("metric").sum())
        yield {"statistic": "replicated_heads", "group": by, "part": "uncorrected", "hits": hits, "n": n_heads}
        n = np.sort(found["n"].max(("metric", "layer", "head")).values)[::-1]
        at_least = found.attrs["at_least"]
        # The least p of a group of n pairs is 2 of its 2^n sign flips, or the first of the drawn ones.
        floor = max(2.0 ** (1 - int(n[at_least - 1])), 1 / (1 + found.attrs["n_resamples"]))
        least = (len(n) - at_least + 1) * floor
        yield {"statistic": "pairs_per_group", "group": by, "low": n[-1], "high": n[0], "p": least}


def _patched(results: StudyResults) -> Iterator[Row]:
    """Every swap's effect with its interval, without the cells that no pair has."""
    if not results.patching:
        return
    n = len(results.patched)
    yield {"statistic": "patched", "hits": n, "n": len(results.answers)}
    yield {"statistic": "from_control", "hits": results.from_control, "n": n}
    resid = results.patching["resid_pre", "denoising"]
    yield {"statistic": "affirmative_run", "note": one_name(resid["source_run"])}
    yield {"statistic": "near_zero_gap", "hits": len(mean_effect(resid).attrs["near_zero_gap"]), "n": n}
    for (site, direction), patched in results.patching.items():
        yield from _averages("swap", patched, results.seed, site=site, direction=direction)


def _mechanism(results: StudyResults) -> Iterator[Row]:
    """Knock-outs of the cue, whether the heads that attend to it matter, and the circuit."""
    found = results.mechanism
    if found is None:
        return
    yield from _averages("knock_out", found.knock_out, results.seed)
    # The names that `stages.KNOCK_OUT_SETS` gives the sets.
    cuts: dict[object, Row] = {f"layer {layer}": {"layer": layer} for layer in range(results.cfg.n_layers)}
    cuts |= {f"at {role}": {"role": role} for role in ROLES}
    for row in _averages("knock_out_set", found.knock_out_sets, results.seed):
        yield {**row, **cuts.get(row["part"], {})}
    if ("z", "denoising") in results.patching:
        yield from _attending_and_mattering(results)
    yield from _circuit(found)


def _attending_and_mattering(results: StudyResults) -> Iterator[Row]:
    patched = results.patching["z", "denoising"]
    effects, attention = mean_effect(patched).values, attention_to_cue(results, patched).values
    both = np.isfinite(effects) & np.isfinite(attention)
    correlation, p = rank_correlation(effects[both], attention[both])
    yield {"statistic": "attention_and_effect", "estimate": correlation, "p": p, "n": int(both.sum())}
    if not np.isnan(correlation):
        layer, head = np.unravel_index(int(np.nanargmax(attention)), attention.shape)
        rank = int((np.abs(effects) > abs(effects[layer, head])).sum()) + 1
        cell = {"layer": layer, "head": head}
        yield {"statistic": "effect_rank_of_most_attending", **cell, "estimate": rank, "n": effects.size}


def _circuit(found: Mechanism) -> Iterator[Row]:
    circuit = found.circuit
    if circuit is None:
        yield {"statistic": "no_circuit", "note": found.no_circuit}
        return
    low, high = circuit.interval
    n_search = {"n": circuit.n_search}
    yield {"statistic": "circuit", "hits": len(circuit), "n": len(circuit.scores), "note": circuit.ablation}
    for part in sorted(circuit.components):
        cell = {"layer": part.layer, "head": part.head, "part": str(part)}
        yield {"statistic": "circuit_member", **cell, "estimate": circuit.scores[part], **n_search}
    interval = {"low": low, "high": high, "n": circuit.n_held_out}
    yield {"statistic": "faithfulness", "estimate": circuit.faithfulness, **interval}
    yield {"statistic": "search_faithfulness", "estimate": circuit.search_faithfulness, **n_search}
    yield {"statistic": "threshold", "estimate": circuit.threshold}
    yield {"statistic": "random_faithfulness", "part": "mean", "estimate": circuit.random_faithfulness}
    yield {"statistic": "random_faithfulness", "part": "best", "estimate": circuit.random_best}
    table = circuit.completeness
    single = table[table["n_removed"] == 1].sort_values("gap", ascending=False)
    halves = table["gap"][table["n_removed"] > 1]
    yield {"statistic": "completeness_gap", "part": "mean", "estimate": single["gap"].mean()}
    worst = {"note": str(single["removed"].iloc[0])}
    yield {"statistic": "completeness_gap", "part": "worst", "estimate": single["gap"].max(), **worst}
    if len(halves):
        yield {"statistic": "completeness_gap", "part": "random halves", "estimate": halves.mean()}
    least = circuit.minimality.sort_values("largest_change").iloc[0]
    yield {"statistic": "minimality", "estimate": least["largest_change"], "note": str(least["component"])}
    yield {"statistic": "cpr", "estimate": circuit.cpr}
    yield {"statistic": "cmd", "estimate": circuit.cmd}


def _averages(statistic: str, patched: xr.Dataset, seed: int, **subject: str) -> Iterator[Row]:
    names = {"effect": "estimate", "n_pairs": "n", "patch": "part"}
    table = averages(patched, seed=seed).dropna(subset="effect").rename(columns=names)
    yield from ({"statistic": statistic, **subject, **row} for row in table.to_dict("records"))


def _share(hits: pd.Series | np.ndarray) -> Row:
    counted = share(hits.tolist())
    interval = {"low": counted.low, "high": counted.high}
    return {"estimate": counted.share, **interval, "hits": counted.hits, "n": counted.n}


def _mean(values: Float[np.ndarray, " pair"], seed: int) -> Row:
    """The mean with its 95 % percentile bootstrap interval, which is NaN for fewer than two values."""
    low = high = np.nan
    if len(values) > 1:
        found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(seed))
        low, high = found.confidence_interval
    return {"estimate": values.mean(), "low": low, "high": high, "n": len(values)}
