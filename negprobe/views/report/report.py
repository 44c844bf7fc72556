"""The report of a study: one HTML file with the answer in sentences, figures, interactive views and every number."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from negprobe.attention import METRICS
from negprobe.patching import DIRECTIONS, Circuit
from negprobe.study.figure_data import FigureData
from negprobe.study.figure_file import FIGURE_FILE
from negprobe.study.folder import DEFAULT_OBJECTIVE
from negprobe.study.results import StudyResults
from negprobe.study.stages import SWEPT
from negprobe.study.summary_table import StudySummary
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
from negprobe.views.labels import metric_name, percent, short_name
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
from negprobe.views.report.wording import terms, with_interval

_LIMITS = (
    "Swapping an activation shows what the model's answer depends on in these statements; it does not show that the "
    "model uses the activation in the same way elsewhere.",
    "A change in attention need not affect the answer: compare the maps of effects with those of patching.",
    "Each interval is of one head and one metric and is not corrected for multiple comparisons; q and max-T p are "
    "corrected.",
    "Correlations and attention differences are computed on aligned tokens, so they exclude attention to an inserted "
    "cue.",
)


_MAPPED = ("output_change", "mean_attention_diff", "attention_to_cue", "norm_to_cue", "js_divergence", "diffusion")
"""The metrics whose effects are drawn; the tables have all of them."""

_HALF_PAGE = 4.6  # inches


def study_figures(data: FigureData) -> dict[str, Figure]:
    """The figures of a study by the names they are saved under; figures without data are left out.

    Raises:
        ViewError: if a result cannot be drawn.
    """
    summary = data.summary
    figures = {"metrics": metric_overview(_mean_metrics(summary).to_xarray())}
    if data.tests is not None:
        figures |= {f"effect-{name}": effect_map(data.tests, name, width=_HALF_PAGE) for name in _MAPPED}
        if bool(data.tests["effect"].sel(metric=["attention_to_cue", "norm_to_cue"]).notnull().all("metric").any()):
            figures["raw-against-norm"] = raw_against_norm(data.tests)
        clearest = summary.row("clearest_metric")
        if clearest is not None:
            for by, found in data.replications.items():
                figures[f"effect-by-{by}"] = effect_by_group(found, clearest["metric"], overall=data.tests)
    if bool(data.cue_shares.notnull().any()):
        figures["cue-shares"] = cue_shares_by_layer(data.cue_shares)
    distances = ["attention_distance", "norm_distance"]
    if set(distances) <= set(data.metrics) and bool(data.metrics[distances].to_array().notnull().any()):
        figures["attention-distance"] = attention_distance_by_layer(data.metrics)
    if bool(data.metrics["output_change_by_role"].sel(compared="counterfactual").notnull().any()):
        figures["diffusion-by-role"] = diffusion_by_role(data.metrics)
    if data.example is not None:
        shown = summary.rows("shown_head").iloc[0]
        layer, head = int(shown["layer"]), int(shown["head"])
        figures["heatmaps"] = four_heatmaps(data.example, layer, head)
        figures["before-and-after-values"] = raw_beside_value_weighted(data.example.counterfactual, layer, head)
    for (site, direction), mean in data.mean_effects.items():
        # Roles that occur in no pair would be empty columns.
        figures[f"patching-{site}-{direction}"] = patching_map(mean.dropna(str(mean.dims[-1]), how="all"))
    figures |= _mechanism_figures(data)
    for direction, effects in data.position_effects.items():
        figures[f"positions-resid_pre-{direction}"] = patching_map(effects)
    return figures


def _mechanism_figures(data: FigureData) -> dict[str, Figure]:
    """Figures of knock-outs of the cue by head, of attention to it and its effect, and of the circuit."""
    figures: dict[str, Figure] = {}
    by_role = data.summary.rows("swap", site="resid_pre", direction="denoising")
    if len(by_role):
        columns = {"layer": "layer", "role": "role", "estimate": "effect", "low": "low", "high": "high", "n": "n_pairs"}
        drawn = by_role[list(columns)].rename(columns=columns)
        figures["effect-by-role"] = effect_by_role(drawn.astype({"layer": int, "n_pairs": int}).reset_index(drop=True))
    if data.mean_knock_out is not None and bool(data.mean_knock_out.notnull().any()):
        figures["knock-out-denoising"] = patching_map(data.mean_knock_out)
    effects, attention = data.mean_effects.get(("z", "denoising")), data.attention_to_cue
    if effects is not None and attention is not None and bool((effects.notnull() & attention.notnull()).any()):
        label = f"value-weighted attention to {terms(data.summary).words}"
        figures["causal-against-attention"] = causal_against_attention(effects, attention, label)
    if data.circuit is not None:
        if data.readings is not None:
            figures["circuit"] = circuit_graph(data.circuit, data.readings)
        figures["faithfulness"] = faithfulness_curve(data.circuit)
    return figures


_REACHES = "How {change} reaches the answer"

_TOPICS = (
    Topic(
        "What carries the answer",
        ("patching-resid_pre-denoising", "patching-z-denoising", "effect-by-role", "positions-resid_pre-denoising"),
        (
            *("patching-resid_pre-noising", "patching-z-noising", "positions-resid_pre-noising"),
            *(f"patching-{site}-{way}" for site in SWEPT if site not in ("resid_pre", "z") for way in DIRECTIONS[::-1]),
        ),
        "Normalised effect of swapping one activation between the two runs, as a ratio of means over pairs: 0 means no "
        "change, 1 that the answer becomes the other run's. Denoising puts the activation "
        "of the control's run (of the original's, for a pair without a control) into the counterfactual's run; noising "
        "is the reverse.",
        "Nothing was patched: no pair has an answer that can be measured, or patching was switched off.",
    ),
    Topic(
        _REACHES,
        ("knock-out-denoising", "causal-against-attention", "circuit", "faithfulness"),
        missing="Nothing was patched, so there are no knock-outs and no circuit.",
    ),
    Topic(
        "Which heads respond",
        (*(f"effect-{name}" for name in _MAPPED[:4]), "effect-by-cue", "effect-by-source"),
        (
            *(f"effect-{name}" for name in _MAPPED[4:]),
            *("raw-against-norm", "cue-shares", "diffusion-by-role", "attention-distance", "metrics"),
        ),
        "How much more each metric changes for {change} than for a neutral word of the same length: the mean over "
        "pairs of (original against counterfactual) minus (original against control), both on the tokens that all "
        "three share. A value of zero (mid-scale) means that the head responds to {change} as to any other word. "
        "Corrections are over all heads and all metrics of this study together.",
    ),
    Topic("One head, before and after the values", ("heatmaps",), ("before-and-after-values",)),
)
"""The figures by topic; `{change}` in a text stands for what was changed."""


def _topics_of(results: StudyResults) -> list[Topic]:
    """The topics of a study, with the name of the change in their texts and the circuit's heads below its figures."""
    change, below = terms(results.summary).change, {_REACHES: _circuit_text(results)}
    return [
        replace(
            topic,
            heading=topic.heading.format(change=change),
            reading=topic.reading.format(change=change),
            below=below.get(topic.heading, ""),
        )
        for topic in _TOPICS
    ]


