"""Computes all numbers stated about a study, as rows of one tidy table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats

from negprobe.attention import COMPARED, METRICS, HeadReading, StatementAttention
from negprobe.base.arguments import checked
from negprobe.behaviour import share
from negprobe.patching import averages, score_margin
from negprobe.patching.circuits import Circuit
from negprobe.statistics import (
    ALPHA,
    SMALLEST_EFFECT,
    agreement,
    effects_table,
    rank_correlation,
    responding,
    survivors,
)
from negprobe.study.results import StudyResults
from negprobe.study.stages import differing_role, knock_out_patches
from negprobe.study.summary_table import NO_CUE, Row, StudySummary, summary_of

_N_NAMED = 3
_N_WORDS = 12
_N_CONTROLS = 6


@checked
def summarize(results: StudyResults) -> StudySummary:
    """All numbers that the report and the command line state about a study, computed with the study's seed.

    `results.summary` computes it once: tables, figures, captions and sentences share its intervals. Metrics are read
    from the shards before they are averaged: summed shard by shard, a mean would differ in its last digits.
    """
    parts = (
        *(_pairs, _answers, _attention_changes, _effects, _cue_shares, _replicated, _patched, _mechanism),
        *(_metric_means, _largest_effects, _contributions, _example),
    )
    return summary_of(row for part in parts for row in part(results))


def _pairs(results: StudyResults) -> Iterator[Row]:
    """The size of the study, and what was left out of it."""
    n = len(results.pairs)
    yield {"statistic": "pairs", "estimate": n}
    yield {"statistic": "layers", "estimate": results.cfg.n_layers}
    yield {"statistic": "heads_per_layer", "estimate": results.cfg.n_heads}
    yield from ({"statistic": "note", "note": note} for note in results.notes)
    for statistic, reasons in (("left_out", results.dropped), ("not_patchable", results.unpatched)):
        if reasons:
            yield {"statistic": statistic, "estimate": len(reasons), "note": reasons[0]}
    with_cue = sum(bool(pair.cue_spans) for pair in results.pairs)
    yield {"statistic": "differing_role", "note": differing_role(results.pairs)}
    yield {"statistic": "without_cue", "hits": n - with_cue, "n": n}
    controlled = [pair for pair in results.pairs if pair.control is not None]
    yield {"statistic": "without_control", "hits": n - len(controlled), "n": n}
    yield {"statistic": "with_control", **share_row(np.array([pair.control is not None for pair in results.pairs]))}
    # Drawn at random, because the first pairs of a data set are often alike.
    drawn = np.random.default_rng(results.seed).permutation(len(controlled))[:_N_CONTROLS]
    for pair in (controlled[index] for index in sorted(drawn)):
        yield {"statistic": "control_example", "cue": pair.cue, "part": pair.counterfactual, "note": pair.control}
    affected = results.alignments["affected_aligned"].dropna()
    yield {"statistic": "affected_not_aligned", "hits": int((~affected).sum()), "n": len(affected)}
    yield {"statistic": "contributions", "hits": results.cue_shares.sizes["pair"], "n": with_cue}
    words = results.unknown_words
    if words:
        more = ", …" if len(words) > _N_WORDS else ""
        yield {"statistic": "unknown_words", "estimate": len(words), "note": ", ".join(words[:_N_WORDS]) + more}


def _answers(results: StudyResults) -> Iterator[Row]:
    """The model's answers in unpatched runs; the `note` of the first row is the kind of answer."""
    answers, seed = results.answers, results.seed
    kind = _kind_of_answer(results)
    yield {"statistic": "answers", "hits": len(answers), "n": len(results.pairs), "note": kind}
    if answers.empty:
        return
    controlled = answers["control"].dropna()
    if kind == "embedding":
        cosines = 1 - answers["original"]
        yield {"statistic": "cosine", **mean_row(cosines.to_numpy(), seed)}
        yield {"statistic": "cosine_range", "low": cosines.min(), "high": cosines.max()}
        if len(controlled):
            yield {"statistic": "control_nearer", **share_row(controlled > 0)}
    elif kind == "score":
        change = answers["counterfactual"] - answers["original"]
        yield {"statistic": "score_change", **mean_row(change.to_numpy(), seed)}
        for side in ("original", "counterfactual", "control"):
            scores = answers[side].dropna()
            if len(scores):
                yield {"statistic": "score", "compared": side, "estimate": scores.mean(), "n": len(scores)}
    elif kind == "own label":
        changed = np.repeat([True, False], [len(answers), len(results.same_labels)])
        yield {"statistic": "label_changed", **share_row(changed)}
    else:
        yield from _right("right", answers)
        groups = sorted(answers.groupby("cue"), key=lambda named: -len(named[1]))
        for cue, group in groups:
            yield from _right("right_of_cue", group, cue=str(cue) or NO_CUE)


