"""The texts of a study's figures: how to read a figure, and its main number, formatted from the summary."""

from collections.abc import Mapping

import pandas as pd

from negprobe.statistics import ALPHA
from negprobe.study.results import StudyResults
from negprobe.study.stages import SWEPT
from negprobe.study.summary_table import StudySummary
from negprobe.views.labels import SITES, metric_name, percent, run_name
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.document import Picture
from negprobe.views.report.mechanism_findings import ABLATED
from negprobe.views.report.wording import furthest_from_0, head_name, terms

_METRICS = {
    "mean_attention_diff": "the average change of the attention weights",
    "max_attention_diff": "the largest change of any attention weight",
    "js_divergence": "how much the distribution of each token's attention changes, in bits",
    "attention_to_cue": "the share of its attention that a token gives to the cue",
    "norm_to_cue": "the share of its norm-weighted attention that a token gives to the cue",
    "output_change": "how much the head's outputs at the other tokens change, relative to their size",
    "diffusion": "the share of tokens over which that change is spread",
}

Texts = tuple[str, str]
"""The alternative text of a figure (what it shows, and its main number), and its caption (how to read it)."""


def study_pictures(results: StudyResults, figures: Mapping[str, bytes]) -> dict[str, Picture]:
    """The figures of a study with their alternative texts and captions.

    Args:
        results: The results of the study.
        figures: The figures of `study_figures` as PNG, by name.
    """
    summary = results.summary
    texts = _head_texts(summary) | _layer_texts(summary) | _one_head_texts(results)
    texts |= _patching_texts(results) | _mechanism_texts(summary)
    return {name: Picture(png, *texts[name]) for name, png in figures.items()}


def _head_texts(summary: StudySummary) -> dict[str, Texts]:
    """Texts of the figures of the effects of negation on heads."""
    top = furthest_from_0(summary.rows("metric_mean", metric="mean_attention_diff"))
    texts = {
        "metrics": (
            "Four maps of layers by heads: largest and mean attention difference, correlation of the attention and of "
            f"the outputs. The mean difference is largest in head {head_name(top)}, {top['estimate']:.3g}.",
            "Original compared with counterfactual on aligned tokens, averaged over pairs, regardless of the control.",
        )
    }
    for _, row in summary.rows("largest_effect").iterrows():
        texts[f"effect-{row['metric']}"] = _effect_texts(row, summary)
    correlation = summary.row("rank_correlation")
    if correlation is not None:
        texts["raw-against-norm"] = (
            "Scatter plot of heads: effect on attention to the cue (horizontal) and on norm-weighted attention "
            f"(vertical). Rank correlation {correlation['estimate']:.2f}.",
            "What the values change: for heads on the diagonal, nothing.",
        )
    for _, groups in summary.rows("groups").iterrows():
        by = groups["group"]
        what = {"cue": "kind of cue", "source": "data set"}[by]
        heads = summary.rows("replicated_heads", group=by, part="uncorrected").iloc[0]
        texts[f"effect-by-{by}"] = (
            f"Intervals of the strongest heads' effects in each of {groups['estimate']:.0f} groups by {what}. "
            f"{heads['hits']} of {heads['n']} heads have an effect of the overall sign with p ≤ {ALPHA:g} (not "
            "corrected) in two groups or more.",
            f"The metric with the largest effect size, by {what}: an effect of negation should be present in more "
            "than one.",
        )
    return texts


def _effect_texts(top: pd.Series, summary: StudySummary) -> Texts:
    metric = top["metric"]
    interval = "" if pd.isna(top["low"]) else f" (95 % interval {top['low']:+.3g} to {top['high']:+.3g})"
    passing = summary.rows("responding_heads_of_metric", metric=metric).iloc[0]
    pairs = summary.rows("tests").iloc[0]["n"]
    name = metric_name(metric)
    reading = f"{_METRICS[metric]}, " if metric in _METRICS else ""
    return (
        f"Map of layers by heads: {name}, counterfactual minus control. The largest effect is {top['estimate']:+.3g}"
        f"{interval} in head {head_name(top)}; {passing['hits']} of {passing['n']} heads have q ≤ {ALPHA:g}.",
        f"{name[0].upper()}{name[1:]}: {reading}beyond that of a neutral word ({pairs} pairs).",
    )


