"""Figures of patching results: circuits, their faithfulness, effects of heads and roles, and attribution.

`drawing` describes the common style. Layers and heads count from 0. `width` is in inches: 6.9 for a page, 3.3 for one
of its two columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

from negprobe.attention import Reading, ReadingChange, head_story
from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.patching.circuits import Circuit, Component
from negprobe.views.figures.drawing import (
    BLUE,
    DIVERGING,
    GREY,
    HALO,
    LARGE,
    MEDIUM,
    ORANGE,
    PAGE,
    SMALL,
    STEPS,
    check_width,
    dot_size,
    figure_of,
    label_scatter,
    largest_size,
    lay_out,
    legend_below,
    name_points,
    number_range,
    scatter_heads,
    set_title,
    size_in_points,
    spearman,
    square_axes,
    wrapped,
)
from negprobe.views.labels import ablation_label, role_label, runs_title, short_name, tick_label
from negprobe.views.report.circuit_story import signed

_PALE = "#b0b0b0"
_EFFECT = "normalised effect"
_BAND_GAP, _LINE_HEIGHT = 8.0, 9.0  # points between layers, and per line of text
_OUTSIDE_WIDTH = 7.0  # points per component outside the circuit
_MIN_MARK, _MAX_MARK = 6.0, 15.0  # diameters in points of the marks of the circuit
_MIN_CHANGE = 0.25  # the smallest change of attention written below a head
_N_NAMED = 6  # parts named where attribution disagrees with patching


@dataclass(frozen=True)
class _Layout:
    """The positions of the components of a circuit, in points from the lower left corner.

    Attributes:
        at: The position of each component.
        bands: Bottom and top of each layer.
        width: The total width.
    """

    at: "dict[Component, tuple[float, float]]"
    bands: list[tuple[float, float]]
    width: float


@checked
def circuit_graph(
    circuit: Circuit,
    readings: xr.Dataset | None = None,
    *,
    edges: pd.DataFrame | None = None,
    width: float = PAGE,
    axes: Axes | None = None,
) -> Figure:
    """A diagram of a circuit, with the layers from bottom to top and all other components as small grey dots.

    Heads are circles in order, MLPs are squares to their right. Size and colour show the score, with zero in the middle
    of the colour scale. Lines are drawn only if `edges` are given.

    Args:
        circuit: The circuit; its `scores` must contain every component.
        readings: The result of `AttentionProbe.readings`. Below each head it adds the roles between which its attention
            after the values stands out most, and the largest change from the control (or original), if it is at least a
            quarter of the attention of a role.
        edges: Columns `sender`, `receiver` (components, or their names) and `score`, which line width and colour show.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. Names are placed for their current width.

    Raises:
        ViewError: if the circuit has no scores, a component of it has no score, or an edge has an unknown component.
        InputError: if the readings lack a head of the circuit.
    """
    check_width(width)
    scores = circuit.scores
    if not scores or (unscored := [str(part) for part in circuit.components if part not in scores]):
        problem = f"has no score for {', '.join(unscored)}" if scores else "has no scores"
        raise ViewError(f"The circuit {problem}; its `scores` must contain every component.")
    names = {part: _component_label(part, readings) for part in circuit.components}
    alone = axes is None
    if axes is None:
        rows = [[part for part in scores if part.layer == layer] for layer in {part.layer for part in scores}]
        widest = max(sum(1.2 * _width(part, names) for part in row) for row in rows)
        axes = Figure(figsize=(min(width, max(3.3, 1.3 + widest / 72)), 4), layout="constrained").subplots()
    largest = largest_size(scores[part] for part in names)
    colours = ScalarMappable(Normalize(-largest, largest), DIVERGING)
    # In given axes, the legend takes the place below them, so the colour bar is to the right.
    location, length = ("bottom", 0.6 * 72 * figure_of(axes).get_figwidth()) if alone else ("right", 120)
    bar = figure_of(axes).colorbar(colours, ax=axes, location=location, shrink=0.6, pad=0.02, aspect=length / 6)
    bar.set_label(
        f"effect of ablating it alone\n{ablation_label(circuit.direction, circuit.ablation)}", fontsize=MEDIUM
    )
    bar.ax.tick_params(labelsize=SMALL)
    bar.locator = MaxNLocator(4, steps=STEPS)
    axes.set_ylabel("layer", fontsize=MEDIUM)
    axes.set_yticks([0], [str(max(part.layer for part in scores))], fontsize=SMALL)
    lay_out(figure_of(axes))  # the axes need their final width
    layout = _circuit_layout(scores, names, size_in_points(axes)[0])
    if alone:
        figure_of(axes).set_figheight((layout.bands[-1][1] + 110) / 72)
    _draw_bands(axes, layout)
    keys = _draw_components(axes, scores, names, layout, largest)
    if edges is not None:
        keys |= _draw_edges(axes, edges, layout)
    share = f"{len(names)} of {len(scores)} components"
    axes.set_title(f"{share}\n{tick_label(short_name(circuit.model_name), 40)}", fontsize=LARGE, parse_math=False)
    legend_below(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


def _draw_components(
    axes: Axes,
    scores: "Mapping[Component, float]",
    names: "Mapping[Component, str]",
    layout: _Layout,
    largest: float,
) -> dict[str, Any]:
    """Draw a mark for each component, and names below those of the circuit; return the legend keys."""
    keys: dict[str, Any] = {}
    for kind, marker, is_head in (("head", "o", True), ("MLP", "s", False)):
        of_kind = [part for part in scores if (part.head is not None) == is_head]
        inside = [part for part in names if (part.head is not None) == is_head]
        strength = np.array([scores[part] for part in inside], dtype=float)
        sizes = np.array([_diameter(score / largest) ** 2 for score in strength])
        at = _places(layout, inside)
        marks = axes.scatter(at[:, 0], at[:, 1], sizes, strength, marker=marker, cmap=DIVERGING)
        marks.set(clim=(-largest, largest), edgecolor="#303030", linewidth=0.7, zorder=3, label=kind)
        at = _places(layout, [part for part in of_kind if part not in names])
        axes.scatter(at[:, 0], at[:, 1], 7, _PALE, marker=marker, linewidths=0, zorder=2, label=f"{kind} outside")
        if of_kind:
            keys[f"{kind} ({len(inside)})"] = _key(marker, 6.0, "white", "#303030")
    keys[f"outside ({len(scores) - len(names)})"] = _key("o", 3.0, _PALE, _PALE)
    for part, name in names.items():
        below = -_diameter(scores[part] / largest) / 2 - 2
        text = axes.annotate(
            name,
            layout.at[part],
            (0, below),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="top",
            linespacing=1.1,
            zorder=4,
        )
        text.set_path_effects([HALO])
    return keys


def _key(marker: str, size: float, face: str, edge: str) -> Line2D:
    """A mark as a legend key."""
    return Line2D([], [], linestyle="", marker=marker, markersize=size, markerfacecolor=face, markeredgecolor=edge)


def _places(layout: _Layout, parts: "Sequence[Component]") -> Float[np.ndarray, "part 2"]:
    return np.array([layout.at[part] for part in parts], dtype=float).reshape(-1, 2)


def _component_label(part: Component, readings: xr.Dataset | None) -> str:
    if readings is None or part.head is None:
        return str(part)
    story = head_story(readings, part.layer, part.head)
    lines = [str(part), _reads(story.norm)]
    # The attention that the cue changes most can differ from the attention that stands out most.
    if story.change is not None and abs(story.change.norm) >= _MIN_CHANGE:
        lines.append(f"{_reads(story.change)} {signed(story.change.norm)}")
    return "\n".join(lines)


def _reads(reading: Reading | ReadingChange) -> str:
    return f"{role_label(reading.query)} → {role_label(reading.key)}"


def _diameter(strength: float) -> float:
    """The diameter in points of the mark of a score, relative to the largest score."""
    return float(_MIN_MARK + (_MAX_MARK - _MIN_MARK) * np.sqrt(abs(strength)))


def _width(part: Component, names: "Mapping[Component, str]") -> float:
    """The width in points that a component needs in its line."""
    if part not in names:
        return _OUTSIDE_WIDTH
    return max(_MAX_MARK, 3.8 * max(map(len, names[part].split("\n")))) + 5


def _circuit_layout(scores: "Mapping[Component, float]", names: "Mapping[Component, str]", width: float) -> _Layout:
    """The layout with each layer's heads in order, on as many lines as their names need, and its MLP to their right."""
    mlp_width = max((_width(part, names) for part in scores if part.head is None), default=0.0)
    at: dict[Component, tuple[float, float]] = {}
    bands, bottom = [], 0.0
    for layer in range(max(part.layer for part in scores) + 1):
        of_layer = [part for part in scores if part.layer == layer]
        mlp = [part for part in of_layer if part.head is None]
        lines = _head_lines(sorted(set(of_layer) - set(mlp)), names, width - mlp_width)
        # The MLP is next to the first line.
        full_lines = [[*lines[0], *mlp], *lines[1:]]
        heights = [_height(line, names) for line in full_lines]
        top = bottom + sum(heights)
        bands.append((bottom, top))
        middles = top - np.cumsum([0.0, *heights[:-1]]) - [_mark_offset(line, names) for line in full_lines]
        for line, y in zip(lines, middles, strict=True):
            widths = np.array([_width(part, names) for part in line])
            # A single line is spread over the whole width.
            widths += max(0.0, width - mlp_width - widths.sum()) / max(len(line), 1) if len(lines) == 1 else 0.0
            at |= {part: (float(x), float(y)) for part, x in zip(line, np.cumsum(widths) - widths / 2, strict=True)}
        at |= dict.fromkeys(mlp, (width - mlp_width / 2, float(middles[0])))
        bottom = top + _BAND_GAP
    return _Layout(at, bands, width)