def _right(statistic: str, answers: pd.DataFrame, **subject: str) -> Iterator[Row]:
    """The accuracy for each statement, and for original and counterfactual together."""
    right = {"original": answers["original"] > 0, "counterfactual": answers["counterfactual"] < 0}
    right |= {"both": right["original"] & right["counterfactual"], "control": answers["control"].dropna() > 0}
    for side, hits in right.items():
        if len(hits):
            yield {"statistic": statistic, "compared": side, **subject, **share_row(hits)}


def _kind_of_answer(results: StudyResults) -> str:
    if results.cfg.head == "none":
        return "embedding"
    if len(results.cfg.labels) == 1:
        return "document" if results.objective == score_margin.__name__ else "score"
    if results.own_labels:
        return "own label"
    return "word" if results.cfg.head == "masked_lm" else "label"


def _attention_changes(results: StudyResults) -> Iterator[Row]:
    """If nothing can be tested: the heads with the largest change in attention."""
    if results.tests is not None and "untestable" not in results.tests.attrs:
        return
    change = results.metrics["mean_attention_diff"].compute()
    if results.tests is None:
        mean = change.sel(compared=["counterfactual"]).mean("pair")
    else:
        yield {"statistic": "untestable", "note": results.tests.attrs["untestable"]}
        mean = change.dropna("pair", how="any").mean("pair").sel(compared=list(COMPARED))
    for layer, head in _largest(mean.sel(compared="counterfactual", drop=True), _N_NAMED):
        for side in mean["compared"].values:
            value = float(mean.sel(compared=side, layer=layer, head=head))
            yield {"statistic": "attention_change", "compared": side, "layer": layer, "head": head, "estimate": value}


def _largest(values: xr.DataArray, n: int = 1) -> list[tuple[Any, ...]]:
    """The coordinates of the n largest absolute values, largest first."""
    order = np.argsort(-np.nan_to_num(np.abs(values.values), nan=-np.inf), axis=None, kind="stable")[:n]
    cells = zip(*np.unravel_index(order, values.shape), strict=True)
    return [tuple(values[dim].values[at].item() for dim, at in zip(values.dims, cell, strict=True)) for cell in cells]


def _effects(results: StudyResults) -> Iterator[Row]:
    """The tests of all heads: how many are significant, the strongest, and agreement of raw and weighted attention."""
    tests = results.tests
    if tests is None:
        return
    yield from effect_rows(tests, results.smallest_effect)
    yield from _units(results)
    yield from _new_cues(results)
    if "resolution" in tests.attrs:
        yield {"statistic": "resolution", "note": tests.attrs["resolution"]}
    n_heads = tests.sizes["layer"] * tests.sizes["head"]
    raw, weighted = "attention_to_cue", "norm_to_cue"
    found = agreement(tests, raw, weighted)
    both = {"metric": raw, "compared": weighted}
    yield {"statistic": "rank_correlation", **both, "estimate": found.correlation, "p": found.p}
    yield {"statistic": "opposite_signs", **both, "hits": len(found.disagreeing), "n": n_heads}
    for row in found.disagreeing.head(_N_NAMED).to_dict("records"):
        yield {"statistic": "opposite_sign", **both, "layer": row["layer"], "head": row["head"]}


