"""Two studies of the same pairs side by side, as one HTML file: answers, swaps, heads, circuits, and what differs."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from negprobe.errors import ViewError
from negprobe.files import whole_file
from negprobe.patching import Circuit
from negprobe.saved_study import SavedStudy
from negprobe.statements import ROLES
from negprobe.statistics import ALPHA, effects_table, survivors
from negprobe.study_comparison import ALL_CUES, StudyComparison
from negprobe.views.document import (
    NO_SCRIPTS,
    Picture,
    Section,
    bullets,
    document,
    facts,
    folded,
    in_words,
    numbered,
    paragraph,
    pictures,
    table,
)
from negprobe.views.drawing import (
    BLUE,
    LARGE,
    MEDIUM,
    ORANGE,
    PAGE,
    SMALL,
    draw_cells,
    fix_layout,
    lay_out,
    symmetric,
    write_numbers,
)
from negprobe.views.labels import metric_name, percent, role_label, short_name
from negprobe.views.mechanism_findings import ABLATED

_DPI = 180
_N_NAMED = 10
_PANELS = ("A", "B", "B − A")

_SITES = {
    "resid_pre": "the residual stream before a layer",
    "z": "one head's output z",
    "attn_out": "what a layer's attention writes",
    "mlp_out": "what a layer's MLP writes",
}
_MAPPED = ("output_change", "norm_to_cue", "attention_to_cue", "mean_attention_diff")
"""The metrics whose effects are drawn; those of all are tested."""

_LIMITS = (
    "A difference between two models is one between these two: nothing here tells what of training, data or seed made "
    "it, nor how far two seeds of the same training would differ.",
    "Head 2.1 of one model need not do what head 2.1 of another does unless one was made from the other, as in a "
    "fine-tune; heads are compared by their number alone.",
    "Intervals are of one difference each, not corrected for how many there are; q and max-T p are corrected.",
    "Pairs that share words are not independent, which no interval here knows.",
    "Each circuit was searched and proven on its own study's pairs with its own ablation; that a component is in one "
    "alone does not show that the other model can spare it.",
)


def comparison_report(compared: StudyComparison) -> str:
    """The comparison as one self-contained HTML page without scripts.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    drawn = {name: Picture(_png(figure), alt, caption) for name, (figure, alt, caption) in _drawn(compared).items()}
    a, b = _names(compared)
    sections = [
        Section("data", "The models and the data", _data(compared)),
        Section("answer", "The answer", f'<div class="answer">{bullets(answer(compared))}{paragraph(_BRACKETS)}</div>'),
        Section("figures", "The figures", _figures(drawn)),
        Section("numbers", "Every number", _numbers(compared)),
        Section("made", "How they were made", _made(compared)),
        Section("limits", "What cannot be concluded", bullets(_limits(compared))),
    ]
    lead = f"What does {b} (B) do otherwise with the negation than {a} (A), on the same statements?"
    return document(f"How {a} and {b} hear “not”", lead, sections, head=NO_SCRIPTS)


def write_comparison(compared: StudyComparison, path: str | Path) -> Path:
    """Write `comparison_report` to `path` and return it.

    Raises:
        ViewError: as `comparison_report`, and if the file cannot be written.
    """
    path = Path(path)
    page = comparison_report(compared)
    try:
        with whole_file(path) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ViewError(f"The page {path} cannot be written: {error}. Choose another place.") from error
    return path


_BRACKETS = (
    "In brackets: 95 % intervals of the bootstrap over the common pairs, the same draws for both models; of circuits, "
    "over each study's own held-out pairs."
)


def answer(compared: StudyComparison) -> list[str]:
    """The answer in a few sentences, each with its numbers; every difference is B minus A."""
    return [*_answered(compared), *_swapped(compared), *_responding(compared), *_circuits(compared)]