def _layer_texts(summary: StudySummary) -> dict[str, Texts]:
    """Texts of the figures of whole layers, and of the distance of attention."""
    texts = {}
    share, change = summary.row("largest_cue_share"), summary.row("largest_output_change")
    if share is not None:
        texts["cue-shares"] = (
            f"Curves over layers, one for each measure: the cue's share. It is largest by "
            f"{metric_name(share['metric'])} in layer {share['layer']}, {percent(share['estimate'])}.",
            "The cue's share of the information flowing into the other tokens, all heads of a layer together, by four "
            "measures: the norm of the attention output, the same with residual and LayerNorm, value zeroing, and "
            "attention chained from the input on. The neutral word's share is drawn too if pairs have a control.",
        )
    distances = summary.rows("attention_distance")
    averages = " and ".join(f"{row['estimate']:.1f} in layer {row['layer']}" for _, row in distances.iterrows())
    texts["attention-distance"] = (
        f"Curves over layers: how many tokens away the heads attend, on average {averages}.",
        "How far away the heads attend in the originals, by raw and by norm-weighted attention.",
    )
    if change is not None:
        texts["diffusion-by-role"] = (
            "Map of layers by roles of tokens: how much the heads' outputs change. The largest change is at "
            f"{ROLE_NAMES[change['role']]} in layer {change['layer']}, {change['estimate']:.2f} of their size.",
            "How much the heads' outputs change at the other tokens, by role. A cue has a column if it replaced "
            "another word of the original.",
        )
    return texts


def _one_head_texts(results: StudyResults) -> dict[str, Texts]:
    summary, pair = results.summary, results.examples[0].pair
    head = head_name(summary.rows("shown_head").iloc[0])
    before, after = (
        f"{row['estimate']:.2f} {row['note']}"
        for side in ("original", "counterfactual")
        for _, row in summary.rows("largest_weight", compared=side).iterrows()
    )
    named = f"Head {head} on “{pair.original}” and “{pair.counterfactual}”"
    return {
        "heatmaps": (
            f"Six maps of tokens by tokens. {named}; its largest attention weight is {before} in the original and "
            f"{after} in the counterfactual.",
            f"{named}: attention before the values (top), and the cosine between the head's outputs after them "
            "(bottom), for each statement and their difference on aligned tokens. The head shown is the one whose "
            "output carries most of the answer (or, if nothing was patched, whose attention changes most).",
        ),
        "before-and-after-values": (
            f"Three maps of tokens by tokens. Head {head} on “{pair.counterfactual}”: attention, norm-weighted "
            f"attention, and similarity of outputs; the largest weight is {after}.",
            f"Head {head} on the counterfactual: attention weights, attention weighted by the norm of the "
            "transformed values, and the cosine between its outputs.",
        ),
    }


def _patching_texts(results: StudyResults) -> dict[str, Texts]:
    """Texts of the figures of swaps, over all pairs and for one pair."""
    texts, summary = {}, results.summary
    for (site, direction), effects in results.mean_effects.items():
        by = "heads" if SWEPT[site] == "head" else "roles of tokens"
        swapped = SITES.get(site, site)
        runs = _from_into(run_name(effects, "source_run"), run_name(effects, "base_run"))
        most = _largest_effect(summary.rows("swap", site=site, direction=direction))
        pairs = summary.rows("patched").iloc[0]["hits"]
        texts[f"patching-{site}-{direction}"] = (
            f"Map of layers by {by}: effect of swapping {swapped}, {direction}. {most}",
            f"Swapping {swapped}, {runs} ({direction}, {pairs} pairs).",
        )
    if ("resid_pre", "denoising") in results.mean_effects:
        texts["effect-by-role"] = (
            "Curves over layers, one for each role: effect of swapping the residual stream. "
            f"{_largest_effect(summary.rows('swap', site='resid_pre', direction='denoising'))}",
            "Swapping the residual stream before each layer at the tokens of each role (denoising), with 95 % "
            "bootstrap intervals over clusters of pairs.",
        )
    for way, cells in results.position_effects.items():
        top = summary.row("largest_position_swap", direction=way)
        most = (
            "The two runs do not differ in the answer."
            if top is None
            else f"The largest effect is before layer {top['layer']} at {top['note']!r}, {percent(top['estimate'])}."
        )
        base = run_name(cells, "base_run")
        texts[f"positions-resid_pre-{way}"] = (
            f"Map of layers by tokens: effect of swapping the residual stream at one token, {way}. {most}",
            f"One pair, “{getattr(results.examples[0].pair, base)}” (the {base}), token by token: swapping the "
            f"residual stream before a layer, {_from_into(run_name(cells, 'source_run'), base)} ({way}).",
        )
    return texts


