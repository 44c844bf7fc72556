"""The report of a study: one HTML file with the answer in words, figures, interactive views and every number."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from negprobe.attention import METRICS
from negprobe.behaviour import share
from negprobe.patching import DIRECTIONS, Circuit, effect, mean_effect
from negprobe.statistics import effects_table
from negprobe.study.folder import DEFAULT_OBJECTIVE
from negprobe.study.results import StudyResults
from negprobe.study.stages import SWEPT
from negprobe.study.summary import StudySummary, attention_to_cue, summarize
from negprobe.views.figures.attention import (
    four_heatmaps,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.figures.patching import causal_against_attention, circuit_graph, effect_by_role, faithfulness_curve
from negprobe.views.figures.statistics import (
    attention_distance_by_layer,
    cue_shares_by_layer,
    diffusion_by_role,
    effect_by_group,
    effect_map,
    raw_against_norm,
)
from negprobe.views.labels import metric_name, short_name
from negprobe.views.page.page import PageParts, PageTooLargeError, page_parts
from negprobe.views.report.captions import study_pictures
from negprobe.views.report.document import (
    NO_SCRIPTS,
    Section,
    Topic,
    answer_box,
    bullets,
    document,
    facts,
    folded,
    in_words,
    paragraph,
    table,
    topics,
)
from negprobe.views.report.findings import answer, behaviour, carriers, left_out, responding_heads
from negprobe.views.report.mechanism_findings import circuit_story, knock_out_table, mechanism
from negprobe.views.report.wording import with_interval

_LIMITS = (
    "A swapped activation shows what the model's answer depends on in these statements; it does not show that the "
    "model uses it the same way elsewhere.",
    "Attention that changes is not attention that matters: compare the maps of effects with those of patching.",
    "Intervals are of one head and one metric each, not corrected; q and max-T p are corrected.",
    "Correlations and attention differences are taken on aligned tokens; attention to the inserted cue itself is "
    "outside them.",
)


_MAPPED = ("output_change", "mean_attention_diff", "attention_to_cue", "norm_to_cue", "js_divergence", "diffusion")
"""The metrics whose effects are drawn; the tables have all of them."""

_HALF_PAGE = 4.6  # inches


def study_figures(results: StudyResults) -> dict[str, Figure]:
    """Every figure of a study, by the name it is saved under.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    figures = {"metrics": metric_overview(_mean_metrics(results))}
    if results.tests is not None:
        figures |= {f"effect-{name}": effect_map(results.tests, name, width=_HALF_PAGE) for name in _MAPPED}
        if bool(results.tests["effect"].sel(metric=["attention_to_cue", "norm_to_cue"]).notnull().all("metric").any()):
            figures["raw-against-norm"] = raw_against_norm(results.tests)
        for by, found in results.replications.items():
            figures[f"effect-by-{by}"] = effect_by_group(found, _clearest(results.tests), overall=results.tests)
    if bool(results.cue_shares.notnull().any()):
        figures["cue-shares"] = cue_shares_by_layer(results.cue_shares)
    if bool(results.metrics[["attention_distance", "norm_distance"]].to_array().notnull().any()):
        figures["attention-distance"] = attention_distance_by_layer(results.metrics)
    if bool(results.metrics["output_change_by_role"].sel(compared="counterfactual").notnull().any()):
        figures["diffusion-by-role"] = diffusion_by_role(results.metrics)
    example = results.examples[0]
    layer, head = carrying_head(results)
    figures["heatmaps"] = four_heatmaps(example, layer, head)
    figures["before-and-after-values"] = raw_beside_value_weighted(example.counterfactual, layer, head)
    for (site, direction), patched in results.patching.items():
        mean = mean_effect(patched)
        # Roles that no pair has would only be empty columns.
        figures[f"patching-{site}-{direction}"] = patching_map(mean.dropna(str(mean.dims[-1]), how="all"))
    figures |= _mechanism_figures(results)
    for direction, patched in results.positions.items():
        figures[f"positions-resid_pre-{direction}"] = patching_map(effect(patched).squeeze("pair"))
    return figures