def _answered(compared: StudyComparison) -> list[str]:
    answers = compared.answers
    if answers.empty:
        return [f"The answers cannot be compared: {compared.no_answers}."]
    row = answers[answers["cue"] == ALL_CUES].iloc[0]
    if row["statement"] == "cosine":
        return [
            f"Original and counterfactual are alike to a mean cosine of {row['A']:.3f} in A and {row['B']:.3f} in B: "
            f"{_signed(row, 3)} on {row['pairs']} pairs."
        ]
    sentence = (
        f"A gets both statements of a pair right on {percent(row['A'])} of {row['pairs']} pairs and B on "
        f"{percent(row['B'])}: {_points(row)}."
    )
    by_cue = answers[(answers["statement"] == "both") & (answers["cue"] != ALL_CUES)]
    if len(by_cue) < 2 or not (by_cue["difference"] != 0).any():
        return [sentence]
    top = by_cue.iloc[int(by_cue["difference"].abs().argmax())]
    return [
        f"{sentence} By kind of cue they differ most on “{top['cue']}”: {_points(top)}, {top['pairs']} pairs, not "
        "corrected for the choice."
    ]


def _swapped(compared: StudyComparison) -> list[str]:
    swaps = compared.swaps
    if swaps.empty:
        return ["No common pair was patched in both studies, so the effects of swaps cannot be compared."]
    heads = swaps.query("site == 'z' and direction == 'denoising'")
    tops = [heads.nlargest(1, name).iloc[0] for name in "AB"]
    carrying = (
        f"On {compared.patched} pairs patched in both, the head whose output alone brings back most of the affirmative "
        f"run's answer is {_head(tops[0])} in A ({percent(tops[0]['A'])}) and {_head(tops[1])} in B "
        f"({percent(tops[1]['B'])})."
    )
    if not compared.same_shape:
        return [f"{carrying} The models differ in layers or heads, so that no head has a partner to be held against."]
    sentences = [carrying]
    for site in ("z", "resid_pre"):
        rows = swaps.query("site == @site and direction == 'denoising'")
        top = rows.iloc[int(rows["difference"].abs().argmax())]
        apart = int(((rows["low"] > 0) | (rows["high"] < 0)).sum())
        where = f"head {_head(top)}" if site == "z" else f"layer {top['layer']:.0f} at role {top['part']}"
        sentences.append(
            f"Swapping {_SITES[site]}, {apart} of {len(rows)} effects have an interval of the difference that leaves "
            f"out 0; they differ most in {where}: {percent(top['A'])} in A, {percent(top['B'])} in B, {_points(top)}."
        )
    return [" ".join(sentences)]


def _responding(compared: StudyComparison) -> list[str]:
    counts = []
    for name, tests in zip("AB", compared.tests, strict=True):
        if tests is not None:
            n_passing = int((tests["q"] <= ALPHA).any("metric").sum())
            n_pairs = int(tests["n"].max())
            counts.append(
                f"{n_passing} of {tests.sizes['layer'] * tests.sizes['head']} heads of {name} ({n_pairs} pairs)"
            )
    if not counts:
        return ["No common pair has a control, so negation cannot be told from an inserted word in either."]
    sentence = f"The negation is told from a neutral word (q ≤ {ALPHA:g}) by {' and '.join(counts)}."
    if compared.change is None:
        return [sentence]
    passing = survivors(compared.change)
    n_heads = len(passing[passing["passes_q"]].drop_duplicates(["layer", "head"]))
    if passing.empty:
        return [f"{sentence} In no head does the effect of negation differ between the two (q ≤ {ALPHA:g})."]
    top = passing.iloc[0]
    return [
        f"{sentence} In {n_heads} heads the effect of negation differs between the two, most regularly in head "
        f"{_head_of(top)}, on the {metric_name(str(top['metric']))}: {top['effect']:+.3g} [{top['low']:+.3g}, "
        f"{top['high']:+.3g}]."
    ]


