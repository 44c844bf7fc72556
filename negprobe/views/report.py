"""The report of a study: one HTML file with the answer in words, figures, interactive views and every number."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from negprobe.attention import METRICS
from negprobe.patching import averages, effect, mean_effect
from negprobe.results import PATCHED_BY_ROLE, StudyResults
from negprobe.statistics import effects_table
from negprobe.views.figures import (
    four_heatmaps,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.findings import behaviour, carriers, left_out, responding_heads
from negprobe.views.labels import short_name
from negprobe.views.mechanism_findings import ABLATED, attention_to_cue, circuit_story, knock_out_table, mechanism
from negprobe.views.page import page_parts
from negprobe.views.patching_figures import causal_against_attention, circuit_graph, effect_by_role, faithfulness_curve
from negprobe.views.statistics_figures import (
    attention_distance_by_layer,
    cue_shares_by_layer,
    diffusion_by_role,
    effect_by_group,
    effect_map,
    raw_against_norm,
)

_READING = {
    "effects": "How much more each metric changes for the negation than for a neutral word of the same length: the "
    "mean over pairs of (original against counterfactual) minus (original against control), both on the tokens that "
    "all three share. Zero, in the middle of the scale, is a head for which negation is just another word. Corrections "
    "are over all heads and all metrics of this study together.",
    "raw-against-norm": "Each head's effect on attention to the cue, before the values and with them: on the diagonal "
    "the values change nothing.",
    "cue-shares": "All heads of a layer together: how much of what flows into the other words comes from the cue, as a "
    "norm of what attention writes, with residual and LayerNorm, by zeroing its value, and chained from the input on.",
    "attention-distance": "How far the heads look in the originals, before the values and with them.",
    "diffusion-by-role": "How much the heads' outputs change at the other tokens, by their role. A cue has a column "
    "where it took another word's place in the original.",
    "effect-by-cue": "The metric with the largest effect size, by kind of cue: an effect of negation should be there "
    "for more than one.",
    "effect-by-source": "The same by data set.",
    "metrics": "Four metrics of original against counterfactual on aligned tokens, averaged over pairs.",
    "heatmaps": "The head whose output carries most of the answer (if nothing was patched: whose attention the "
    "negation changes most), on one pair: attention before the values (top) and "
    "the cosine between the head's outputs after them (bottom), for the original, the counterfactual and their "
    "difference on aligned tokens.",
    "values": "The same head on the counterfactual: attention weights, attention weighted by the norm of the "
    "transformed values, and the cosine between its outputs.",
    "patching": "Normalised effect of swapping one activation between the two runs, as a ratio of means over "
    "pairs: 0 is no change, 1 moves the answer all the way to the other run's. Denoising puts the "
    "affirmative run's activation into the counterfactual's run, noising the other way round; the affirmative run is "
    "the control where a pair has one, and the original where it has not.",
    "knock-out-denoising": "The counterfactual's run with one head's attention to the cue taken away before the "
    "softmax, from all other tokens: 0 leaves its answer as it is, 1 turns it into the affirmative run's.",
    "causal-against-attention": "Do the heads that look at the negation matter? Each head's value-weighted attention "
    "to the cue in the counterfactual, and what swapping its output does to the answer.",
    "circuit": "from the first layer (bottom) up, with all others as grey dots; size and colour tell the effect of "
    "ablating a component alone. Beneath each head what it reads at which role of token, after the values, and what "
    "it reads otherwise than in the affirmative run, where that is a quarter of its attention or more.",
    "faithfulness": "How much of what the counterfactual's run does is kept by the best-ranked components alone, on "
    "pairs that the search did not see: 1 is the whole model, 0 everything ablated. The circuit is marked apart, as it "
    "was pruned of what it could spare, and so is the mean of random sets of its size.",
    "effect-by-role": "The effect of swapping the residual stream before each layer at the tokens of each role, with "
    "95 % bootstrap intervals over pairs.",
    "positions": "One pair, every token: the effect of swapping the residual stream before each layer.",
}

_LIMITS = (
    "A swapped activation shows what the model's answer depends on in these statements; it does not show that the "
    "model uses it the same way elsewhere.",
    "Attention that changes is not attention that matters: compare the first figure with the patching maps.",
    "Intervals are of one head and one metric each, not corrected; q and max-T p are corrected.",
    "Correlations and attention differences are taken on aligned tokens; attention to the inserted cue itself is "
    "outside them.",
)


_MAPPED = ("mean_attention_diff", "js_divergence", "attention_to_cue", "norm_to_cue", "output_change", "diffusion")
"""The metrics whose effects are drawn; the tables have all of them."""

_HALF_PAGE = 4.6  # inches
_N_UNFOLDED = 10


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
    resid = results.patching.get(("resid_pre", "denoising"))
    if resid is not None and bool(mean_effect(resid).notnull().any()):
        figures["effect-by-role"] = effect_by_role(averages(resid, seed=results.seed))
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


def study_report(results: StudyResults, figures: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """The report as one self-contained HTML page.

    Args:
        results: What the study found.
        figures: `study_figures` of it, as PNG.
        manifest: How it was made, for the last section.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    parts = page_parts(results.examples)
    layer, head = carrying_head(results)
    return Template(_asset("report.html")).substitute(
        head=parts.head,
        style=_asset("page.css") + _asset("report.css"),
        title=html.escape(f"Where {short_name(results.cfg.model_name)} hears “not”"),
        question=html.escape(
            f"{len(results.pairs)} statements from {results.source} were run with and without their negation through "
            f"{results.cfg.model_name} ({results.cfg.family}, {results.cfg.n_layers} layers of {results.cfg.n_heads} "
            "heads)."
        ),
        notes=_list(left_out(results)),
        behaviour=_list(behaviour(results)),
        responding=_list(responding_heads(results)),
        carriers=_list([*carriers(results), *mechanism(results)]),
        answers=_answers_section(results),
        effects=_effects_section(figures),
        heatmaps=_figures(
            figures,
            ["heatmaps", "before-and-after-values"],
            [f"Head {layer}.{head}. {_READING['heatmaps']}", f"Head {layer}.{head}. {_READING['values']}"],
        ),
        patching=_patching_section(figures),
        mechanism=_mechanism_section(results, figures),
        views=parts.body,
        numbers=_numbers(results),
        limits=_list(_LIMITS),
        manifest=_manifest_table(manifest),
    )


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