def _mechanism_texts(summary: StudySummary) -> dict[str, Texts]:
    """Texts of the figures of knock-outs, of attention to the cue and its effect, and of the circuit."""
    run = summary.row("affirmative_run")
    if run is None:
        return {}
    words = terms(summary)
    texts = {
        "knock-out-denoising": (
            f"Map of layers by heads: effect of removing one head's attention to {words.words}. "
            f"{_largest_effect(summary.rows('knock_out'))}",
            f"The counterfactual's run with one head's attention from all other tokens to {words.words} cut before the "
            f"softmax: 0 leaves its answer unchanged, 1 turns it into that of the {run['note']}.",
        )
    }
    correlation = summary.row("attention_and_effect")
    if correlation is not None:
        texts["causal-against-attention"] = (
            "Scatter plot of heads: value-weighted attention to the cue (horizontal), effect of swapping the output "
            f"(vertical). Rank correlation {correlation['estimate']:.2f} over {correlation['n']} heads.",
            "Do the heads that attend to the negation matter? Each head's value-weighted attention to the cue in the "
            "counterfactual, and the effect of swapping its output on the answer.",
        )
    return texts if summary.row("circuit") is None else texts | _circuit_texts(summary)


def _circuit_texts(summary: StudySummary) -> dict[str, Texts]:
    circuit, faithful, cpr = (summary.rows(name).iloc[0] for name in ("circuit", "faithfulness", "cpr"))
    size = f"{circuit['hits']} of {circuit['n']} components"
    interval = f"95 % interval {percent(faithful['low'])} to {percent(faithful['high'])}"
    preserved = f"{percent(faithful['estimate'])} ({interval})"
    members = ", ".join(summary.rows("circuit_member")["part"])
    return {
        "circuit": (
            f"Diagram of the circuit by layer: {size} ({members}), which preserve {preserved} of "
            f"{terms(summary).effect}.",
            f"The circuit, with every other component's output {ABLATED[circuit['note']]}: layers from the first "
            "(bottom) up, all other components as grey dots; size and colour show the effect of ablating a component "
            "alone. Below each head: what it reads at which role of token, after the values, and what it reads "
            "differently from the control (or the original, for a pair without one), if that is at least a quarter of "
            "its attention.",
        ),
        "faithfulness": (
            f"Curve of faithfulness over the share of components kept. The circuit of {size} has {preserved}; the "
            f"area under the curve is {cpr['estimate']:.2f}.",
            f"How much of {terms(summary).effect} the best-ranked components preserve alone, on "
            f"{faithful['n']} pairs that the search did not use: 1 is the whole model, 0 everything ablated. The "
            "circuit is marked separately, because members that it did not need were removed, and so is the mean of "
            "random sets of its size.",
        ),
    }


def _largest_effect(rows: pd.DataFrame) -> str:
    """A sentence on the largest of some effects of swaps, with its interval."""
    if rows.empty:
        return "No pair's two runs differ in the answer."
    top = furthest_from_0(rows)
    where = f"in layer {top['layer']} at {ROLE_NAMES[top['role']]}" if top["role"] else f"in head {head_name(top)}"
    interval = "" if pd.isna(top["low"]) else f" (95 % interval {percent(top['low'])} to {percent(top['high'])})"
    return f"The largest effect is {where}, {percent(top['estimate'])}{interval}."


def _from_into(source: str, base: str) -> str:
    return f"from the {source} into the {base}"