def effect_rows(tests: xr.Dataset, smallest_effect: float = SMALLEST_EFFECT) -> Iterator[Row]:
    """The number of significant heads, those beyond the smallest effect of interest, and the largest effect sizes.

    Each head is named with its clearest metric. In the rows `beyond_effect`, the estimate is d_z, with its interval.
    """
    n_heads = tests.sizes["layer"] * tests.sizes["head"]
    yield {"statistic": "tests", "hits": int((tests["n"] > 0).sum()), "n": int(tests["n"].max())}
    yield {"statistic": "tested_metrics", "estimate": tests.sizes["metric"]}
    for criterion in ("q", "p_max_t"):
        hits = int((tests[criterion] <= ALPHA).any("metric").sum())
        yield {"statistic": "responding_heads", "part": criterion, "hits": hits, "n": n_heads}
    clearest = effects_table(tests).sort_values("effect_size", key=lambda size: -size.abs(), kind="stable")
    for row in clearest.drop_duplicates(["layer", "head"]).to_dict("records"):
        yield {"statistic": "clearest_effect", **_tested(row)}
    passing = survivors(tests).drop_duplicates(["layer", "head"]).head(_N_NAMED)
    for row in passing.to_dict("records"):
        yield {"statistic": "strongest_effect", **_tested(row)}
    beyond = _beyond(tests, smallest_effect)
    yield {"statistic": "smallest_effect", "estimate": smallest_effect}
    yield {"statistic": "beyond_heads", "hits": len(beyond), "n": n_heads}
    for row in beyond.head(_N_NAMED).to_dict("records"):
        size = {"estimate": row["effect_size"], "low": row["effect_size_low"], "high": row["effect_size_high"]}
        yield {"statistic": "beyond_effect", **_tested(row), **size}


def _beyond(tests: xr.Dataset, smallest_effect: float) -> pd.DataFrame:
    """The heads whose effect is beyond the smallest one of interest, each with its clearest metric."""
    found = responding(tests, smallest_effect)
    return found[found["beyond"]].drop_duplicates(["layer", "head"])


def _units(results: StudyResults) -> Iterator[Row]:
    """The number of clusters, and how alike the effects within each are; medians over all metrics and heads."""
    tests = results.tests
    assert tests is not None
    yield {"statistic": "clusters", "estimate": int(tests["n_clusters"].max()), "n": int(tests["n"].max())}
    if "untestable_mean" in tests.attrs:
        yield {"statistic": "untestable_mean", "note": tests.attrs["untestable_mean"]}
    for by, found in results.correlations.items():
        if bool(found["icc"].notnull().any()):
            yield {"statistic": "intraclass_correlation", "group": by, "estimate": float(found["icc"].median())}
            yield {"statistic": "effective_pairs", "group": by, "estimate": float(found["n_effective"].median())}


def _new_cues(results: StudyResults) -> Iterator[Row]:
    """How many of the heads beyond the smallest effect hold for new kinds of cue, and their intervals for one."""
    found, tests = results.new_cues, results.tests
    if found is None or tests is None:
        return
    beyond = _beyond(tests, results.smallest_effect)
    cells = [found.sel(metric=row.metric, layer=row.layer, head=row.head) for row in beyond.itertuples()]
    yield {"statistic": "cues", "estimate": int(found["n_groups"].max())}
    holding = sum(bool(cell["holds"]) for cell in cells)
    yield {"statistic": "holds_for_new_cues", "hits": holding, "n": len(cells)}
    for cell in cells[:_N_NAMED]:
        subject = {name: cell[name].item() for name in ("metric", "layer", "head")}
        interval = {"estimate": cell["effect"], "low": cell["new_low"], "high": cell["new_high"], "n": cell["n_groups"]}
        numbers = {name: value.item() for name, value in interval.items()}
        yield {"statistic": "new_cue_effect", **subject, **numbers}