def _circuits(compared: StudyComparison) -> list[str]:
    circuits = {name: study.circuit for name, study in zip("AB", (compared.a, compared.b), strict=True)}
    found = {name: circuit for name, circuit in circuits.items() if circuit is not None}
    if not found:
        return ["Neither study searched a circuit."]
    sizes = " and ".join(
        f"{name}'s of {len(circuit)} of {len(circuit.scores)} components, which keep {percent(circuit.faithfulness)} "
        f"[{percent(circuit.interval[0])}, {percent(circuit.interval[1])}]"
        for name, circuit in found.items()
    )
    if len(found) < 2:
        return [f"Only one study searched a circuit: {sizes}."]
    one, other = found["A"], found["B"]
    if not compared.same_shape:
        return [f"The circuits are {sizes}."]
    shared = set(one.components) & set(other.components)
    chance = len(one) * len(other) / len(one.scores)
    return [
        f"The circuits are {sizes}. They share {len(shared)} components, where two random sets of these sizes would "
        f"share {chance:.1f} on average."
    ]


def _data(compared: StudyComparison) -> str:
    rows = []
    for name, study in zip("AB", (compared.a, compared.b), strict=True):
        model, data = study.manifest["model"], study.manifest["data"]
        rows.append(
            {
                "study": name,
                "model": model["name"],
                "family": model["family"],
                "on top": in_words(model["head"]),
                "layers": model["layers"],
                "heads": model["heads"],
                "data": data["source"],
                "pairs": data["pairs"],
                "answered": data["answered"],
                "patched": data["patched"],
                "folder": str(study.folder),
            }
        )
    text = (
        f"{len(compared.common)} pairs are in both studies, with the same texts, target and foil. What stands here of "
        f"answers, swaps and heads is of them alone, taken anew; {compared.patched} of them were patched in both and "
        "move both models. Every difference is B − A."
    )
    return paragraph(text) + table(pd.DataFrame(rows), "The two studies", decimals=0)


_Drawn = tuple[Figure, str, str]


def _drawn(compared: StudyComparison) -> dict[str, _Drawn]:
    """Every figure with its alternative text and caption, in the order of the page."""
    figures: dict[str, _Drawn] = {}
    if not compared.answers.empty:
        figures["answers"] = _draw_answers(compared.answers)
    for direction in ("denoising", "noising"):
        for site, what in _SITES.items():
            rows = compared.swaps.query("site == @site and direction == @direction")
            if len(rows):
                figures[f"{site}-{direction}"] = _draw_swaps(rows, what, site, direction, compared)
    for metric in _MAPPED:
        if any(tests is not None for tests in compared.tests):
            figures[f"effect-{metric}"] = _draw_effects(metric, compared)
    circuits = compared.a.circuit, compared.b.circuit
    if circuits[0] is not None and circuits[1] is not None:
        figures["circuits"] = _draw_circuits(circuits[0], circuits[1], compared.same_shape)
    return figures


def _figures(drawn: Mapping[str, Picture]) -> str:
    topics = {
        "What the models answer": (["answers"], []),
        "What carries the answer": (
            ["resid_pre-denoising", "z-denoising"],
            [
                name
                for name in drawn
                if name.split("-")[0] in _SITES and name not in ("resid_pre-denoising", "z-denoising")
            ],
        ),
        "Which heads respond": (
            [f"effect-{name}" for name in _MAPPED[:2]],
            [f"effect-{name}" for name in _MAPPED[2:]],
        ),
        "The circuits": (["circuits"], []),
    }
    numbers = numbered(drawn.get(name) for shown, more in topics.values() for name in (*shown, *more))
    parts = []
    for heading, (shown, more) in topics.items():
        body = pictures(map(drawn.get, shown), numbers)
        if body:
            parts.append(f"<h3>{heading}</h3>{body}{folded('More figures', pictures(map(drawn.get, more), numbers))}")
    return "".join(parts) or paragraph("There is nothing to draw.")