def _mechanism_figures(results: StudyResults) -> dict[str, Figure]:
    """Knock-outs of the cue by head, what looking at it has to do with mattering, and the circuit with its curve."""
    figures: dict[str, Figure] = {}
    by_role = summarize(results).rows("swap", site="resid_pre", direction="denoising")
    if len(by_role):
        columns = {"layer": "layer", "role": "role", "estimate": "effect", "low": "low", "high": "high", "n": "n_pairs"}
        drawn = by_role[list(columns)].rename(columns=columns)
        figures["effect-by-role"] = effect_by_role(drawn.astype({"layer": int, "n_pairs": int}).reset_index(drop=True))
    found = results.mechanism
    if found is None:
        return figures
    knocked_out = mean_effect(found.knock_out)
    if bool(knocked_out.notnull().any()):
        figures["knock-out-denoising"] = patching_map(knocked_out)
    z = results.patching.get(("z", "denoising"))
    if z is not None:
        effects, attention = mean_effect(z), attention_to_cue(results, z)
        if bool((effects.notnull() & attention.notnull()).any()):
            label = "value-weighted attention to the cue"
            figures["causal-against-attention"] = causal_against_attention(effects, attention, label)
    if found.circuit is not None:
        figures["circuit"] = circuit_graph(found.circuit, found.readings)
        figures["faithfulness"] = faithfulness_curve(found.circuit)
    return figures


_TOPICS = (
    Topic(
        "Which heads respond",
        (*(f"effect-{name}" for name in _MAPPED[:4]), "effect-by-cue", "effect-by-source"),
        (
            *(f"effect-{name}" for name in _MAPPED[4:]),
            *("raw-against-norm", "cue-shares", "diffusion-by-role", "attention-distance", "metrics"),
        ),
        "How much more each metric changes for the negation than for a neutral word of the same length: the mean over "
        "pairs of (original against counterfactual) minus (original against control), both on the tokens that all "
        "three share. Zero, in the middle of the scale, is a head for which negation is just another word. Corrections "
        "are over all heads and all metrics of this study together.",
    ),
    Topic("One head, before and after the values", ("heatmaps",), ("before-and-after-values",)),
    Topic(
        "What carries the answer",
        ("patching-resid_pre-denoising", "patching-z-denoising", "effect-by-role", "positions-resid_pre-denoising"),
        (
            *("patching-resid_pre-noising", "patching-z-noising", "positions-resid_pre-noising"),
            *(f"patching-{site}-{way}" for site in SWEPT if site not in ("resid_pre", "z") for way in DIRECTIONS[::-1]),
        ),
        "Normalised effect of swapping one activation between the two runs, as a ratio of means over pairs: 0 is no "
        "change, 1 moves the answer all the way to the other run's. Denoising puts the affirmative run's activation "
        "into the counterfactual's run, noising the other way round; the affirmative run is the control where a pair "
        "has one, and the original where it has not.",
        "Nothing was patched: no pair has an answer that could be read, or none was to be patched.",
    ),
    Topic(
        "How the negation gets there",
        ("knock-out-denoising", "causal-against-attention", "circuit", "faithfulness"),
        missing="Nothing was patched, so nothing could be knocked out or searched.",
    ),
)

_FILES = {
    "pairs.parquet": "the statements, with cues, controls, targets and foils",
    "answers.parquet": "the objective of each pair's original, counterfactual and control",
    "metrics.parquet": "every metric of every pair, layer and head, against counterfactual and control",
    "metrics_by_role.parquet": "the same by the role of the tokens",
    "distances.parquet": "how far each head looks in each original",
    "cue_shares.parquet": "the cue's share of what flows into the other words, by measure and layer",
    "negation_effects.parquet": "the effect of negation on every metric and head, with intervals and tests",
    "replication.parquet": "the same in each kind of cue and each data set",
    "patching.parquet": "every swap: the objective patched, and in both unpatched runs",
    "knock_out.parquet": "attention to the cue cut, by head",
    "knock_out_sets.parquet": "attention to the cue cut, by layer, by role and everywhere",
    "readings.parquet": "which role of token each head reads at which",
    "summary.parquet": "every number that this report states, a row each: estimate, interval, counts and tests",
    "negation_effects.nc": "the effect of negation again, as the xarray dataset that the tests return",
    "circuit.json": "the circuit, for Circuit.load",
    "figures": "every figure as PNG, and in the other formats that were chosen",
    "manifest.json": "command, model, data, seed, versions and these files",
    "study.json": "the fingerprint of the study, by which the same command resumes it",
    "shards": "intermediate results; only a resumed study reads them",
}
"""What each file, or folder, beside a report holds."""


