"""Figures of the comparison of two studies: A, B and the difference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from negprobe.patching import DIRECTIONS
from negprobe.statements import ROLES
from negprobe.study.comparison import StudyComparison
from negprobe.study.stages import SWEPT
from negprobe.study.summary_table import CHANGE, A, B, StudySummary
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
from negprobe.views.labels import SITES, metric_name, metric_unit, role_label

_PANELS = ("A", "B", "B − A")

MAPPED = ("output_change", "norm_to_cue", "attention_to_cue", "mean_attention_diff")
"""The metrics whose effects are drawn; all are tested."""


def comparison_figures(compared: StudyComparison) -> dict[str, Figure]:
    """The figures of a comparison by name; figures with nothing to show are left out.

    Raises:
        ViewError: if a result cannot be drawn.
    """
    figures: dict[str, Figure] = {}
    if not compared.answers.empty:
        figures["answers"] = _draw_answers(compared.answers)
    for site in SWEPT:
        for direction in DIRECTIONS:
            rows = compared.swaps.query("site == @site and direction == @direction")
            if len(rows):
                figures[f"{site}-{direction}"] = _draw_swaps(rows, site, direction, compared)
    if any(tests is not None for tests in compared.tests):
        figures |= {f"effect-{metric}": _draw_effects(metric, compared) for metric in MAPPED}
    if compared.a.circuit is not None and compared.b.circuit is not None:
        figures["circuits"] = _draw_circuits(compared.summary)
    return figures


def _draw_answers(answers: pd.DataFrame) -> Figure:
    statement = answers["statement"].iloc[0]
    rows = answers[answers["statement"] == statement].iloc[::-1]
    figure = Figure(figsize=(PAGE, 1.1 + 0.24 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    y = np.arange(len(rows))
    for name, shift, colour, mark in (("A", 0.14, BLUE, "o"), ("B", -0.14, ORANGE, "D")):
        left.scatter(rows[name], y + shift, 18, color=colour, marker=mark, label=name)
    left.set_yticks(
        y, [f"{cue} (n = {n})" for cue, n in zip(rows["cue"], rows["pairs"], strict=True)], parse_math=False
    )
    right.scatter(rows["difference"], y, 18, color="#303030", marker="s")
    right.hlines(y, rows["low"], rows["high"], color="#303030", linewidth=1.2)
    right.axvline(0, color="#808080", linewidth=0.8)
    right.xaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    right.set_xlim(*(1.08 * np.array(symmetric(rows[["difference", "low", "high"]].to_numpy()))))
    label = "cosine of original and counterfactual" if statement == "cosine" else "both statements right"
    left.set_xlabel(label, fontsize=MEDIUM)
    right.set_xlabel("difference, B − A, 95 % interval", fontsize=MEDIUM)
    for axes in (left, right):
        axes.tick_params(labelsize=SMALL)
        if statement != "cosine":
            axes.xaxis.set_major_formatter(PercentFormatter(1))
    if statement != "cosine":
        left.set_xlim(-0.04, 1.04)
    figure.legend(loc="outside upper center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _draw_swaps(rows: pd.DataFrame, site: str, direction: str, compared: StudyComparison) -> Figure:
    by = SWEPT[site]
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
    return side_by_side(tables, named, by, "normalised effect", f"Swapping {SITES.get(site, site)}, {direction}")


def _roles(rows: pd.DataFrame) -> list[str]:
    return [role for role in ROLES if role in set(rows["part"])]


def _draw_effects(metric: str, compared: StudyComparison) -> Figure:
    shapes = (compared.a.shape, compared.b.shape)
    tables = [
        np.full(shape, np.nan) if tests is None else _by_layer_and_head(tests, metric)
        for shape, tests in zip(shapes, compared.tests, strict=True)
    ]
    if compared.change is not None:
        tables.append(_by_layer_and_head(compared.change, metric))
    parts = [[str(head) for head in range(values.shape[1])] for values in tables]
    label = f"effect\n({metric_unit(metric)})" if metric_unit(metric) else "effect"
    return side_by_side(tables, parts, "head", label, f"Effect of negation on {metric_name(metric)}")


def _by_layer_and_head(tests: xr.Dataset, metric: str) -> Float[np.ndarray, "layer head"]:
    return tests["effect"].sel(metric=metric).transpose("layer", "head").to_numpy()


def _draw_circuits(summary: StudySummary) -> Figure:
    drawn = [(name, rows) for name in (A, B, CHANGE) if len(rows := summary.rows("component_effect", study=name))]
    tables, parts = [], []
    for _, rows in drawn:
        wide = rows.astype({"layer": int, "head": float}).pivot(index="layer", columns="head", values="estimate")
        # An MLP has no head and comes last.
        heads = np.sort(wide.columns.to_numpy(dtype=float))
        wide = wide[heads]
        tables.append(wide.to_numpy(dtype=float))
        parts.append(["MLP" if np.isnan(head) else str(int(head)) for head in heads])
    figure = side_by_side(tables, parts, "component", "effect", "Effect of ablating one component alone")
    for axes, (name, _), columns in zip(figure.axes, drawn[:2], parts, strict=False):
        for _, member in summary.rows("circuit_member", study=name).iterrows():
            column = columns.index("MLP" if pd.isna(member["head"]) else str(member["head"]))
            corner = (column - 0.46, int(member["layer"]) - 0.46)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.4))
    return figure


def side_by_side(
    tables: Sequence[Float[np.ndarray, "_ _"]], columns: Sequence[Sequence[str]], across: str, label: str, title: str
) -> Figure:
    """Maps of A and B on one scale and, if there is a third table, of B - A; zero is in the middle of each scale.

    Args:
        tables: `[layer, column]`; NaN where undefined.
        columns: The names of the columns of each table.
        across: The label of the x axis.
        label: The label of the colour bar.
        title: The title of the figure.
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
    # Whether the numbers fit is known only once the layout is final.
    fix_layout(figure)
    for axes in grid:
        write_numbers(axes)
    return figure