def _head_lines(
    heads: "Sequence[Component]", names: "Mapping[Component, str]", width: float
) -> "list[list[Component]]":
    """The heads divided into lines that are no longer than `width`."""
    lines: list[list[Component]] = [[]]
    remaining = width
    for part in heads:
        needed = _width(part, names)
        if lines[-1] and needed > remaining:
            lines.append([])
            remaining = width
        lines[-1].append(part)
        remaining -= needed
    return lines


def _height(line: "Sequence[Component]", names: "Mapping[Component, str]") -> float:
    """The height in points of a line of components with their names."""
    texts = [names[part].count("\n") + 1 for part in line if part in names]
    return _MAX_MARK + 4 + _LINE_HEIGHT * max(texts) if texts else _OUTSIDE_WIDTH + 4


def _mark_offset(line: "Sequence[Component]", names: "Mapping[Component, str]") -> float:
    """The distance in points from the top of a line of components to the middle of its marks."""
    return (_MAX_MARK if any(part in names for part in line) else _OUTSIDE_WIDTH) / 2 + 2


def _draw_bands(axes: Axes, layout: _Layout) -> None:
    for low, high in layout.bands:
        axes.axhspan(low - _BAND_GAP / 4, high + _BAND_GAP / 4, color="#f3f3f3", linewidth=0, zorder=0)
    axes.set_yticks([(low + high) / 2 for low, high in layout.bands], [str(i) for i in range(len(layout.bands))])
    axes.set_ylim(-_BAND_GAP / 2, layout.bands[-1][1] + _BAND_GAP / 2)
    axes.set_xlim(0, layout.width)
    axes.set_xticks([])
    axes.tick_params(labelsize=SMALL, length=0)
    axes.spines[:].set_visible(False)