def largest_effect_rows(tests: xr.Dataset) -> Iterator[Row]:
    """For each metric, the head with the largest effect, and the number of significant heads."""
    for metric in tests["metric"].values:
        metric_tests = tests.sel(metric=metric)
        if bool(metric_tests["effect"].notnull().any()):
            layer, head = _largest(metric_tests["effect"].transpose("layer", "head"))[0]
            cell = metric_tests.sel(layer=layer, head=head)
            row = {name: float(cell[name]) for name in ("effect", *_TESTED)}
            yield {"statistic": "largest_effect", **_tested(row | {"metric": metric, "layer": layer, "head": head})}
            passing = (metric_tests["q"] <= ALPHA).values
            counts = {"hits": int(passing.sum()), "n": passing.size}
            yield {"statistic": "responding_heads_of_metric", "metric": metric, "part": "q", **counts}


_TESTED = ("low", "high", "effect_size", "n", "p", "q", "p_max_t")


def _tested(row: Mapping[Any, object]) -> Row:
    """A row of `statistics.effects_table` as a row of the summary."""
    return {"estimate": row["effect"], **{name: row[name] for name in ("metric", "layer", "head", *_TESTED)}}


def _cue_shares(results: StudyResults) -> Iterator[Row]:
    """For each measure, the layer with the largest difference between the cue's and the neutral word's share."""
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
    """The replication of effects over groups of pairs; `group` is the kind of group, "cue" or "source"."""
    for by, found in results.replications.items():
        n_heads = found.sizes["layer"] * found.sizes["head"]
        yield {"statistic": "groups", "group": by, "estimate": found.sizes["group"]}
        hits = int((found["q_partial"] <= ALPHA).any("metric").sum())
        yield {"statistic": "replicated_heads", "group": by, "part": "q_partial", "hits": hits, "n": n_heads}
        hits = int((found["replicated"] >= found.attrs["at_least"]).any("metric").sum())
        yield {"statistic": "replicated_heads", "group": by, "part": "uncorrected", "hits": hits, "n": n_heads}
        n = np.sort(found["n"].max(("metric", "layer", "head")).values)[::-1]
        at_least = found.attrs["at_least"]
        # The smallest possible p: 2 of the 2^n sign flips of n pairs, or 1 of the drawn flips.
        floor = max(2.0 ** (1 - int(n[at_least - 1])), 1 / (1 + found.attrs["n_resamples"]))
        least = (len(n) - at_least + 1) * floor
        yield {"statistic": "pairs_per_group", "group": by, "low": n[-1], "high": n[0], "p": least}


def _patched(results: StudyResults) -> Iterator[Row]:
    """The effects of all swaps with their intervals, without cells that no pair has."""
    if not results.patching:
        return
    n = len(results.patched)
    yield {"statistic": "patched", "hits": n, "n": len(results.answers)}
    yield {"statistic": "from_control", "hits": results.from_control, "n": n}
    yield {"statistic": "from_original", "hits": n - results.from_control, "n": n}
    resid = results.mean_effects["resid_pre", "denoising"]
    yield {"statistic": "affirmative_run", "note": str(resid["source_run"].item())}
    yield {"statistic": "near_zero_gap", "hits": len(resid.attrs["near_zero_gap"]), "n": n}
    for (site, direction), patched in results.patching.items():
        yield from _averages("swap", patched, results.seed, site=site, direction=direction)
    for way, effects in results.position_effects.items():
        if bool(effects.notnull().any()):
            layer, position = _largest(effects.transpose("layer", "position"))[0]
            cell = effects.sel(layer=layer, position=position)
            token = str(cell["token"].item())
            subject = {"site": "resid_pre", "direction": way, "layer": layer}
            yield {"statistic": "largest_position_swap", **subject, "estimate": float(cell), "note": token}


