"""The figures of two compared studies: A, B and what differs, each with its alternative text and caption."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from negprobe.patching import DIRECTIONS, Circuit
from negprobe.statements import ROLES
from negprobe.study.comparison import StudyComparison
from negprobe.study.stages import SWEPT
from negprobe.views.figures.drawing import (
    BLUE,
    LARGE,
    MEDIUM,
    ORANGE,
    PAGE,
    SMALL,
    STEPS,
    draw_cells,
    fix_layout,
    symmetric,
    write_numbers,
)
from negprobe.views.labels import metric_name, metric_unit, role_label
from negprobe.views.report.captions import SITES
from negprobe.views.report.circuit_story import ROLE_NAMES
from negprobe.views.report.document import Picture, Topic, png
from negprobe.views.report.mechanism_findings import ABLATED
from negprobe.views.report.wording import in_percent, points, signed

_PANELS = ("A", "B", "B − A")

_MAPPED = ("output_change", "norm_to_cue", "attention_to_cue", "mean_attention_diff")
"""The metrics whose effects are drawn; those of all are tested."""

TOPICS = (
    Topic("What the models answer", ("answers",)),
    Topic(
        "What carries the answer",
        ("resid_pre-denoising", "z-denoising"),
        (
            *("resid_pre-noising", "z-noising"),
            *(f"{site}-{way}" for site in SWEPT if site not in ("resid_pre", "z") for way in DIRECTIONS[::-1]),
        ),
        "Normalised effect of swapping one activation between the two runs, as a ratio of means over pairs: 0 is no "
        "change, 1 moves the answer all the way to the other run's. Denoising puts the affirmative run's activation "
        "into the counterfactual's run, noising the other way round.",
        "No common pair was patched in both studies.",
    ),
    Topic(
        "Which heads respond",
        tuple(f"effect-{name}" for name in _MAPPED[:2]),
        tuple(f"effect-{name}" for name in _MAPPED[2:]),
        "How much more each metric changes for the negation than for a neutral word of the same length, in the mean "
        "over the common pairs. Zero, in the middle of each scale, is a head for which negation is just another word.",
        "No common pair has a control, so there is nothing to hold the negation against.",
    ),
    Topic("The circuits", ("circuits",)),
)
"""The figures of a comparison in the order of its page."""

_Drawn = tuple[Figure, str, str]


def comparison_pictures(compared: StudyComparison) -> dict[str, Picture]:
    """Every figure by its name in `TOPICS`, those left out that have nothing to show.

    Raises:
        ViewError: for results that cannot be drawn.
    """
    figures: dict[str, _Drawn] = {}
    if not compared.answers.empty:
        figures["answers"] = _draw_answers(compared.answers)
    for site in SWEPT:
        for direction in DIRECTIONS:
            rows = compared.swaps.query("site == @site and direction == @direction")
            if len(rows):
                figures[f"{site}-{direction}"] = _draw_swaps(rows, site, direction, compared)
    if any(tests is not None for tests in compared.tests):
        figures |= {f"effect-{metric}": _draw_effects(metric, compared) for metric in _MAPPED}
    circuits = compared.a.circuit, compared.b.circuit
    if circuits[0] is not None and circuits[1] is not None:
        figures["circuits"] = _draw_circuits(circuits[0], circuits[1], compared.same_shape)
    return {name: Picture(png(figure), alt, caption) for name, (figure, alt, caption) in figures.items()}


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
    right.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
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
        f"{row['B']:.2f} in B, a difference of {signed(row['difference'], row['low'], row['high'], '+.2f')}.",
        f"{named[0].upper()}{named[1:]}, by kind of cue, in A and B (left), and their difference with its paired "
        "bootstrap interval (right). An interval without width is of pairs that all differ alike.",
    )


def _draw_swaps(rows: pd.DataFrame, site: str, direction: str, compared: StudyComparison) -> _Drawn:
    what, by = SITES.get(site, site), SWEPT[site]
    columns = "heads" if by == "head" else "roles of tokens"
    names = ["A", "B", *(["difference"] if compared.same_shape else [])]
    shapes = [compared.a.shape, compared.b.shape, compared.a.shape]
    parts = [[str(head) for head in range(heads)] if by == "head" else _roles(rows) for _, heads in shapes]
    tables = [
        rows.pivot(index="layer", columns="part", values=name)
        .reindex(index=range(layers), columns=part)
        .to_numpy(dtype=float)
        for name, (layers, _), part in zip(names, shapes, parts, strict=False)
    ]
    named = parts if by == "head" else [[role_label(role) for role in part] for part in parts]
    figure = side_by_side(tables, named, by, "normalised effect", f"Swapping {what}, {direction}")
    top = rows.iloc[int(rows[names[-1]].abs().argmax())]
    where = f"head {top['layer']:.0f}.{top['part']}" if by == "head" else f"layer {top['layer']:.0f} at {_role(top)}"
    most = (
        f"They differ most in {where}: {points(top['difference'], top['low'], top['high'])}."
        if compared.same_shape
        else f"In B the largest is {in_percent(top['B'], top['B_low'], top['B_high'])} in {where}."
    )
    return (
        figure,
        f"{len(tables)} maps of layers by {columns}: effect of swapping {what}, {direction}. {most}",
        f"Swapping {what} ({direction}, {_pairs(compared.patched)}): {_shown(compared.same_shape)}. {most}",
    )


def _role(row: pd.Series) -> str:
    return ROLE_NAMES[str(row["part"])]


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


def _shown(with_change: bool) -> str:
    return "A, B and B − A" if with_change else "A and B"


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
            f" They differ most in head {layer}.{head}: "
            f"{signed(float(top['effect']), float(top['low']), float(top['high']))}."
        )
    parts = [[str(head) for head in range(values.shape[1])] for values in tables]
    named = metric_name(metric)
    label = f"effect\n({metric_unit(metric)})" if metric_unit(metric) else "effect"
    return (
        side_by_side(tables, parts, "head", label, f"Effect of negation on {named}"),
        f"{len(tables)} maps of layers by heads: effect of negation on {named}.{most}",
        f"{named[0].upper()}{named[1:]}, counterfactual minus control: {_shown(len(tables) > 2)}.{most}",
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
        f"What ablating one component does: {_shown(same_shape)}. Frames are the members of the "
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
    fix_layout(figure)
    for axes in grid:
        write_numbers(axes)
    return figure