def _draw_answers(answers: pd.DataFrame) -> _Drawn:
    statement = answers["statement"].iloc[0]
    rows = answers[answers["statement"] == statement].iloc[::-1]
    figure = Figure(figsize=(PAGE, 1.1 + 0.24 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(rows))
    for name, shift, colour, mark in (("A", 0.14, BLUE, "o"), ("B", -0.14, ORANGE, "D")):
        left.scatter(rows[name], at + shift, 18, color=colour, marker=mark, label=name)
    left.set_yticks(
        at, [f"{cue} (n = {n})" for cue, n in zip(rows["cue"], rows["pairs"], strict=True)], parse_math=False
    )
    difference = rows["difference"].to_numpy()
    arms = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - difference))
    right.errorbar(difference, at, xerr=arms, fmt="s", color="#303030", markersize=4, linewidth=1.2)
    right.axvline(0, color="#808080", linewidth=0.8)
    right.set_xlim(*(1.08 * np.array(symmetric(rows[["difference", "low", "high"]].to_numpy()))))
    named = "cosine of original and counterfactual" if statement == "cosine" else "both statements right"
    left.set_xlabel(named, fontsize=MEDIUM)
    right.set_xlabel("difference, B − A, 95 % interval", fontsize=MEDIUM)
    for axes in (left, right):
        axes.tick_params(labelsize=SMALL)
        if statement != "cosine":
            axes.xaxis.set_major_formatter(PercentFormatter(1))
    if statement != "cosine":
        left.set_xlim(-0.04, 1.04)
    figure.legend(loc="outside upper center", ncols=2, fontsize=SMALL, frameon=False)
    row = rows.iloc[-1]
    return (
        figure,
        f"Dots by kind of cue: {named} in A and B, and the difference. Over all, {row['A']:.2f} in A and "
        f"{row['B']:.2f} in B, a difference of {_signed(row, 2)}.",
        f"{named[0].upper()}{named[1:]}, by kind of cue, in A and B (left), and their difference with its paired "
        "bootstrap interval (right). An interval without width is of pairs that all differ alike.",
    )


def _draw_swaps(rows: pd.DataFrame, what: str, site: str, direction: str, compared: StudyComparison) -> _Drawn:
    columns = "heads" if site == "z" else "roles of tokens"
    names = ["A", "B", *(["difference"] if compared.same_shape else [])]
    shapes = [compared.a.shape, compared.b.shape, compared.a.shape]
    parts = [[str(head) for head in range(heads)] if site == "z" else _roles(rows) for _, heads in shapes]
    tables = [
        rows.pivot(index="layer", columns="part", values=name)
        .reindex(index=range(layers), columns=part)
        .to_numpy(dtype=float)
        for name, (layers, _), part in zip(names, shapes, parts, strict=False)
    ]
    named = parts if site == "z" else [[role_label(role) for role in part] for part in parts]
    figure = side_by_side(
        tables, named, "head" if site == "z" else "role", "normalised effect", f"Swapping {what}, {direction}"
    )
    top = rows.iloc[int(rows[names[-1]].abs().argmax())]
    where = f"head {_head(top)}" if site == "z" else f"layer {top['layer']:.0f}, {top['part']}"
    most = (
        f"They differ most in {where}: {_points(top)}."
        if compared.same_shape
        else f"In B the largest is {percent(top['B'])} in {where}."
    )
    return (
        figure,
        f"{len(tables)} maps of layers by {columns}: effect of swapping {what}, {direction}. {most}",
        f"Swapping {what} ({direction}, {compared.patched} pairs): A, B{', and B − A' if compared.same_shape else ''}. "
        "0 is no change, 1 the whole way to the other run's answer; zero is in the middle of each scale.",
    )


def _roles(rows: pd.DataFrame) -> list[str]:
    return [role for role in ROLES if role in set(rows["part"])]


