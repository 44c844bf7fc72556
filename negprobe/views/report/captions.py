"""What the figures of a study show: for each a caption that says how to read it, and its main number in words."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from negprobe.attention import Comparison, StatementAttention
from negprobe.patching import effect
from negprobe.patching.circuits import Circuit
from negprobe.statistics import ALPHA
from negprobe.study.results import StudyResults
from negprobe.study.summary import summarize
from negprobe.views.labels import metric_name, percent, run_name
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.document import Picture
from negprobe.views.report.mechanism_findings import ABLATED
from negprobe.views.report.wording import head_name

_METRICS = {
    "mean_attention_diff": "how far the attention weights move on average",
    "max_attention_diff": "how far the attention weight that moves most moves",
    "js_divergence": "how far what a word attends to moves, in bits",
    "attention_to_cue": "the share of its attention that a word gives the cue",
    "norm_to_cue": "the share of its norm-weighted attention that a word gives the cue",
    "output_change": "how far the head's outputs at the other words move, beside their size",
    "diffusion": "over how large a share of the words that change is spread",
}

SITES = {
    "resid_pre": "the residual stream before a layer",
    "attn_out": "what a layer's attention writes",
    "mlp_out": "what a layer's MLP writes",
    "z": "one head's output z",
}
"""The activations at the sites that a study patches, in words; a site without an entry goes by its name."""

Texts = tuple[str, str]
"""What a figure shows with its main number, and how to read it."""


def study_pictures(results: StudyResults, figures: Mapping[str, bytes], shown: tuple[int, int]) -> dict[str, Picture]:
    """The figures of a study with the text that each needs.

    Args:
        results: What the study found.
        figures: `study_figures` of it, as PNG.
        shown: Layer and head of the figures of one head.
    """
    texts = _of_heads(results) | _of_contributions(results) | _of_one_head(results.examples[0], *shown)
    texts |= _of_patching(results) | _of_mechanism(results)
    return {name: Picture(png, *texts[name]) for name, png in figures.items()}


def _of_heads(results: StudyResults) -> dict[str, Texts]:
    """The effects of negation on the metrics of every head."""
    change = results.metrics["mean_attention_diff"].sel(compared="counterfactual", drop=True).mean("pair")
    texts = {
        "metrics": (
            "Four maps of layers by heads: largest and mean attention difference, correlation of the attention and of "
            f"the outputs. The mean difference is largest in head {_peak(change)}.",
            "Original against counterfactual on aligned tokens, averaged over pairs, whatever the control does.",
        )
    }
    tests = results.tests
    if tests is None:
        return texts
    for metric in tests["metric"].values:
        here = tests.sel(metric=metric)
        if bool(here["effect"].notnull().any()):
            texts[f"effect-{metric}"] = _of_effect(here, str(metric), int(tests["n"].max()))
    found = summarize(results).rows("rank_correlation").iloc[0]
    texts["raw-against-norm"] = (
        "Scatter of heads: effect on attention to the cue across, on norm-weighted attention up. Rank correlation "
        f"{found['estimate']:.2f}.",
        "What the values change. On the diagonal they change nothing.",
    )
    for by, groups in results.replications.items():
        what = {"cue": "kind of cue", "source": "data set"}[by]
        n_heads = int((groups["replicated"] >= groups.attrs["at_least"]).any("metric").sum())
        texts[f"effect-by-{by}"] = (
            f"Intervals of the strongest heads' effects in each of {groups.sizes['group']} groups by {what}. {n_heads} "
            f"of {groups.sizes['layer'] * groups.sizes['head']} heads have an effect of the overall sign with p ≤ "
            f"{ALPHA:g}, not corrected, in two groups or more.",
            f"The metric with the largest effect size, by {what}: an effect of negation should be there for more than "
            "one.",
        )
    return texts


def _of_effect(here: xr.Dataset, metric: str, n_pairs: int) -> Texts:
    layer, head = _largest(here["effect"])
    top = here.sel(layer=layer, head=head)
    low, high = (float(top[name]) for name in ("low", "high"))
    interval = "" if np.isnan(low) else f" (95 % interval {low:+.3g} to {high:+.3g})"
    passing = f"{int((here['q'] <= ALPHA).sum())} of {here['q'].size} heads have q ≤ {ALPHA:g}"
    name = metric_name(metric)
    reading = f"{_METRICS[metric]}, " if metric in _METRICS else ""
    return (
        f"Map of layers by heads: {name}, counterfactual minus control. Largest {float(top['effect']):+.3g}{interval} "
        f"in head {layer}.{head}; {passing}.",
        f"{name[0].upper()}{name[1:]}: {reading}more than for a neutral word ({n_pairs} pairs).",
    )


def _of_contributions(results: StudyResults) -> dict[str, Texts]:
    """All heads of a layer together, and how far they look."""
    texts = {}
    shares = results.cue_shares
    if bool(shares.notnull().any()):
        mean = shares.sel(compared="counterfactual", drop=True).mean("pair")
        measure, layer = _largest(mean)
        texts["cue-shares"] = (
            f"Curves over layers, one a measure: the cue's share. Largest by {measure} in layer {layer}, "
            f"{percent(float(mean.sel(measure=measure, layer=layer)))}.",
            "How much of what flows into the other words comes from the cue, all heads of a layer together: as a norm "
            "of what attention writes, with residual and LayerNorm, by zeroing its value, and chained from the input "
            "on. The neutral word's share is drawn with it where pairs have a control.",
        )
    distance = results.metrics["attention_distance"].mean(("pair", "head"))
    first, last = int(distance["layer"].min()), int(distance["layer"].max())
    texts["attention-distance"] = (
        f"Curves over layers: how many tokens away the heads look, on average {float(distance.sel(layer=first)):.1f} "
        f"in layer {first} and {float(distance.sel(layer=last)):.1f} in layer {last}.",
        "How far the heads look in the originals, before the values and with them.",
    )
    change = results.metrics["output_change_by_role"].sel(compared="counterfactual", drop=True).mean(("pair", "head"))
    if bool(change.notnull().any()):
        change = change.transpose("layer", "role")
        layer, role = _largest(change)
        texts["diffusion-by-role"] = (
            "Map of layers by roles of tokens: how much the heads' outputs change. Most at "
            f"{ROLE_NAMES[str(role)]} in layer {layer}, {float(change.sel(layer=layer, role=role)):.2f} of their size.",
            "How much the heads' outputs change at the other tokens, by their role. A cue has a column where it took "
            "another word's place in the original.",
        )
    return texts


def _of_one_head(example: Comparison, layer: int, head: int) -> dict[str, Texts]:
    pair, counterfactual = example.pair, example.counterfactual
    before, after = (_attended(side, layer, head) for side in (example.original, counterfactual))
    named = f"Head {layer}.{head} on “{pair.original}” and “{pair.counterfactual}”"
    return {
        "heatmaps": (
            f"Six maps of tokens by tokens. {named}; its largest attention weight is {before} in the original and "
            f"{after} in the counterfactual.",
            f"{named}: attention before the values (top), and the cosine between the head's outputs after them "
            "(bottom), for each statement and their difference on aligned tokens. It is the head whose output carries "
            "most of the answer (if nothing was patched: whose attention the negation changes most).",
        ),
        "before-and-after-values": (
            f"Three maps of tokens by tokens. Head {layer}.{head} on “{pair.counterfactual}”: attention, the same with "
            f"the values' norms, and similarity of outputs; the largest weight is {after}.",
            f"Head {layer}.{head} on the counterfactual: attention weights, attention weighted by the norm of the "
            "transformed values, and the cosine between its outputs.",
        ),
    }


def _of_patching(results: StudyResults) -> dict[str, Texts]:
    """Swaps by role and head, over pairs and of one."""
    texts, summary = {}, summarize(results)
    for (site, direction), patched in results.patching.items():
        by = "heads" if "head" in patched.dims else "roles of tokens"
        swapped = SITES.get(site, site)
        most = _most(summary.rows("swap", site=site, direction=direction))
        texts[f"patching-{site}-{direction}"] = (
            f"Map of layers by {by}: effect of swapping {swapped}, {direction}. {most}",
            f"Swapping {swapped}, {_runs(patched)} ({direction}, {patched.sizes['pair']} pairs).",
        )
    if ("resid_pre", "denoising") in results.patching:
        texts["effect-by-role"] = (
            "Curves over layers, one a role: effect of swapping the residual stream. "
            f"{_most(summary.rows('swap', site='resid_pre', direction='denoising'))}",
            "Swapping the residual stream before each layer at the tokens of each role (denoising), with 95 % "
            "bootstrap intervals over pairs.",
        )
    for direction, patched in results.positions.items():
        cells = effect(patched).squeeze("pair")
        if bool(cells.notnull().any()):
            layer, position = _largest(cells)
            cell = cells.sel(layer=layer, position=position)
            most = f"Most before layer {layer} at {str(cell['token'].item())!r}, {percent(float(cell))}."
        else:
            most = "The two runs do not differ in the answer."
        pair, base = results.examples[0].pair, run_name(patched, "base_run")
        texts[f"positions-resid_pre-{direction}"] = (
            f"Map of layers by tokens: effect of swapping the residual stream at one token, {direction}. {most}",
            f"One pair, “{getattr(pair, base)}” (the {base}), token by token: swapping the residual stream before a "
            f"layer, {_runs(patched)} ({direction}).",
        )
    return texts


def _of_mechanism(results: StudyResults) -> dict[str, Texts]:
    """Knock-outs, looking and mattering, and the circuit."""
    found, summary = results.mechanism, summarize(results)
    if found is None:
        return {}
    texts = {
        "knock-out-denoising": (
            f"Map of layers by heads: effect of one head not looking at the cue. {_most(summary.rows('knock_out'))}",
            "The counterfactual's run with one head's attention from all other tokens to the cue cut before the "
            "softmax: 0 leaves its answer as it is, 1 turns it into that of the "
            f"{run_name(found.knock_out, 'source_run')}.",
        )
    }
    correlation = summary.row("attention_and_effect")
    if correlation is not None:
        texts["causal-against-attention"] = (
            "Scatter of heads: value-weighted attention to the cue across, effect of swapping the output up. Rank "
            f"correlation {correlation['estimate']:.2f} over {correlation['n']} heads.",
            "Do the heads that look at the negation matter? Each head's value-weighted attention to the cue in the "
            "counterfactual, and what swapping its output does to the answer.",
        )
    return texts if found.circuit is None else texts | _of_circuit(found.circuit)


def _of_circuit(circuit: Circuit) -> dict[str, Texts]:
    low, high = circuit.interval
    size = f"{len(circuit)} of {len(circuit.scores)} components"
    faithful = f"{percent(circuit.faithfulness)} (95 % interval {percent(low)} to {percent(high)})"
    members = ", ".join(map(str, sorted(circuit.components)))
    return {
        "circuit": (
            f"Diagram of the circuit by layer: {size} ({members}), which keep {faithful}.",
            f"The circuit: what is left when everything else is {ABLATED[circuit.ablation]}, from the first layer "
            "(bottom) up, with all others as grey dots; size and colour show the effect of ablating a component alone. "
            "Beneath each head what it reads at which role of token, after the values, and what it reads differently "
            "from the control, or the original of a pair without one, where that is a quarter of its attention or "
            "more.",
        ),
        "faithfulness": (
            f"Curve of faithfulness over the share of components kept. The circuit of {size} has {faithful}; the area "
            f"under the curve is {circuit.cpr:.2f}.",
            "How much of what the counterfactual's run does is kept by the best-ranked components alone, on "
            f"{circuit.n_held_out} pairs that the search did not see: 1 is the whole model, 0 everything ablated. The "
            "circuit is marked apart, as it was pruned of what it could spare, and so is the mean of random sets of "
            "its size.",
        ),
    }


def _most(rows: pd.DataFrame) -> str:
    """The largest of some effects of swaps, with its interval."""
    if rows.empty:
        return "No pair's two runs differ in the answer."
    top = rows.iloc[int(rows["estimate"].abs().argmax())]
    where = _where(top) if top["role"] else f"in head {head_name(top)}"
    interval = "" if pd.isna(top["low"]) else f" (95 % interval {percent(top['low'])} to {percent(top['high'])})"
    return f"Largest {where}, {percent(top['estimate'])}{interval}."


def _runs(patched: xr.Dataset) -> str:
    return f"from the {run_name(patched, 'source_run')} into the {run_name(patched, 'base_run')}"


def _where(top: pd.Series) -> str:
    return f"in layer {top['layer']} at {ROLE_NAMES[str(top['role'])]}"


def _peak(values: xr.DataArray) -> str:
    layer, head = _largest(values.transpose("layer", "head"))
    return f"{layer}.{head}, {float(values.sel(layer=layer, head=head)):.3g}"


def _largest(values: xr.DataArray) -> tuple[object, object]:
    """The coordinates of the value furthest from 0, in the order of the two dimensions."""
    found = np.unravel_index(int(np.nanargmax(np.abs(values.values))), values.shape)
    first, second = (values[dim].values[index] for dim, index in zip(values.dims, found, strict=True))
    return first, second


def _attended(attention: StatementAttention, layer: int, head: int) -> str:
    """The largest weight between two words or marks, as "0.98 from 'open' to 'not'"."""
    weights = attention.raw[layer, head]
    query, key = divmod(int(weights.argmax()), weights.shape[-1])
    tokens = attention.statement.tokens
    return f"{float(weights[query, key]):.2f} from {tokens[query]!r} to {tokens[key]!r}"