def _mechanism(results: StudyResults) -> Iterator[Row]:
    """The knock-outs of the cue, the correlation of attention to it with patching effects, and the circuit."""
    found = results.mechanism
    if found is None:
        return
    yield from _averages("knock_out", found.knock_out, results.seed)
    sets = knock_out_patches(results.cfg.n_layers)
    for row in _averages("knock_out_set", found.knock_out_sets, results.seed):
        cut = sets[str(row["part"])]
        yield {**row, "layer": cut.layer, "role": cut.role or ""}
    if ("z", "denoising") in results.patching:
        yield from _attention_and_effect(results)
    if found.circuit is None:
        yield {"statistic": "no_circuit", "note": found.no_circuit}
    else:
        yield from circuit_rows(found.circuit)
        yield from _reading_rows(found.stories)


def _attention_and_effect(results: StudyResults) -> Iterator[Row]:
    effects, attention = results.mean_effects["z", "denoising"].values, results.attention_to_cue.values
    both = np.isfinite(effects) & np.isfinite(attention)
    correlation, p = rank_correlation(effects[both], attention[both])
    yield {"statistic": "attention_and_effect", "estimate": correlation, "p": p, "n": int(both.sum())}
    if not np.isnan(correlation):
        layer, head = np.unravel_index(int(np.nanargmax(attention)), attention.shape)
        rank = int((np.abs(effects) > abs(effects[layer, head])).sum()) + 1
        cell = {"layer": layer, "head": head}
        yield {"statistic": "effect_rank_of_most_attending", **cell, "estimate": rank, "n": effects.size}


def circuit_rows(circuit: Circuit) -> Iterator[Row]:
    """A circuit's size and members, its faithfulness, and how complete and minimal it is."""
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


def _metric_means(results: StudyResults) -> Iterator[Row]:
    """The mean of each metric of original against counterfactual over pairs, for each head."""
    metrics = results.metrics[list(METRICS)].sel(compared="counterfactual", drop=True)
    means = metrics.compute().mean("pair").to_dataframe()
    for row in means.reset_index().to_dict("records"):
        cell = {"layer": row["layer"], "head": row["head"]}
        yield from ({"statistic": "metric_mean", "metric": name, **cell, "estimate": row[name]} for name in METRICS)


def _largest_effects(results: StudyResults) -> Iterator[Row]:
    """The largest effect on each metric, and the metric with the largest effect size of any head."""
    if results.tests is None:
        return
    yield from largest_effect_rows(results.tests)
    sizes = results.tests["effect_size"]
    if bool(sizes.notnull().any()):
        metric, layer, head = _largest(sizes.transpose("metric", "layer", "head"))[0]
        cell = {"metric": metric, "layer": layer, "head": head}
        yield {"statistic": "clearest_metric", **cell, "effect_size": float(sizes.sel(**cell))}


def _contributions(results: StudyResults) -> Iterator[Row]:
    """The cue's largest share in a layer, the distance of attention, and the largest change of output."""
    shares = results.cue_shares
    if bool(shares.notnull().any()):
        mean = shares.sel(compared="counterfactual", drop=True).mean("pair")
        measure, layer = _largest(mean.transpose("measure", "layer"))[0]
        largest = float(mean.sel(measure=measure, layer=layer))
        yield {"statistic": "largest_cue_share", "metric": measure, "layer": layer, "estimate": largest}
    distance = results.metrics["attention_distance"].compute().mean(("pair", "head"))
    for layer in dict.fromkeys(distance["layer"].values[[0, -1]].tolist()):
        value = float(distance.sel(layer=layer))
        yield {"statistic": "attention_distance", "layer": layer, "estimate": value}
    change = results.metrics["output_change_by_role"].sel(compared="counterfactual", drop=True)
    change = change.compute().mean(("pair", "head"))
    if bool(change.notnull().any()):
        layer, role = _largest(change.transpose("layer", "role"))[0]
        largest = float(change.sel(layer=layer, role=role))
        yield {"statistic": "largest_output_change", "layer": layer, "role": role, "estimate": largest}