def _draw_effects(metric: str, compared: StudyComparison) -> _Drawn:
    shapes = (compared.a.shape, compared.b.shape)
    none = [np.full(shape, np.nan) for shape in shapes]
    tables = [none[i] if tests is None else _by_layer_and_head(tests, metric) for i, tests in enumerate(compared.tests)]
    most = ""
    if compared.change is not None:
        tables.append(_by_layer_and_head(compared.change, metric))
        layer, head = np.unravel_index(int(np.nanargmax(np.abs(np.nan_to_num(tables[2])))), tables[2].shape)
        top = compared.change.sel(metric=metric, layer=layer, head=head)
        most = (
            f" They differ most in head {layer}.{head}: {float(top['effect']):+.3g} [{float(top['low']):+.3g}, "
            f"{float(top['high']):+.3g}]."
        )
    parts = [[str(head) for head in range(values.shape[1])] for values in tables]
    named = metric_name(metric)
    return (
        side_by_side(tables, parts, "head", "effect", f"Effect of negation on {named}"),
        f"{len(tables)} maps of layers by heads: effect of negation on {named}.{most}",
        f"Effect of negation on {named}, counterfactual minus control, over the common pairs: A, B"
        f"{', and B − A' if len(tables) > 2 else ''}. Zero, in the middle of each scale, is a head for which negation "
        "is just another word.",
    )


def _by_layer_and_head(tests: xr.Dataset, metric: str) -> Float[np.ndarray, "layer head"]:
    return tests["effect"].sel(metric=metric).transpose("layer", "head").to_numpy()


def _draw_circuits(one: Circuit, other: Circuit, same_shape: bool) -> _Drawn:
    tables, parts = [], []
    for circuit in (one, other):
        heads = 1 + max((part.head for part in circuit.scores if part.head is not None), default=-1)
        layers = 1 + max(part.layer for part in circuit.scores)
        values = np.full((layers, heads + 1), np.nan)
        for part, score in circuit.scores.items():
            values[part.layer, heads if part.head is None else part.head] = score
        tables.append(values)
        parts.append([*map(str, range(heads)), "MLP"])
    if same_shape:
        tables.append(tables[1] - tables[0])
        parts.append(parts[0])
    figure = side_by_side(tables, parts, "component", "effect", "Effect of ablating one component alone")
    for axes, circuit in zip(figure.axes, (one, other), strict=False):
        for part in circuit.components:
            column = len(parts[0]) - 1 if part.head is None else part.head
            corner = (column - 0.46, part.layer - 0.46)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4))
    shared = len(set(one.components) & set(other.components))
    alike = f"; they share {shared}" if same_shape else ""
    return (
        figure,
        f"Maps of layers by components: effect of ablating each alone. A's circuit has {len(one)} components and B's "
        f"{len(other)}{alike}.",
        f"What ablating one component does: A, B{', and B − A' if same_shape else ''}. Frames are the members of the "
        f"circuit. In A all else is {ABLATED[one.ablation]}, in B {ABLATED[other.ablation]}.",
    )