def _draw_edges(axes: Axes, edges: pd.DataFrame, layout: _Layout) -> dict[str, Any]:
    """Draw a curve from each sender to its receiver; return the legend keys."""
    if missing := {"sender", "receiver", "score"} - set(edges.columns):
        raise ViewError(f"The edges have no column {', '.join(sorted(missing))}; give sender, receiver and score.")
    places = {str(part): place for part, place in layout.at.items()}
    ends = [(str(sender), str(receiver)) for sender, receiver in zip(edges["sender"], edges["receiver"], strict=True)]
    if unknown := sorted({end for edge in ends for end in edge} - set(places)):
        raise ViewError(f"The edges name components that have no score: {', '.join(unknown)}; remove these edges.")
    largest = largest_size(edges["score"])
    keys: dict[str, Any] = {}
    for (sender, receiver), score in zip(ends, edges["score"].astype(float), strict=True):
        colour, name = (ORANGE, "edge, score ≥ 0") if score >= 0 else (BLUE, "edge, score < 0")
        # A curve avoids the components between its ends.
        axes.add_patch(
            FancyArrowPatch(
                places[sender],
                places[receiver],
                connectionstyle="arc3,rad=0.15",
                arrowstyle="-",
                color=colour,
                linewidth=0.4 + 2.6 * abs(score) / largest,
                alpha=0.6,
                zorder=1,
            )
        )
        keys[name] = Line2D([], [], color=colour, alpha=0.6, linewidth=2)
    return keys