_FILES = {
    "pairs.parquet": "the statements, with cues, controls, targets and foils, and how their tokens are aligned",
    "answers.parquet": "the objective of each pair's original, counterfactual and control",
    "metrics.parquet": "every metric of every pair, layer and head, against counterfactual and control",
    "metrics_by_role.parquet": "the same by the role of the tokens",
    "distances.parquet": "how far away each head attends in each original",
    "cue_shares.parquet": "the cue's share of the information flowing into the other tokens, by measure and layer",
    "negation_effects.parquet": "the effect of negation on every metric and head, with intervals and tests",
    "replication.parquet": "the same in each kind of cue and each data set",
    "patching.parquet": "every swap: the objective patched, and in both unpatched runs",
    "knock_out.parquet": "attention to the cue cut, by head",
    "knock_out_sets.parquet": "attention to the cue cut, by layer, by role and everywhere",
    "readings.parquet": "how much each head attends from tokens of one role to tokens of another",
    "summary.parquet": "every number that this report states, a row each: estimate, interval, counts and tests",
    "negation_effects.nc": "negation_effects.parquet as an xarray dataset",
    "circuit.json": "the circuit, for Circuit.load",
    FIGURE_FILE: "what figures show beyond the tables, to draw them again (negprobe figures)",
    "figures": "every figure as PNG, and in the other formats that were chosen",
    "manifest.json": "command, model, data, seed, versions and these files",
    "study.json": "the fingerprint of the study, by which the same command resumes it",
    "shards": "intermediate results; only a resumed study reads them",
}
"""The contents of each file or folder in the folder of a report."""