def side_by_side(
    tables: Sequence[Float[np.ndarray, "_ _"]], columns: Sequence[Sequence[str]], across: str, label: str, title: str
) -> Figure:
    """Maps of A, of B, and of B - A if there is a third: zero in the middle of each scale, the first two on the same.

    Args:
        tables: `[layer, column]`; NaN where undefined.
        columns: What the columns of each are called.
        across: What the columns are.
        label: What the numbers are.
        title: What the figure is about.
    """
    n_rows = max(len(values) for values in tables)
    height = 1.8 + min(max(0.28 * n_rows, 1.1), 5) + 0.07 * max(len(name) for names in columns for name in names)
    figure = Figure(figsize=(PAGE * len(tables) / 3 + 0.3, height), layout="constrained")
    figure.suptitle(title, fontsize=LARGE)
    shared = symmetric(np.concatenate([values.ravel() for values in tables[:2]]))
    grid: Sequence[Axes] = figure.subplots(1, len(tables))
    for axes, values, names, which in zip(grid, tables, columns, _PANELS, strict=False):
        change = which == _PANELS[2]
        limits = symmetric(values) if change else shared
        draw_cells(axes, values, f"change of {label}" if change else label, diverging=True, limits=limits, bar="bottom")
        step = -(-len(names) // 16)
        rotation = 90 if max(map(len, names)) > 3 else 0
        axes.set_xticks(range(0, len(names), step), names[::step], rotation=rotation, fontsize=SMALL)
        axes.set_xlabel(across, fontsize=MEDIUM)
        axes.set_title(which, fontsize=MEDIUM)
    # Numbers are written where there is room, which is known when all is in its place.
    lay_out(figure)
    for axes in grid:
        write_numbers(axes)
    return figure


def _numbers(compared: StudyComparison) -> str:
    parts = []
    answers = compared.answers.rename(columns=_BOUNDS)
    if len(answers):
        whole = answers["cue"] == ALL_CUES
        caption = "Share of pairs answered rightly (of embeddings, the mean cosine of the two statements)"
        parts.append(table(answers[whole].drop(columns="cue"), caption, decimals=3))
        rest = folded("Answers by kind of cue", table(answers[~whole], "The same by kind of cue", decimals=3))
        parts.append(rest)
    if compared.change is not None:
        parts.append(_changed_heads(compared.change, compared.tests))
    else:
        parts += [_own_heads(name, tests) for name, tests in zip("AB", compared.tests, strict=True)]
    circuits = [compared.a.circuit, compared.b.circuit]
    if all(circuits):
        parts.append(_circuit_table(*circuits))  # type: ignore[arg-type]
    swaps = compared.swaps.rename(columns=_BOUNDS).dropna(axis="columns", how="all")
    if len(swaps):
        swaps["layer"] = ["every" if pd.isna(layer) else str(int(layer)) for layer in swaps["layer"]]
        caption = (
            "Normalised effect of every swap over the pairs patched in both, and of cutting attention to the cue "
            "(knock_out)"
        )
        parts.append(folded("All swaps", table(swaps, caption, decimals=3)))
    return "".join(parts)


_BOUNDS = {"low": "95 % from", "high": "95 % to", "difference": "B − A"}


def _changed_heads(change: xr.Dataset, tests: tuple[xr.Dataset | None, xr.Dataset | None]) -> str:
    """The heads in which the effect of negation differs most regularly, each by its clearest metric."""
    rows = effects_table(change).sort_values("effect_size", key=lambda size: -size.abs())
    rows = rows.drop_duplicates(["layer", "head"])
    for name, own in zip("AB", tests, strict=True):
        assert own is not None  # or there was no change to test
        effects = own["effect"].to_dataframe(name).reset_index()
        rows = rows.merge(effects[["metric", "layer", "head", name]], on=["metric", "layer", "head"], how="left")
    rows = rows.assign(head=rows["layer"].astype(str) + "." + rows["head"].astype(str))
    rows["metric"] = rows["metric"].map(metric_name)
    named = rows.rename(columns={**_BOUNDS, "effect": "B − A", "effect_size": "d_z", "p_max_t": "max-T p"})
    shown = ["head", "metric", "A", "B", "B − A", "95 % from", "95 % to", "d_z", "q", "max-T p", "n"]
    caption = (
        "Every head by the metric whose effect of negation differs most regularly (largest |d_z|), tested pair by pair"
    )
    top, rest = named[shown].head(_N_NAMED), named[shown].iloc[_N_NAMED:]
    more = folded("The other heads", table(rest, caption, decimals=4)) if len(rest) else ""
    return table(top, caption, decimals=4) + more


def _own_heads(name: str, tests: xr.Dataset | None) -> str:
    if tests is None:
        return ""
    rows = effects_table(tests).sort_values("effect_size", key=lambda size: -size.abs())
    rows = rows.drop_duplicates(["layer", "head"]).head(_N_NAMED)
    rows = rows.assign(head=rows["layer"].astype(str) + "." + rows["head"].astype(str))
    rows["metric"] = rows["metric"].map(metric_name)
    named = rows.rename(columns={**_BOUNDS, "effect_size": "d_z", "p_max_t": "max-T p"})
    shown = ["head", "metric", "effect", "95 % from", "95 % to", "d_z", "q", "max-T p", "n"]
    return table(named[shown], f"{name}: the heads with the most regular effects of negation", decimals=4)


def _circuit_table(one: Circuit, other: Circuit) -> str:
    sides = {"A": one, "B": other}
    facts_of = {
        name: {
            "components": f"{len(circuit)} of {len(circuit.scores)}",
            "faithfulness": f"{circuit.faithfulness:.3f} [{circuit.interval[0]:.3f}, {circuit.interval[1]:.3f}]",
            "held-out pairs": str(circuit.n_held_out),
            "asked for": f"{circuit.threshold:.2f}",
            "ablation": f"{circuit.ablation}, {circuit.direction}",
            "random sets, mean": f"{circuit.random_faithfulness:.3f}",
            "CPR": f"{circuit.cpr:.3f}",
            "CMD": f"{circuit.cmd:.3f}",
        }
        for name, circuit in sides.items()
    }
    summary = pd.DataFrame(facts_of).rename_axis("circuit").reset_index()
    components = sorted({*one.scores, *other.scores})
    rows = pd.DataFrame(
        {
            "component": map(str, components),
            **{
                f"effect alone, {name}": [c.scores.get(part, np.nan) for part in components]
                for name, c in sides.items()
            },
            **{f"in {name}": [part in c for part in components] for name, c in sides.items()},
        }
    )
    every = folded("All components", table(rows, "Effect of ablating each alone, and who is in a circuit", decimals=3))
    return table(summary, "The circuits", decimals=3) + every


def _made(compared: StudyComparison) -> str:
    return "".join(
        facts(study.manifest, f"{name}: {study.folder}")
        for name, study in zip("AB", (compared.a, compared.b), strict=True)
    )


def _limits(compared: StudyComparison) -> list[str]:
    a, b = (study.manifest for study in (compared.a, compared.b))
    versions = sorted(
        name for name in {*a["versions"], *b["versions"]} if a["versions"].get(name) != b["versions"].get(name)
    )
    limits = []
    if versions:
        limits.append(f"The studies were made with different versions of {', '.join(versions)}, which may matter.")
    other_control = _other_controls(compared)
    if other_control:
        limits.append(
            f"{other_control} of {len(compared.common)} common pairs have another control in B than in A, as the words "
            "of a length depend on the tokenizer; their effects of negation and their swaps are against other words."
        )
    left_out = max(len(compared.a.pairs), len(compared.b.pairs)) - len(compared.common)
    if left_out:
        limits.append(f"Up to {left_out} pairs of a study are not in the other and count for nothing here.")
    return [*limits, *_LIMITS]


def _other_controls(compared: StudyComparison) -> int:
    sides = [
        study.pairs.set_index("pair")["control"].fillna("").reindex(compared.common[side]).to_numpy()
        for study, side in ((compared.a, "a"), (compared.b, "b"))
    ]
    return int((sides[0] != sides[1]).sum())


def _names(compared: StudyComparison) -> tuple[str, str]:
    """What the two are called: the models, or their studies' folders where one model's name is that of the other."""
    a, b = (short_name(str(study.manifest["model"]["name"])) for study in (compared.a, compared.b))
    return (a, b) if a != b else (f"{a} in {_folder(compared.a)}", f"{b} in {_folder(compared.b)}")


def _folder(study: SavedStudy) -> str:
    return short_name(str(study.folder))


def _head(row: pd.Series) -> str:
    return f"{row['layer']:.0f}.{row['part']}"


def _head_of(row: pd.Series) -> str:
    return f"{row['layer']:.0f}.{row['head']:.0f}"


def _points(row: pd.Series) -> str:
    """A difference of shares in percentage points, with its interval."""
    signed = [
        f"{100 * float(row[name]) + 0.0:+.0f}".replace("-", "−")
        for name in ("difference", "low", "high")
        if pd.notna(row[name])
    ]
    signed = ["0" if text in ("+0", "−0") else text for text in signed]
    return f"{signed[0]} percentage points" + (f" [{signed[1]}, {signed[2]}]" if len(signed) == 3 else "")


def _signed(row: pd.Series, decimals: int) -> str:
    value, *bounds = (
        f"{float(row[name]) + 0.0:+.{decimals}f}".replace("-", "−") for name in ("difference", "low", "high")
    )
    return f"{value} [{bounds[0]}, {bounds[1]}]" if pd.notna(row["low"]) else value


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    fix_layout(figure)
    figure.savefig(data, format="png", dpi=_DPI)
    return data.getvalue()
