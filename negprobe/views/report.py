"""The report of a study: one HTML file with the answer in words, figures, interactive views and every number."""

import base64
import html
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from negprobe.attention import METRICS
from negprobe.patching import effect, mean_effect
from negprobe.results import PATCHED_BY_ROLE, StudyResults
from negprobe.views.figures import (
    four_heatmaps,
    layer_head_map,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.findings import behaviour, carriers, responding_heads
from negprobe.views.page import page_parts

_READING = {
    "effects": "How much more each metric changes for the negation than for a neutral word of the same length: the "
    "mean over pairs of (original against counterfactual) minus (original against control), both on the tokens that "
    "all three share. Zero, in the middle of the scale, is a head for which negation is just another word.",
    "metrics": "The four metrics of original against counterfactual on aligned tokens, averaged over pairs.",
    "heatmaps": "The head whose output carries most of the answer, on one pair: attention before the values (top) and "
    "the cosine between the head's outputs after them (bottom), for the original, the counterfactual and their "
    "difference on aligned tokens.",
    "values": "The same head on the counterfactual: attention weights, attention weighted by the norm of the "
    "transformed values, and the cosine between its outputs.",
    "patching": "Normalised effect of swapping one activation between the two runs, as a ratio of means over "
    "pairs: 0 is no change, 1 moves the answer all the way to the other run's. Denoising puts the "
    "affirmative run's activation into the counterfactual's run, noising the other way round; the affirmative run is "
    "the control where a pair has one, and the original where it has not.",
    "positions": "One pair, every token: the effect of swapping the residual stream before each layer.",
}

_LIMITS = (
    "A swapped activation shows what the model's answer depends on in these statements; it does not show that the "
    "model uses it the same way elsewhere.",
    "Attention that changes is not attention that matters: compare the first figure with the patching maps.",
    "Intervals are per head and not corrected for the number of heads.",
    "Correlations and attention differences are taken on aligned tokens; attention to the inserted cue itself is "
    "outside them.",
)


def study_figures(results: StudyResults) -> dict[str, Figure]:
    """Every figure of a study, by the name it is saved under.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    figures = {"metrics": metric_overview(_mean_metrics(results))}
    if not results.effects.empty:
        figures["negation-effects"] = _effect_figure(results)
    example = results.examples[0]
    layer, head = carrying_head(results)
    figures["heatmaps"] = four_heatmaps(example, layer, head)
    figures["before-and-after-values"] = raw_beside_value_weighted(example.counterfactual, layer, head)
    for (site, direction), patched in results.patching.items():
        mean = mean_effect(patched)
        # Roles that no pair has would only be empty columns.
        figures[f"patching-{site}-{direction}"] = patching_map(mean.dropna(str(mean.dims[-1]), how="all"))
    for direction, patched in results.positions.items():
        figures[f"positions-resid_pre-{direction}"] = patching_map(effect(patched).squeeze("pair"))
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
        title=html.escape(f"Where {_short_name(results.cfg.model_name)} hears “not”"),
        question=html.escape(
            f"{len(results.pairs)} statements from {results.source} were run with and without their negation through "
            f"{results.cfg.model_name} ({results.cfg.family}, {results.cfg.n_layers} layers of {results.cfg.n_heads} "
            "heads)."
        ),
        notes=_list(_notes(results)),
        behaviour=_list(behaviour(results)),
        responding=_list(responding_heads(results)),
        carriers=_list(carriers(results)),
        answers=_answers_section(results),
        effects=_figures(figures, ["negation-effects", "metrics"], [_READING["effects"], _READING["metrics"]]),
        heatmaps=_figures(
            figures,
            ["heatmaps", "before-and-after-values"],
            [f"Head {layer}.{head}. {_READING['heatmaps']}", f"Head {layer}.{head}. {_READING['values']}"],
        ),
        patching=_patching_section(figures),
        views=parts.body,
        numbers=_numbers(results),
        limits=_list(_LIMITS),
        manifest=_manifest_table(manifest),
    )


def _short_name(model_name: str) -> str:
    """A hub name as it is, and the last two folders of a path."""
    return "/".join(Path(model_name).parts[-2:])


def strongest_head(results: StudyResults) -> tuple[int, int]:
    """Layer and head whose attention changes most for the negation, beyond the control where there is one."""
    effects = results.effects[results.effects["metric"] == "mean_attention_diff"]
    if effects.empty:
        table, column = _mean_metrics(results), "mean_attention_diff"
    else:
        table, column = effects, "effect"
    strongest = table.sort_values(column, ascending=False).iloc[0]
    return int(strongest["layer"]), int(strongest["head"])


def carrying_head(results: StudyResults) -> tuple[int, int]:
    """Layer and head whose output alone brings back most of the answer; `strongest_head` where nothing was patched."""
    if ("z", "denoising") in results.patching:
        effects = mean_effect(results.patching["z", "denoising"]).values
        if np.isfinite(effects).any():
            layer, head = np.unravel_index(np.nanargmax(effects), effects.shape)
            return int(layer), int(head)
    return strongest_head(results)


def _mean_metrics(results: StudyResults) -> pd.DataFrame:
    return results.metrics.groupby(["layer", "head"], as_index=False)[[*METRICS, "attention_to_cue"]].mean()


def _effect_figure(results: StudyResults) -> Figure:
    figure = Figure(figsize=(9, 2.4 + 0.5 * results.cfg.n_layers), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2).flat, METRICS, strict=True):
        table = results.effects[results.effects["metric"] == name]
        values = table.pivot(index="layer", columns="head", values="effect")
        whole = values.reindex(index=range(results.cfg.n_layers), columns=range(results.cfg.n_heads))
        layer_head_map(whole.to_numpy(), label=f"{name}\nnegation − neutral word", diverging=True, axes=axes)
    return figure


def _notes(results: StudyResults) -> list[str]:
    """What was left out, and what weakens the result; nothing is dropped in silence."""
    notes = []
    for what, reasons in (
        ("pairs or controls were left out", results.dropped),
        ("pairs were measured but not patched", results.unpatched),
    ):
        if reasons:
            more = f" (and {len(reasons) - 1} more, in manifest.json)" if len(reasons) > 1 else ""
            notes.append(f"{len(reasons)} {what}: {reasons[0]}{more}.")
    for what, missing in (
        ("negation cue", sum(not pair.cue_spans for pair in results.pairs)),
        ("control of the counterfactual's length", sum(pair.control is None for pair in results.pairs)),
    ):
        if missing:
            notes.append(f"{missing} of {len(results.pairs)} pairs have no {what}.")
    if results.unknown_words:
        words = ", ".join(results.unknown_words[:12])
        more = ", …" if len(results.unknown_words) > 12 else ""
        notes.append(f"This model does not know {len(results.unknown_words)} words of the statements: {words}{more}.")
    no_gap = [mean_effect(patched).attrs["near_zero_gap"] for patched in results.patching.values()][:1]
    if no_gap and no_gap[0]:
        notes.append(f"{len(no_gap[0])} patched pairs do not differ in the answer and are not in the averages.")
    return notes


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


def _patching_section(figures: Mapping[str, bytes]) -> str:
    if not any(name.startswith("patching") for name in figures):
        return "<p>Nothing was patched, because no pair has an answer that could be read.</p>"
    wanted = [f"patching-{site}-{way}" for site in (*PATCHED_BY_ROLE, "z") for way in ("denoising", "noising")]
    positions = [f"positions-resid_pre-{direction}" for direction in ("denoising", "noising")]
    whole = _figures(figures, wanted, [""] * len(wanted), small=True)
    return (
        f"<p>{html.escape(_READING['patching'])}</p>{whole}{_figures(figures, positions, [_READING['positions'], ''])}"
    )


def _numbers(results: StudyResults) -> str:
    table = _mean_metrics(results)
    effects = results.effects[results.effects["metric"] == "mean_attention_diff"]
    if not effects.empty:
        renamed = effects.rename(columns={"effect": "negation − control", "low": "95 % from", "high": "95 % to"})
        table = table.merge(renamed[["layer", "head", "negation − control", "95 % from", "95 % to", "n"]])
    for direction in ("denoising", "noising"):
        if ("z", direction) in results.patching:
            moved = mean_effect(results.patching["z", direction]).to_dataframe(f"z {direction}").reset_index()
            table = table.merge(moved[["layer", "head", f"z {direction}"]])
    return _table(table, "Every head: metrics averaged over pairs, and the effect of swapping its output", decimals=4)


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
        return "–" if pd.isna(value) else f"{value:.{decimals}f}"
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


def _asset(name: str) -> str:
    return files("negprobe.views").joinpath("assets", name).read_text(encoding="utf-8")