def study_report(results: StudyResults, figures: Mapping[str, bytes], manifest: Mapping[str, Any]) -> str:
    """The report as one self-contained HTML page.

    Args:
        results: The results of the study.
        figures: The figures of `study_figures` as PNG, by name.
        manifest: Command, model, data, seed and versions, and under `files` the files in the folder of the report.

    Raises:
        ViewError: if a result cannot be drawn.
    """
    views, summary = _views(results), results.summary
    words, name = terms(summary), short_name(results.cfg.model_name)
    pictures = study_pictures(results, figures)
    sections = [
        Section(
            "data",
            "The model and the data",
            paragraph(data(results)) + bullets(left_out(summary)) + _controls(summary),
        ),
        Section(
            "answer",
            "The answer",
            answer_box(answer(summary), BRACKETS) + _evidence(summary),
        ),
        Section(
            "figures",
            "The figures",
            topics(_topics_of(results), pictures),
        ),
        Section("views", "Explore the attention", views.body),
        Section("numbers", "Every number", _numbers(results, manifest["files"])),
        Section("made", "How it was made", facts(manifest, "Command, model, data, seed and versions (manifest.json)")),
        Section("limits", "What cannot be concluded", bullets(limits(results))),
    ]
    lead = (
        f"Does {name} respond to {words.change} in a statement, what carries it to the answer, and which heads respond?"
    )
    hears = "hears “not”" if words.words == "the cue" else "notices changed words"
    return document(f"Where {name} {hears}", lead, sections, head=views.head)


_HEADS = {
    "masked_lm": "a masked-language-model head",
    "classification": "a classification head",
    "none": "no task head; its output is a sentence embedding",
}


def data(results: StudyResults) -> str:
    """A paragraph on the model and the pairs of a study."""
    cfg, summary = results.cfg, results.summary
    layers, heads, pairs = (summary.rows(name).iloc[0] for name in ("layers", "heads_per_layer", "pairs"))
    answered, controlled = (summary.rows(name).iloc[0] for name in ("answers", "with_control"))
    patched, words = summary.row("patched"), terms(summary)
    objective = "" if results.objective == DEFAULT_OBJECTIVE else f", with the objective {results.objective}"
    return (
        f"{cfg.model_name} is a {cfg.family} model with {layers['estimate']:.0f} layers of {heads['estimate']:.0f} "
        f"heads and {_HEADS[cfg.head]}. It was run on {pairs['estimate']:.0f} pairs of statements from "
        f"{results.source}: an original, its counterfactual with {words.change}, and, for {controlled['hits']} of "
        f"{controlled['n']} pairs ({percent(controlled['estimate'])}), a control with neutral words of the same length "
        f"in place of {words.words}. {answered['hits']} pairs have an answer that can be measured; "
        f"{0 if patched is None else patched['hits']} were patched{objective}."
    )


def _controls(summary: StudySummary) -> str:
    """A table of some controls beside their counterfactuals; empty without controls."""
    examples = summary.rows("control_example")
    if examples.empty:
        return ""
    rows = []
    for cue, counterfactual, control in examples[["cue", "part", "note"]].itertuples(index=False):
        letters = enumerate(zip(counterfactual, control, strict=False))
        first = next((at for at, (ours, theirs) in letters if ours != theirs), 0)
        start = max(0, first - _CONTEXT)
        rows.append(
            {"cue": cue, "counterfactual": _excerpt(counterfactual, start), "control": _excerpt(control, start)}
        )
    caption = (
        f"Controls of pairs drawn at random. {terms(summary).effect.capitalize()} is measured relative to such texts, "
        "so check that they are correct English and mean what the original means. pairs.parquet has all controls"
    )
    return table(pd.DataFrame(rows), caption, decimals=0)


def _excerpt(text: str, start: int) -> str:
    """The text from a character on, up to a length that fits a table."""
    end = start + 3 * _CONTEXT
    return f"{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}"


_CONTEXT = 60
"""The number of characters that are shown before the first difference of two texts."""