def _answers_section(results: StudyResults) -> str:
    answers = results.answers
    if answers.empty or results.cfg.head == "none" or results.own_labels:
        return ""
    shares = pd.DataFrame(
        {
            "cue": answers["cue"].replace("", "(none found)"),
            "pairs": 1,
            "original": answers["original"] > 0,
            "counterfactual": answers["counterfactual"] < 0,
            "control": (answers["control"] > 0).where(answers["control"].notna()),
        }
    )
    by_cue = shares.groupby("cue").agg(
        {"pairs": "sum", **dict.fromkeys(("original", "counterfactual", "control"), "mean")}
    )
    by_cue = by_cue.sort_values("pairs", ascending=False).reset_index()
    caption = "Share of statements on which the model prefers the right answer, by kind of cue"
    return f"<h2>What the model answers</h2>{_table(by_cue, caption, decimals=2)}"


def _effects_section(figures: Mapping[str, bytes]) -> str:
    maps = [f"effect-{name}" for name in _MAPPED if f"effect-{name}" in figures]
    reading = f"<p>{html.escape(_READING['effects'])}</p>" if maps else ""
    rest = [
        *("raw-against-norm", "effect-by-cue", "effect-by-source"),
        *("cue-shares", "diffusion-by-role", "attention-distance", "metrics"),
    ]
    drawn = _figures(figures, maps, [""] * len(maps), small=True)
    return f"{reading}{drawn}{_figures(figures, rest, [_READING[name] for name in rest])}"


def _patching_section(figures: Mapping[str, bytes]) -> str:
    if not any(name.startswith("patching") for name in figures):
        return "<p>Nothing was patched: no pair has an answer that could be read, or none was to be patched.</p>"
    wanted = [f"patching-{site}-{way}" for site in (*PATCHED_BY_ROLE, "z") for way in ("denoising", "noising")]
    positions = [f"positions-resid_pre-{direction}" for direction in ("denoising", "noising")]
    whole = _figures(figures, wanted, [""] * len(wanted), small=True)
    by_role = _figures(figures, ["effect-by-role"], [_READING["effect-by-role"]])
    one_pair = _figures(figures, positions, [_READING["positions"], ""])
    return f"<p>{html.escape(_READING['patching'])}</p>{whole}{by_role}{one_pair}"