def _example(results: StudyResults) -> Iterator[Row]:
    """The head shown in detail, and its largest attention weights in the first example."""
    layer, head = _shown_head(results)
    yield {"statistic": "shown_head", "layer": layer, "head": head}
    example = results.examples[0]
    for side, attention in (("original", example.original), ("counterfactual", example.counterfactual)):
        weight, where = _attended(attention, layer, head)
        cell = {"compared": side, "layer": layer, "head": head}
        yield {"statistic": "largest_weight", **cell, "estimate": weight, "note": where}


def _shown_head(results: StudyResults) -> tuple[Any, ...]:
    """The head with the largest patching effect (z, denoising).

    If nothing was patched: the head with the largest change in attention, compared with the control if there is one.
    """
    effects = results.mean_effects.get(("z", "denoising"))
    if effects is not None and bool(effects.notnull().any()):
        # The largest effect, not the largest absolute effect.
        largest = effects.argmax(("layer", "head"))
        return int(largest["layer"]), int(largest["head"])
    if results.tests is not None:
        return _largest(results.tests["effect"].sel(metric="mean_attention_diff").transpose("layer", "head"))[0]
    change = results.metrics["mean_attention_diff"].sel(compared="counterfactual", drop=True).compute().mean("pair")
    return _largest(change.transpose("layer", "head"))[0]


def _attended(attention: StatementAttention, layer: int, head: int) -> tuple[float, str]:
    """The largest weight between two tokens, and the tokens, such as "from 'open' to 'not'"."""
    weights = attention.raw[layer, head]
    query, key = divmod(int(weights.argmax()), weights.shape[-1])
    tokens = attention.statement.tokens
    return float(weights[query, key]), f"from {tokens[query]!r} to {tokens[key]!r}"


def _reading_rows(stories: Sequence[HeadReading]) -> Iterator[Row]:
    """The attention of each head in the circuit, from tokens of `role` to tokens of the role in `part`."""
    for story in stories:
        for metric, reading in (("raw", story.raw), ("norm", story.norm)):
            cell = {"layer": story.layer, "head": story.head, "role": reading.query, "part": reading.key}
            for measured in ("raw", "norm", "even"):
                row = {"statistic": f"reading_by_{metric}", "metric": measured, **cell}
                yield {**row, "estimate": getattr(reading, measured), "n": reading.n}
        if (change := story.change) is not None:
            cell = {"layer": story.layer, "head": story.head, "role": change.query, "part": change.key}
            for measured in ("raw", "norm"):
                row = {"statistic": "reading_change", "metric": measured, "compared": change.base, **cell}
                yield {**row, "estimate": getattr(change, measured), "n": change.n}


def _averages(statistic: str, patched: xr.Dataset, seed: int, **subject: str) -> Iterator[Row]:
    names = {"effect": "estimate", "n_pairs": "n", "patch": "part"}
    table = averages(patched, seed=seed).to_dataframe().reset_index().dropna(subset="effect").rename(columns=names)
    yield from ({"statistic": statistic, **subject, **row} for row in table.to_dict("records"))


def share_row(hits: pd.Series | np.ndarray) -> Row:
    """The share of hits with its 95 % Wilson interval."""
    counted = share(hits.tolist())
    interval = {"low": counted.low, "high": counted.high}
    return {"estimate": counted.share, **interval, "hits": counted.hits, "n": counted.n}


def mean_row(values: Float[np.ndarray, " pair"], seed: int) -> Row:
    """The mean with its 95 % percentile bootstrap interval, which is NaN for fewer than two values."""
    low = high = np.nan
    if len(values) > 1:
        found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(seed))
        low, high = found.confidence_interval
    return {"estimate": values.mean(), "low": low, "high": high, "n": len(values)}