BRACKETS = (
    "In brackets: 95 % intervals. Those of shares of pairs are Wilson intervals, those of d_z are of its standard "
    "error; all others are bootstrap intervals. Effects of swaps and of heads are resampled by clusters of pairs that "
    "share material, means of answers by pairs."
)

_VIEWS = (
    "Each square is one head: queries (destination tokens) down the side, keys (source tokens) along the bottom. Hover "
    "over a head to enlarge it in all three views; click to keep it enlarged."
)


def _views(results: StudyResults) -> PageParts:
    """The interactive views of the examples, or a sentence on why there are none."""
    try:
        views = page_parts(results.examples, sweeps=[*results.positions.values()])
    except PageTooLargeError as error:
        return PageParts(NO_SCRIPTS, paragraph(f"{error} AttentionProbe.html writes a separate page."))
    return PageParts(views.head, f"{paragraph(_VIEWS)}{views.body}")


def _evidence(summary: StudySummary) -> str:
    """All findings, in sentences under the headings of the figures."""
    found = {
        "What the model answers": behaviour(summary),
        "What carries the answer": carriers(summary),
        _REACHES.format(change=terms(summary).change): mechanism(summary),
        "Which heads respond": responding_heads(summary),
    }
    parts = [f"<h3>{heading}</h3>{bullets(sentences)}" for heading, sentences in found.items() if sentences]
    return folded("The evidence in full", "".join(parts))


def _circuit_text(results: StudyResults) -> str:
    """A list of what the heads of the circuit read, or a sentence on why there is no circuit."""
    found = results.mechanism
    if found is None:
        return ""
    if found.circuit is None:
        return paragraph(f"No circuit: {found.no_circuit}")
    return folded("What each head of the circuit reads", bullets(circuit_story(found, results.summary)))


def _mean_metrics(summary: StudySummary) -> pd.DataFrame:
    """Each metric of original against counterfactual, averaged over pairs, by layer and head."""
    means = summary.rows("metric_mean").astype({"layer": int, "head": int})
    return means.pivot(index=["layer", "head"], columns="metric", values="estimate")[list(METRICS)]


def _numbers(results: StudyResults, files: Sequence[str]) -> str:
    """Tables of the numbers in the figures, with the larger ones folded."""
    summary = results.summary
    parts = [_answers_table(summary), _knock_outs(summary)]
    parts += [folded("All heads", _heads_tables(summary)), folded("All swaps", _swaps_tables(summary))]
    if results.mechanism is not None and results.mechanism.circuit is not None:
        parts.append(folded("The circuit", _circuit_tables(results.mechanism.circuit)))
    named = pd.DataFrame({"file": files, "holds": [_FILES[name] for name in files]})
    return "".join([*parts, table(named, "The files beside this report, with every number for every pair", decimals=0)])


def _answers_table(summary: StudySummary) -> str:
    """A table of accuracy by kind of cue; empty for scores, embeddings and a classifier's own labels."""
    of_cues = summary.rows("right_of_cue")
    rows = [_right(cue, rows) for cue, rows in of_cues.groupby("cue", sort=False)]
    if not rows:
        return ""
    if len(rows) > 1:
        rows.append(_right("all", summary.rows("right")))
    caption = (
        "Accuracy by kind of cue: the share of statements on which the model prefers the right answer, and of pairs on "
        "which it does for both original and counterfactual, with its 95 % Wilson interval"
    )
    return table(pd.DataFrame(rows), caption, decimals=2)


def _right(cue: object, rows: pd.DataFrame) -> dict[str, object]:
    """One row of the table of accuracies."""
    shares = rows.set_index("compared")
    both = shares.loc["both"]
    single = shares["estimate"].reindex(["original", "counterfactual", "control"])
    row = {"cue": cue, "pairs": rows.loc[rows["compared"] == "both", "n"].iloc[0], **dict(single.items())}
    return row | {"both": both["estimate"], "both, 95 % from": both["low"], "both, 95 % to": both["high"]}


def _knock_outs(summary: StudySummary) -> str:
    cut = knock_out_table(summary)
    return (
        table(cut, f"Effect on the counterfactual's answer of removing attention to {terms(summary).words}", decimals=3)
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
                "Minimality: the loss of faithfulness when a member is removed from the circuit (drop), and the "
                "largest change when it is removed from any tried subset of it",
                decimals=3,
            ),
            table(
                circuit.completeness.rename(columns={"n_removed": "how many"}),
                "Completeness: faithfulness of circuit and model with the same members removed from both",
                decimals=3,
            ),
        ]
    )