def study_report(results: StudyResults, figures: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """The report as one self-contained HTML page.

    Args:
        results: What the study found.
        figures: `study_figures` of it, as PNG.
        manifest: How it was made, and under `files` what is beside the report.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    views, summary = _views(results), summarize(results)
    name, cfg = short_name(results.cfg.model_name), results.cfg
    pictures = study_pictures(results, figures, carrying_head(results))
    objective = "" if results.objective == DEFAULT_OBJECTIVE else f", with the objective {results.objective}"
    data = (
        f"{cfg.model_name} is a {cfg.family} model of {cfg.n_layers} layers with {cfg.n_heads} heads each, with "
        f"{_HEADS[cfg.head]}. {len(results.pairs)} pairs of statements from {results.source} were run through it: an "
        "original, its counterfactual with the negation, and, where there is one, a control with a neutral word in "
        f"the negation's place. {len(results.answers)} pairs have an answer that can be read, {len(results.patched)} "
        f"were patched{objective}."
    )
    sections = [
        Section("data", "The model and the data", paragraph(data) + bullets(left_out(summary))),
        Section(
            "answer",
            "The answer",
            answer_box(answer(summary), _BRACKETS) + _evidence(summary),
        ),
        Section("figures", "The figures", topics(_TOPICS, pictures) + _circuit_text(results)),
        Section("views", "Look for yourself", views.body),
        Section("numbers", "Every number", _numbers(results, manifest["files"])),
        Section("made", "How it was made", facts(manifest, "Command, model, data, seed and versions (manifest.json)")),
        Section("limits", "What cannot be concluded", bullets(_limits(results))),
    ]
    lead = f"Does {name} hear the negation in a statement, which of its heads respond to it, and what carries it?"
    return document(f"Where {name} hears “not”", lead, sections, head=views.head)


_HEADS = {
    "masked_lm": "a masked language model's head",
    "classification": "a classifier's head",
    "none": "no head but its embedding of a statement",
}

_BRACKETS = "In brackets: 95 % intervals, Wilson's of shares of pairs, and the bootstrap's over pairs of all others."

_VIEWS = (
    "Each square is one head: queries (destination tokens) down the side, keys (source tokens) along the bottom. Hover "
    "over a head to enlarge it in all three views, click to keep it."
)


def _views(results: StudyResults) -> PageParts:
    """The interactive views of the examples, or why there are none."""
    try:
        views = page_parts(results.examples, sweeps=[*results.positions.values()])
    except PageTooLargeError as error:
        return PageParts(NO_SCRIPTS, paragraph(f"{error} AttentionProbe.html writes a page of its own."))
    return PageParts(views.head, f"{paragraph(_VIEWS)}{views.body}")


def _evidence(summary: StudySummary) -> str:
    """All that was found, in sentences under the figures' headings."""
    found = {
        "What the model answers": behaviour(summary),
        "Which heads respond": responding_heads(summary),
        "What carries the answer": carriers(summary),
        "How the negation gets there": mechanism(summary),
    }
    parts = [f"<h3>{heading}</h3>{bullets(sentences)}" for heading, sentences in found.items() if sentences]
    return folded("The evidence in full", "".join(parts))


def _circuit_text(results: StudyResults) -> str:
    """Why there is no circuit, or what its heads read."""
    found = results.mechanism
    if found is None:
        return ""
    if found.circuit is None:
        return paragraph(f"No circuit: {found.no_circuit}")
    return folded("What each head of the circuit reads", bullets(circuit_story(found)))


def strongest_head(results: StudyResults) -> tuple[int, int]:
    """Layer and head whose attention changes most for the negation, beyond the control where there is one."""
    if results.tests is None:
        effect = results.metrics["mean_attention_diff"].sel(compared="counterfactual").mean("pair")
    else:
        effect = abs(results.tests["effect"].sel(metric="mean_attention_diff"))
    layer, head = np.unravel_index(np.nanargmax(effect.values), effect.shape)
    return int(layer), int(head)


def carrying_head(results: StudyResults) -> tuple[int, int]:
    """Layer and head whose output alone brings back most of the answer; `strongest_head` where nothing was patched."""
    if ("z", "denoising") in results.patching:
        effects = mean_effect(results.patching["z", "denoising"]).values
        if np.isfinite(effects).any():
            layer, head = np.unravel_index(np.nanargmax(effects), effects.shape)
            return int(layer), int(head)
    return strongest_head(results)


def _mean_metrics(results: StudyResults) -> pd.DataFrame:
    """Each metric of original against counterfactual, averaged over pairs: a row per layer and head."""
    counterfactual = results.metrics[list(METRICS)].sel(compared="counterfactual", drop=True)
    return counterfactual.mean("pair").to_dataframe().reset_index()


def _clearest(tests: xr.Dataset) -> str:
    """The metric with the largest effect size of any head."""
    size = abs(tests["effect_size"]).max(("layer", "head"))
    return str(size["metric"].values[int(np.nanargmax(size.values))])


def _numbers(results: StudyResults, files: Sequence[str]) -> str:
    """Tables of what the figures show; the smaller ones open."""
    parts = [_answers_table(results)]
    if results.mechanism is not None:
        parts.append(_knock_outs(summarize(results)))
    parts += [folded("All heads", _heads_tables(results)), folded("All swaps", _swaps_tables(results))]
    if results.mechanism is not None and results.mechanism.circuit is not None:
        parts.append(folded("The circuit", _circuit_tables(results.mechanism.circuit)))
    named = pd.DataFrame({"file": files, "holds": [_FILES[name] for name in files]})
    return "".join([*parts, table(named, "The files beside this report hold every number of every pair", decimals=0)])


def _answers_table(results: StudyResults) -> str:
    answers = results.answers
    # Scores and embeddings are neither right nor wrong, and nor are a classifier's own labels.
    if answers.empty or results.cfg.head == "none" or len(results.cfg.labels) == 1 or results.own_labels:
        return ""
    shares = pd.DataFrame(
        {
            "cue": answers["cue"].replace("", "(none found)"),
            "original": answers["original"] > 0,
            "counterfactual": answers["counterfactual"] < 0,
            "both": (answers["original"] > 0) & (answers["counterfactual"] < 0),
            "control": (answers["control"] > 0).where(answers["control"].notna()),
        }
    )
    rows = [
        {"cue": cue, "pairs": len(group), **_right(group)}
        for cue, group in sorted(shares.groupby("cue"), key=lambda named: -len(named[1]))
    ]
    if len(rows) > 1:
        rows.append({"cue": "all", "pairs": len(shares), **_right(shares)})
    caption = (
        "Share of statements on which the model prefers the right answer, by kind of cue; of original and "
        "counterfactual together with its 95 % interval (Wilson's)"
    )
    return table(pd.DataFrame(rows), caption, decimals=2)


def _right(group: pd.DataFrame) -> dict[str, float]:
    both = share(group["both"].tolist())
    means = {name: float(group[name].astype(float).mean()) for name in ("original", "counterfactual", "control")}
    return {**means, "both": both.share, "both, 95 % from": both.low, "both, 95 % to": both.high}


def _knock_outs(summary: StudySummary) -> str:
    cut = knock_out_table(summary)
    return (
        table(cut, "What cutting attention to the cue does to the counterfactual's answer", decimals=3)
        if len(cut)
        else ""
    )


def _circuit_tables(circuit: Circuit) -> str:
    scores = pd.DataFrame(
        {
            "component": map(str, circuit.scores),
            "effect of ablating it alone": circuit.scores.values(),
            "in the circuit": [component in circuit for component in circuit.scores],
        }
    )
    return "".join(
        [
            table(scores, "All components, in the order of the search", decimals=3),
            table(
                circuit.minimality.rename(columns={"largest_change": "largest change"}),
                "Minimality: what each member's removal costs in faithfulness, from the circuit (drop), and at most "
                "from any tried subset of it (largest change)",
                decimals=3,
            ),
            table(
                circuit.completeness.rename(columns={"n_removed": "how many"}),
                "Completeness: faithfulness of circuit and model with the same members taken out of both",
                decimals=3,
            ),
        ]
    )


def _heads_tables(results: StudyResults) -> str:
    means = _with_heads(_mean_metrics(results)).rename(columns=in_words)
    caption = "Every head: metrics of original against counterfactual, averaged over pairs"
    drawn = table(means, caption, decimals=3)
    if results.tests is None:
        return drawn
    strongest = effects_table(results.tests).sort_values("effect_size", key=lambda size: -size.abs())
    strongest = strongest.drop_duplicates(["layer", "head"]).sort_values(["layer", "head"])
    strongest["metric"] = strongest["metric"].map(metric_name)
    tests = _with_heads(strongest[["layer", "head", *_COLUMNS]]).rename(columns=_COLUMNS)
    caption = "Every head: the metric with its largest |d_z| of negation against the control"
    return drawn + table(tests, caption, decimals=4)


def _with_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Layer and head as one name, like "2.1", in the first column."""
    rest = frame.drop(columns=["layer", "head"])
    rest.insert(0, "head", frame["layer"].astype(str) + "." + frame["head"].astype(str))
    return rest


def _swaps_tables(results: StudyResults) -> str:
    """Every cell of the patching maps with its interval, roles or heads as columns."""
    by_role: list[pd.DataFrame] = []
    by_head: list[pd.DataFrame] = []
    for (site, direction), found in summarize(results).rows("swap").groupby(["site", "direction"], sort=False):
        swapped = f"{site}, {direction}, layer " + found["layer"].astype(str)
        numbers = zip(found["estimate"], found["low"], found["high"], strict=True)
        cells = found.assign(swapped=swapped, cell=[with_interval(*cell, decimals=2) for cell in numbers])
        (by_head if cells["head"].notna().any() else by_role).append(cells)
    captions = {
        "role": "The effect of every swap by role of token, with its bootstrap interval over pairs",
        "head": "The effect of swapping the output of every head, with its bootstrap interval over pairs",
    }
    return "".join(
        table(_wide(pd.concat(found), by), captions[by], decimals=2)
        for by, found in (("role", by_role), ("head", by_head))
        if any(map(len, found))
    )


def _wide(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    """A row per swap, in the order they come, and a column per role or head."""
    order = {name: index for index, name in enumerate(dict.fromkeys(cells["swapped"]))}
    wide = cells.pivot(index="swapped", columns=by, values="cell").sort_index(key=lambda names: names.map(order))
    columns = list(dict.fromkeys(cells[by]))
    named = wide[columns].rename(columns=lambda name: f"head {name}" if by == "head" else name)
    return named.fillna("–").reset_index()


def _limits(results: StudyResults) -> list[str]:
    n, sample = len(results.pairs), len(results.patched)
    patched = f", and what was patched for {sample} of them" if 0 < sample < n else ""
    limits = [
        f"The results are for {n} pairs from {results.source}{patched}. Pairs that share words are not independent, "
        "which the intervals here do not account for, and results may differ on other statements.",
        *_LIMITS,
    ]
    if len(results.environments) > 1:
        limits.append(
            f"The study was resumed with other package versions ({_differing(results.environments)}). Patch releases "
            "are not expected to change a number; manifest.json names the versions of every run."
        )
    if results.mechanism is not None and results.mechanism.circuit is not None:
        limits.append(
            "A circuit is one set that is enough under one kind of ablation; another set may be enough, too, and "
            "components outside it may do the same work."
        )
    return limits


def _differing(environments: Sequence[Mapping[str, Any]]) -> str:
    """The packages whose versions differ between runs, as "torch 2.13.0 and 2.13.1"."""
    every = [{"Python": one.get("python", ""), **one["versions"]} for one in environments]
    found = {name: list(dict.fromkeys(str(one.get(name, "none")) for one in every)) for name in every[-1]}
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in found.items() if len(values) > 1)


_COLUMNS = {
    "metric": "most regular effect",
    "effect": "negation − control",
    "low": "95 % from",
    "high": "95 % to",
    "effect_size": "d_z",
    "q": "q",
    "p_max_t": "max-T p",
    "n": "n",
}