@checked
def faithfulness_curve(circuit: Circuit, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """The faithfulness of circuits of the best-ranked components on held-out pairs, by the share of components kept.

    1 is the behaviour of the whole model, 0 that with every component ablated. The circuit is marked separately with
    its interval, because it is pruned and may not lie on the curve; the mean of random circuits of its size is marked
    too. A dashed line shows the threshold of the search. The title gives CPR, the area under the curve (higher is
    better), and CMD, the area between the curve and 1 (lower is better), both from Mueller et al. 2025, "MIB: A
    Mechanistic Interpretability Benchmark". The x axis is logarithmic if there are more than 50 components.

    Args:
        circuit: The circuit.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure.

    Raises:
        ViewError: if the curve lacks a column or is empty.
    """
    check_width(width)
    curve = _columns(circuit.curve, "curve", ("size", "share", "faithfulness", "low", "high")).sort_values("share")
    n_all, n = len(circuit.scores), len(circuit.components)
    on_log_scale = n_all > 50
    if on_log_scale:
        curve = curve[curve["share"] > 0]
    alone, axes = axes is None, axes or _small_axes(width)
    keys: dict[str, Any] = {}
    band = axes.fill_between(curve["share"], curve["low"], curve["high"], color=BLUE, alpha=0.2, linewidth=0)
    (line,) = axes.plot(curve["share"], curve["faithfulness"], color=BLUE, linewidth=1.3, marker=".", markersize=4)
    keys["best-ranked, 95 % interval"] = (band, line)
    keys["whole model"] = axes.axhline(1, color=GREY, linewidth=0.8)
    keys[f"threshold {circuit.threshold:g}"] = axes.axhline(
        circuit.threshold, color=GREY, linewidth=0.9, linestyle="--"
    )
    axes.vlines(n / n_all, *circuit.interval, color=ORANGE, linewidth=1.3)
    (random,) = axes.plot([n / n_all], [circuit.random_faithfulness], "x", color="black", markersize=5)
    keys["random circuits"] = random
    (chosen,) = axes.plot([n / n_all], [circuit.faithfulness], "D", color=ORANGE, markersize=6, markeredgecolor="black")
    keys[f"circuit ({n} of {n_all})"] = chosen
    if on_log_scale:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel("share of components kept", fontsize=MEDIUM)
    axes.set_ylabel("faithfulness", fontsize=MEDIUM)
    axes.tick_params(labelsize=SMALL)
    set_title(
        axes, f"CPR {circuit.cpr:.2f}, CMD {circuit.cmd:.2f}", ablation_label(circuit.direction, circuit.ablation)
    )
    legend_below(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


@checked
def causal_against_attention(
    effects: xr.DataArray, attention: xr.DataArray, label: str, *, width: float = PAGE, axes: Axes | None = None
) -> Figure:
    """A scatter plot of attention to the cue (x) and the effect of swapping z (y), with one dot per head.

    It shows whether heads that attend to the cue matter for the answer. Colours show layers. The outermost heads are
    named "layer.head", as far as the names fit; distances are relative to the largest value on each axis.

    Args:
        effects: Dims `layer`, `head`: mean normalised effects of swapping `z`, as `mean_effect` returns them.
        attention: Dims `layer`, `head`: attention to the cue, such as the mean of `norm_to_cue` over the pairs.
        label: The label of the x axis.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. Names are placed for their current size.

    Raises:
        ViewError: if either has other dimensions, or no head has both values.
    """
    check_width(width)
    for what, values in (("effects", effects), ("attention", attention)):
        if set(values.dims) != {"layer", "head"}:
            raise ViewError(f"The {what} need the dimensions layer and head, got {values.dims}; average over others.")
    y, x = (values.transpose("layer", "head") for values in xr.align(effects, attention, join="inner"))
    both = np.isfinite(x.values) & np.isfinite(y.values)
    if not both.any():
        raise ViewError("No head has both an effect and attention, so there is nothing to draw.")
    layers, heads = (x[name].values[at] for name, at in zip(("layer", "head"), np.nonzero(both), strict=True))
    points = np.column_stack([x.values[both], y.values[both]])
    axes = axes or square_axes(width)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    scatter_heads(axes, points, layers, int(layers.max()) + 1)
    runs = " ".join(runs_title(effects)) or _EFFECT
    label_scatter(axes, label, f"effect of swapping its output\n{runs}")
    n = f"\nn = {number_range(effects['n_pairs'].values.flat)} pairs" if "n_pairs" in effects.coords else ""
    axes.set_title(f"Spearman ρ {spearman(points)} over {len(points)} heads{n}", fontsize=LARGE)
    name_points(axes, points, [f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True)])
    return figure_of(axes)


@checked
def effect_by_role(averages: xr.Dataset | pd.DataFrame, *, label: str = _EFFECT, width: float = PAGE) -> Figure:
    """The mean effects of a sweep with bootstrap intervals: one panel per role, by layer, or per layer, by head.

    All panels share their axes. The titles give the numbers of pairs.

    Args:
        averages: `patching.averages` of a sweep by role or head, or a table of one sweep with the columns `layer`,
            `role` or `head`, `effect`, `low`, `high` and `n_pairs`.
        label: The label of the y axis.
        width: Width of the figure in inches.

    Raises:
        ViewError: if the table is empty or lacks a column, no effect is defined, or a cell has several rows.
    """
    check_width(width)
    if isinstance(averages, xr.Dataset):
        averages = averages.to_dataframe().reset_index() if averages.sizes else pd.DataFrame()
    by_role = "role" in averages.columns
    by, along = ("role", "layer") if by_role else ("layer", "head")
    table = _columns(averages, "averages", (by, along, "effect", "low", "high", "n_pairs")).dropna(subset=["effect"])
    if table.empty:
        raise ViewError("No effect in the table is defined, so there is nothing to draw.")
    if (table.groupby([by, along]).size() > 1).any():
        raise ViewError(f"The table has several rows for the same {by} and {along}; select one site and direction.")
    # Roles keep the order of the table.
    names = table[by].unique() if by_role else sorted(table[by].unique())
    groups = [(name, table[table[by] == name]) for name in names]
    n_rows = -(-len(groups) // max(1, int(width / 1.4)))
    n_columns = -(-len(groups) // n_rows)
    figure = Figure(figsize=(width, 0.6 + 1.25 * n_rows), layout="constrained")
    panels = list(figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flat)
    for i, (axes, (name, group)) in enumerate(zip(panels, groups, strict=False)):
        rows = group.sort_values(along)
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.vlines(rows[along], rows["low"], rows["high"], color=BLUE, linewidth=1.1)
        # A line connects layers, which have an order; heads do not.
        axes.plot(rows[along], rows["effect"], "o-" if by_role else "o", color=BLUE, markersize=3, linewidth=0.9)
        title = f"{role_label(str(name)) if by_role else f'layer {name}'} (n = {number_range(rows['n_pairs'])})"
        axes.set_title(title, fontsize=MEDIUM, parse_math=False)
        axes.tick_params(labelsize=SMALL, labelbottom=i + n_columns >= len(groups))
    for axes in panels[len(groups) :]:
        axes.remove()
    panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    panels[0].set_xlim(table[along].min() - 0.5, table[along].max() + 0.5)
    figure.supxlabel(along, fontsize=MEDIUM)
    y_label = wrapped(f"{label}, 95 % interval", 72 * figure.get_figheight(), MEDIUM)
    figure.supylabel(y_label, fontsize=MEDIUM, multialignment="center", parse_math=False)
    return figure


@checked
def attribution_agreement(
    exact: xr.DataArray, estimated: xr.DataArray, *, width: float = PAGE, axes: Axes | None = None
) -> Figure:
    """A scatter plot of exact patching effects (x) and estimates by attribution (y), with one dot per part.

    On the diagonal, the estimate is exact. The parts with the largest errors are named, such as "2.1" for a head.

    Args:
        exact: Exact effects with any dimensions, such as `layer` and `head`.
        estimated: The estimates, with the same dimensions.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. Names are placed for their current size.

    Raises:
        ViewError: if the dimensions differ, or no part has both values.
    """
    check_width(width)
    if set(exact.dims) != set(estimated.dims):
        raise ViewError(
            f"The dimensions of exact and estimated must be the same; got {exact.dims} and {estimated.dims}."
        )
    x, y = xr.align(exact, estimated.transpose(*exact.dims), join="inner")
    both = np.isfinite(x.values) & np.isfinite(y.values)
    if not both.any():
        raise ViewError("No part has both an exact and an estimated effect, so there is nothing to draw.")
    names = [_part_name(x, at) for at in np.argwhere(both)]
    points = np.column_stack([x.values[both], y.values[both]])
    axes = axes or square_axes(width)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    axes.scatter(points[:, 0], points[:, 1], dot_size(len(points)), BLUE, edgecolors="#303030", linewidths=0.3)
    low, high = points.min(initial=0), points.max(initial=0)
    margin = 0.12 * ((high - low) or 1.0)
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    axes.set_box_aspect(1)
    label_scatter(axes, "exact effect", "estimated effect")
    error = np.abs(points[:, 1] - points[:, 0])
    axes.set_title(
        f"Spearman ρ {spearman(points)} over {len(points)} parts\nmean |error| {error.mean():.2g}", fontsize=LARGE
    )
    _name_errors(axes, points, names)
    return figure_of(axes)


def _part_name(values: xr.DataArray, at: Sequence[int] | np.ndarray) -> str:
    """The coordinates of a part as its name: "2.1" for a head of a layer, "2 cue" for a role."""
    place = {dim: values[dim].values[i] for dim, i in zip(values.dims, at, strict=True)}
    head = [".".join(str(place.pop(dim)) for dim in ("layer", "head"))] if {"layer", "head"} <= set(place) else []
    return " ".join([*head, *(tick_label(str(value)) for value in place.values())])


def _name_errors(axes: Axes, points: Float[np.ndarray, "point 2"], names: Sequence[str]) -> None:
    """Name the points farthest from the diagonal, on the side away from it, where no point or other name is covered."""
    lay_out(figure_of(axes))  # the axes need their final position
    error = points[:, 1] - points[:, 0]
    at = axes.transData.transform(points) * 72 / figure_of(axes).dpi
    taken: list[Bbox] = []
    for i in np.argsort(-np.abs(error), kind="stable")[:_N_NAMED]:
        if error[i] == 0:
            break
        size = np.array([3.9 * len(names[i]), 8])
        away = np.sign(error[i])
        corner = at[i] + np.array([-4 - size[0], 2]) if away > 0 else at[i] + np.array([4, -10])
        box = Bbox([corner, corner + size])
        if not box.count_overlaps(taken) and not box.count_contains(np.delete(at, i, axis=0)):
            taken.append(box)
            text = axes.annotate(
                names[i],
                tuple(points[i]),
                (-4 * away, 2 * away),
                textcoords="offset points",
                fontsize=SMALL,
                ha="right" if away > 0 else "left",
                va="bottom" if away > 0 else "top",
                parse_math=False,
            )
            text.set_in_layout(False)
            text.set_path_effects([HALO])


def _small_axes(width: float) -> Axes:
    width = min(width, 4.6)
    return Figure(figsize=(width, 0.3 * width + 2.3), layout="constrained").subplots()


def _columns(table: pd.DataFrame, what: str, names: Sequence[str]) -> pd.DataFrame:
    """The table, after a check that it has rows and these columns."""
    missing = [name for name in names if name not in table.columns]
    if missing or table.empty:
        problem = f"lacks the column {', '.join(missing)}" if missing else "is empty"
        raise ViewError(f"The table of {what} {problem}, so there is nothing to draw.")
    return table