def _heads_tables(summary: StudySummary) -> str:
    means = _with_heads(_mean_metrics(summary).reset_index()).rename(columns=in_words)
    caption = "Every head: metrics of original against counterfactual, averaged over pairs"
    drawn = table(means, caption, decimals=3)
    clearest = summary.rows("clearest_effect").sort_values(["layer", "head"])
    if clearest.empty:
        return drawn
    clearest = clearest.assign(metric=clearest["metric"].map(metric_name))
    tests = _with_heads(clearest[["layer", "head", *_COLUMNS]]).rename(columns=_COLUMNS)
    caption = "Every head: the metric with its largest |d_z| of negation against the control"
    return drawn + table(tests, caption, decimals=4)


def _with_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Layer and head as one name, like "2.1", in the first column."""
    rest = frame.drop(columns=["layer", "head"])
    rest.insert(0, "head", frame["layer"].astype(str) + "." + frame["head"].astype(str))
    return rest


def _swaps_tables(summary: StudySummary) -> str:
    """Tables of all effects of swaps with intervals, with roles or heads as columns."""
    by_role: list[pd.DataFrame] = []
    by_head: list[pd.DataFrame] = []
    for (site, direction), found in summary.rows("swap").groupby(["site", "direction"], sort=False):
        swapped = f"{site}, {direction}, layer " + found["layer"].astype(str)
        cells = found.assign(swapped=swapped, cell=[with_interval(row, decimals=2) for _, row in found.iterrows()])
        (by_head if cells["head"].notna().any() else by_role).append(cells)
    captions = {
        "role": "Effect of every swap by role of token, with its bootstrap interval over clusters of pairs",
        "head": "Effect of swapping the output of every head, with its bootstrap interval over clusters of pairs",
    }
    return "".join(
        table(_wide(pd.concat(found), by), captions[by], decimals=2)
        for by, found in (("role", by_role), ("head", by_head))
        if any(map(len, found))
    )


def _wide(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    """One row per swap, in the given order, and one column per role or head."""
    order = {name: index for index, name in enumerate(dict.fromkeys(cells["swapped"]))}
    wide = cells.pivot(index="swapped", columns=by, values="cell").sort_index(key=lambda names: names.map(order))
    columns = list(dict.fromkeys(cells[by]))
    named = wide[columns].rename(columns=lambda name: f"head {name}" if by == "head" else name)
    return named.fillna("–").reset_index()


def limits(results: StudyResults) -> list[str]:
    """Sentences on what cannot be concluded from the study."""
    summary = results.summary
    pairs, patched = summary.rows("pairs").iloc[0], summary.row("patched")
    is_sample = patched is not None and patched["hits"] < pairs["estimate"]
    sample = f", those of patching for {patched['hits']} of them" if patched is not None and is_sample else ""
    limits = [
        f"The results are for {pairs['estimate']:.0f} pairs from {results.source}{sample}. Pairs that "
        "share words are not independent, which the intervals here do not account for, and results may differ on other "
        "statements.",
        *_LIMITS,
    ]
    if len(results.environments) > 1:
        limits.append(
            f"The study was resumed with other package versions ({_differing(results.environments)}). Patch releases "
            "are not expected to change a number; manifest.json names the versions of every run."
        )
    if summary.row("circuit") is not None:
        limits.append(
            "A circuit is one sufficient set under one kind of ablation. Other sets may be sufficient too, and "
            "components outside it may do the same work."
        )
    return limits


def _differing(environments: Sequence[Mapping[str, Any]]) -> str:
    """The packages whose versions differ between runs, as "torch 2.13.0 and 2.13.1"."""
    all_versions = [{"Python": one.get("python", ""), **one["versions"]} for one in environments]
    found = {name: list(dict.fromkeys(str(one.get(name, "none")) for one in all_versions)) for name in all_versions[-1]}
    return "; ".join(f"{name} {' and '.join(values)}" for name, values in found.items() if len(values) > 1)


_COLUMNS = {
    "metric": "most regular effect",
    "estimate": "negation − control",
    "low": "95 % from",
    "high": "95 % to",
    "effect_size": "d_z",
    "q": "q",
    "p_max_t": "max-T p",
    "n": "n",
}
