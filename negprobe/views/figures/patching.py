"""Figures of what patching finds: circuits, how faithful they are, what heads cause, how well attribution guesses it.

Made like the figures of `statistics_figures`: without pyplot, layers and heads counted from 0, no text smaller than 7
points, `width` that of a page (6.9 inches) or of one of its two columns (3.3 inches), marks that differ in shape as
well as in colour, and zero in the middle of diverging scales.
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
    legend_beneath,
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
_BAND_GAP, _LINE = 8.0, 9.0  # points between layers, and of a line of text
_OUTSIDE, _LEAST, _MOST = 7.0, 6.0, 15.0  # points of a component: the room outside the circuit, the marks inside
_TOLD = 0.25  # changes told beneath a head
_WORST = 6  # disagreements named


@dataclass(frozen=True)
class _Layout:
    """Where the components of a circuit stand, in points from the lower left.

    Attributes:
        at: Where each is.
        bands: Bottom and top of each layer.
        width: How wide all of them are.
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
    """The components of a circuit, layer by layer from the bottom up, with all others as small grey dots.

    Heads are circles in their order, MLPs squares to their right; both are the larger, and the deeper in colour, the
    larger their score. Zero is in the middle of the colours. Lines are drawn only for `edges` that are given.

    Args:
        circuit: The circuit; its `scores` name every component.
        readings: What `AttentionProbe.readings` returns, to tell beneath each head, after the values, what it reads at
            which role, and what changes most against the control, or the original, if that is a quarter or more of the
            role's attention.
        edges: Columns `sender`, `receiver` (components, or their names) and `score`, which a line's width and colour
            tell.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Names are placed for the width it has now.

    Raises:
        ViewError: if the circuit has no scores or a component without one, or an edge ends at no component.
        InputError: if the readings lack a head of the circuit.
    """
    check_width(width)
    scores = circuit.scores
    if not scores or (unscored := [str(part) for part in circuit.components if part not in scores]):
        lacks = f"has no score for {', '.join(unscored)}" if scores else "has no scores"
        raise ViewError(f"The circuit {lacks}; give one whose `scores` name every component.")
    names = {part: _component_label(part, readings) for part in circuit.components}
    alone = axes is None
    if axes is None:
        rows = [[part for part in scores if part.layer == layer] for layer in {part.layer for part in scores}]
        widest = max(sum(1.2 * _room(part, names) for part in row) for row in rows)
        axes = Figure(figsize=(min(width, max(3.3, 1.3 + widest / 72)), 4), layout="constrained").subplots()
    largest = largest_size(scores[part] for part in names)
    colours = ScalarMappable(Normalize(-largest, largest), DIVERGING)
    # Beneath the axes is the legend, unless they are alone and it is beneath the figure.
    location, across = ("bottom", 0.6 * 72 * figure_of(axes).get_figwidth()) if alone else ("right", 120)
    bar = figure_of(axes).colorbar(colours, ax=axes, location=location, shrink=0.6, pad=0.02, aspect=across / 6)
    bar.set_label(
        f"effect of ablating it alone\n{ablation_label(circuit.direction, circuit.ablation)}", fontsize=MEDIUM
    )
    bar.ax.tick_params(labelsize=SMALL)
    bar.locator = MaxNLocator(4, steps=STEPS)
    axes.set_ylabel("layer", fontsize=MEDIUM)
    axes.set_yticks([0], [str(max(part.layer for part in scores))], fontsize=SMALL)
    lay_out(figure_of(axes))  # now the axes are as wide as they will be
    layout = _circuit_layout(scores, names, size_in_points(axes)[0])
    if alone:
        figure_of(axes).set_figheight((layout.bands[-1][1] + 110) / 72)
    _draw_bands(axes, layout)
    keys = _draw_components(axes, scores, names, layout, largest)
    if edges is not None:
        keys |= _draw_edges(axes, edges, layout)
    share = f"{len(names)} of {len(scores)} components"
    axes.set_title(f"{share}\n{tick_label(short_name(circuit.model_name), 40)}", fontsize=LARGE, parse_math=False)
    legend_beneath(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


def _draw_components(
    axes: Axes,
    scores: "Mapping[Component, float]",
    names: "Mapping[Component, str]",
    layout: _Layout,
    largest: float,
) -> dict[str, Any]:
    """A mark for each component, and names beneath those of the circuit; the legend's keys."""
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
    """What a mark looks like in a legend."""
    return Line2D([], [], linestyle="", marker=marker, markersize=size, markerfacecolor=face, markeredgecolor=edge)


def _places(layout: _Layout, parts: "Sequence[Component]") -> Float[np.ndarray, "part 2"]:
    return np.array([layout.at[part] for part in parts], dtype=float).reshape(-1, 2)


def _component_label(part: Component, readings: xr.Dataset | None) -> str:
    if readings is None or part.head is None:
        return str(part)
    story = head_story(readings, part.layer, part.head)
    lines = [str(part), _reads(story.norm)]
    # A head may do by the cue something else than what it does most.
    if story.change is not None and abs(story.change.norm) >= _TOLD:
        lines.append(f"{_reads(story.change)} {signed(story.change.norm)}")
    return "\n".join(lines)


def _reads(reading: Reading | ReadingChange) -> str:
    return f"{role_label(reading.query)} → {role_label(reading.key)}"


def _diameter(strength: float) -> float:
    """In points, of scores whose largest is 1; the area grows with the score."""
    return float(_LEAST + (_MOST - _LEAST) * np.sqrt(abs(strength)))


def _room(part: Component, names: "Mapping[Component, str]") -> float:
    """Points a component takes along its line."""
    if part not in names:
        return _OUTSIDE
    return max(_MOST, 3.8 * max(map(len, names[part].split("\n")))) + 5


def _circuit_layout(scores: "Mapping[Component, float]", names: "Mapping[Component, str]", width: float) -> _Layout:
    """Each layer's heads from left to right, on as many lines as their names need, and its MLP to their right."""
    column = max((_room(part, names) for part in scores if part.head is None), default=0.0)
    at: dict[Component, tuple[float, float]] = {}
    bands, bottom = [], 0.0
    for layer in range(max(part.layer for part in scores) + 1):
        of_layer = [part for part in scores if part.layer == layer]
        mlp = [part for part in of_layer if part.head is None]
        lines = _wrapped(sorted(set(of_layer) - set(mlp)), names, width - column)
        # The MLP stands beside the first line.
        beside = [[*lines[0], *mlp], *lines[1:]]
        heights = [_height(line, names) for line in beside]
        top = bottom + sum(heights)
        bands.append((bottom, top))
        middles = top - np.cumsum([0.0, *heights[:-1]]) - [_first_line(line, names) for line in beside]
        for line, y in zip(lines, middles, strict=True):
            room = np.array([_room(part, names) for part in line])
            # A line by itself is spread over the width; one of several is as long as its names.
            room += max(0.0, width - column - room.sum()) / max(len(line), 1) if len(lines) == 1 else 0.0
            at |= {part: (float(x), float(y)) for part, x in zip(line, np.cumsum(room) - room / 2, strict=True)}
        at |= dict.fromkeys(mlp, (width - column / 2, float(middles[0])))
        bottom = top + _BAND_GAP
    return _Layout(at, bands, width)


def _wrapped(heads: "Sequence[Component]", names: "Mapping[Component, str]", width: float) -> "list[list[Component]]":
    lines: list[list[Component]] = [[]]
    left = width
    for part in heads:
        room = _room(part, names)
        if lines[-1] and room > left:
            lines.append([])
            left = width
        lines[-1].append(part)
        left -= room
    return lines


def _height(line: "Sequence[Component]", names: "Mapping[Component, str]") -> float:
    """Points a line of components needs, names included."""
    texts = [names[part].count("\n") + 1 for part in line if part in names]
    return _MOST + 4 + _LINE * max(texts) if texts else _OUTSIDE + 4


def _first_line(line: "Sequence[Component]", names: "Mapping[Component, str]") -> float:
    """Points from the top of a line to the middle of its marks."""
    return (_MOST if any(part in names for part in line) else _OUTSIDE) / 2 + 2


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
    """A curve from each sender to its receiver; the legend's keys."""
    if missing := {"sender", "receiver", "score"} - set(edges.columns):
        raise ViewError(f"The edges have no column {', '.join(sorted(missing))}.")
    places = {str(part): place for part, place in layout.at.items()}
    ends = [(str(sender), str(receiver)) for sender, receiver in zip(edges["sender"], edges["receiver"], strict=True)]
    if unknown := sorted({end for edge in ends for end in edge} - set(places)):
        raise ViewError(f"No component of the circuit's scores is called {', '.join(unknown)}; an edge ends there.")
    largest = largest_size(edges["score"])
    keys: dict[str, Any] = {}
    for (sender, receiver), score in zip(ends, edges["score"].astype(float), strict=True):
        colour, name = (ORANGE, "edge, score ≥ 0") if score >= 0 else (BLUE, "edge, score < 0")
        # Curved, so that it passes by what stands between its ends.
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
    """How faithful the circuits of the best-ranked components are, by their share of all, on held-out pairs.

    1 is the whole model's behaviour, 0 that with every component ablated. The circuit is pruned, and so need not lie on
    the curve. The title has the areas of Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark": CPR
    under the curve (the more the better) and CMD between the curve and 1 (the less the better). Shares are on a log
    scale where a component is less than a fiftieth. The search's threshold is a line.

    Args:
        circuit: The circuit, which is marked with its own interval beside the mean of random circuits of its size.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none.

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
    legend_beneath(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


@checked
def causal_against_attention(
    effects: xr.DataArray, attention: xr.DataArray, label: str, *, width: float = PAGE, axes: Axes | None = None
) -> Figure:
    """Whether heads that look at the cue matter: attention to it (x) against what swapping z does (y), a dot a head.

    Colours are layers. The heads farthest out, each number in units of its largest, are named "layer.head" as far as
    there is room.

    Args:
        effects: Dims `layer`, `head`: mean normalised effects of swapping `z`, as `mean_effect` returns them.
        attention: Dims `layer`, `head`: attention to the cue, such as the mean of `norm_to_cue` over the pairs.
        label: What `attention` is, beneath the x axis.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Names are placed for the size it has now.

    Raises:
        ViewError: if either has other dimensions, or no head has both numbers.
    """
    check_width(width)
    for what, values in (("effects", effects), ("attention", attention)):
        if set(values.dims) != {"layer", "head"}:
            raise ViewError(f"The {what} need the dimensions layer and head, not {values.dims}; average over the rest.")
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
    """The mean effect of a sweep with its bootstrap intervals: a panel a role, by layer, or a panel a layer, by head.

    All panels share their axes. Beside each panel's name stands how many pairs it averages.

    Args:
        averages: `patching.averages` of a sweep by role or head, or a table of one sweep with the columns `layer`,
            `role` or `head`, `effect`, `low`, `high` and `n_pairs`.
        label: What the effect is, beside the y axes.
        width: Inches the figure is wide.

    Raises:
        ViewError: if the averages are empty, lack a column, or have no effect that is defined.
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
    # Roles stand in the order of the table.
    names = table[by].unique() if by_role else sorted(table[by].unique())
    groups = [(name, table[table[by] == name]) for name in names]
    down = -(-len(groups) // max(1, int(width / 1.4)))
    across = -(-len(groups) // down)
    figure = Figure(figsize=(width, 0.6 + 1.25 * down), layout="constrained")
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for i, (axes, (name, group)) in enumerate(zip(panels, groups, strict=False)):
        rows = group.sort_values(along)
        axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
        axes.vlines(rows[along], rows["low"], rows["high"], color=BLUE, linewidth=1.1)
        # Layers follow each other; heads do not.
        axes.plot(rows[along], rows["effect"], "o-" if by_role else "o", color=BLUE, markersize=3, linewidth=0.9)
        title = f"{role_label(str(name)) if by_role else f'layer {name}'} (n = {number_range(rows['n_pairs'])})"
        axes.set_title(title, fontsize=MEDIUM, parse_math=False)
        axes.tick_params(labelsize=SMALL, labelbottom=i + across >= len(groups))
    for axes in panels[len(groups) :]:
        axes.remove()
    panels[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    panels[0].set_xlim(table[along].min() - 0.5, table[along].max() + 0.5)
    figure.supxlabel(along, fontsize=MEDIUM)
    beside = wrapped(f"{label}, 95 % interval", 72 * figure.get_figheight(), MEDIUM)
    figure.supylabel(beside, fontsize=MEDIUM, multialignment="center", parse_math=False)
    return figure


@checked
def attribution_agreement(
    exact: xr.DataArray, estimated: xr.DataArray, *, width: float = PAGE, axes: Axes | None = None
) -> Figure:
    """How well attribution guesses exact patching: its estimate (y) against the exact effect (x), a dot a part.

    On the diagonal the guess is right. The worst ones are named by their place, such as "2.1" for a head.

    Args:
        exact: Effects of any dimensions, such as `layer` and `head`.
        estimated: The same parts' estimates.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Names are placed for the size it has now.

    Raises:
        ViewError: if the two have other dimensions, or no part has both numbers.
    """
    check_width(width)
    if set(exact.dims) != set(estimated.dims):
        raise ViewError(f"The exact effects have the dimensions {exact.dims} and the estimates {estimated.dims}.")
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
    """Where in the dimensions a part stands: "2.1" for a head of a layer, "2 cue" for a role."""
    place = {dim: values[dim].values[i] for dim, i in zip(values.dims, at, strict=True)}
    head = [".".join(str(place.pop(dim)) for dim in ("layer", "head"))] if {"layer", "head"} <= set(place) else []
    return " ".join([*head, *(tick_label(str(value)) for value in place.values())])


def _name_errors(axes: Axes, points: Float[np.ndarray, "point 2"], names: Sequence[str]) -> None:
    """Names beside the points farthest from the diagonal, on the side away from it, where they hide no other name."""
    lay_out(figure_of(axes))  # now the axes have the place that they will have
    error = points[:, 1] - points[:, 0]
    at = axes.transData.transform(points) * 72 / figure_of(axes).dpi
    taken: list[Bbox] = []
    for i in np.argsort(-np.abs(error), kind="stable")[:_WORST]:
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
    """The table, if it has rows and these columns."""
    missing = [name for name in names if name not in table.columns]
    if missing or table.empty:
        lacks = f"lacks the column {', '.join(missing)}" if missing else "is empty"
        raise ViewError(f"The table of {what} {lacks}, so there is nothing to draw.")
    return table