def _mechanism_section(results: StudyResults, figures: Mapping[str, bytes]) -> str:
    found = results.mechanism
    if found is None:
        return "<p>Nothing was patched, so nothing could be knocked out or searched.</p>"
    looking = ["knock-out-denoising", "causal-against-attention"]
    parts = [_figures(figures, looking, [_READING[name] for name in looking])]
    table = knock_out_table(found, results.seed)
    if len(table):
        parts.append(_table(table, "What cutting attention to the cue does to the counterfactual's answer", decimals=3))
    if found.circuit is None:
        return "".join([*parts, f"<p>No circuit: {html.escape(found.no_circuit)}</p>"])
    drawn = ["circuit", "faithfulness"]
    parts += [
        _figures(
            figures,
            drawn,
            [
                f"The circuit: what is left when everything else is {ABLATED[found.circuit.ablation]}, "
                f"{_READING['circuit']}",
                _READING["faithfulness"],
            ],
        ),
        "<h3>What each head of the circuit reads</h3>",
        _folded(circuit_story(found)),
        _table(
            found.circuit.minimality,
            "Minimality: what each member's removal costs in faithfulness, from the circuit (drop), and at most from "
            "any tried subset of it (largest change)",
            decimals=3,
        ),
        _table(
            found.circuit.completeness.rename(columns={"n_removed": "how many"}),
            "Completeness: faithfulness of circuit and model with the same members taken out of both",
            decimals=3,
        ),
    ]
    return "".join(parts)


def _numbers(results: StudyResults) -> str:
    table = _mean_metrics(results)
    if results.tests is not None:
        strongest = effects_table(results.tests).sort_values("effect_size", key=lambda size: -size.abs())
        strongest = strongest.drop_duplicates(["layer", "head"]).rename(columns=_COLUMNS)
        table = table.merge(strongest[["layer", "head", *_COLUMNS.values()]], how="left")
    for direction in ("denoising", "noising"):
        if ("z", direction) in results.patching:
            moved = mean_effect(results.patching["z", direction]).to_dataframe(f"z {direction}").reset_index()
            table = table.merge(moved[["layer", "head", f"z {direction}"]])
    caption = (
        "Every head: metrics of original against counterfactual averaged over pairs, the metric with its largest |d_z| "
        "against the control, and the effect of swapping its output"
    )
    return _table(table, caption, decimals=4)


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


def _manifest_table(manifest: Mapping[str, Any]) -> str:
    rows = []
    for name, value in manifest.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {len(v) if isinstance(v, list) else v}" for k, v in value.items())
        rows.append(f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _table(table: pd.DataFrame, caption: str, *, decimals: int) -> str:
    head = "".join(f"<th scope=col>{html.escape(str(column))}</th>" for column in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(_cell(value, decimals))}</td>' for value in row)}</tr>"
        for row in table.itertuples(index=False)
    )
    return (
        f"<div class=scroll><table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object, decimals: int) -> str:
    if isinstance(value, float):
        # A sum with 0.0 takes the minus away from what is rounded to nothing.
        return "–" if pd.isna(value) else f"{round(value, decimals) + 0.0:.{decimals}f}"
    return str(value)


def _figures(
    figures: Mapping[str, bytes], names: Iterable[str], captions: Iterable[str], *, small: bool = False
) -> str:
    drawn = [
        _figure(figures[name], name, caption) for name, caption in zip(names, captions, strict=True) if name in figures
    ]
    return f"<div class='{'grid' if small else 'stack'}'>{''.join(drawn)}</div>"


def _figure(png: bytes, name: str, caption: str) -> str:
    data = base64.b64encode(png).decode()
    alt = html.escape(f"{name.replace('-', ' ')}; its numbers are in the tables of this report and beside it")
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure><img src='data:image/png;base64,{data}' alt='{alt}'>{below}</figure>"


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _folded(sentences: Sequence[str]) -> str:
    """A list, what is beyond its first `_N_UNFOLDED` to be opened."""
    if len(sentences) <= _N_UNFOLDED:
        return _list(sentences)
    rest = sentences[_N_UNFOLDED:]
    return f"{_list(sentences[:_N_UNFOLDED])}<details><summary>{len(rest)} more</summary>{_list(rest)}</details>"


def _asset(name: str) -> str:
    return files("negprobe.views").joinpath("assets", name).read_text(encoding="utf-8")
