"""Figures of attention, comparisons and patching results, each a matplotlib `Figure` of its own.

They are made without pyplot: nothing is shown twice in a notebook, and no state is shared between threads. Layers and
heads count from 0. Sequential scales are viridis; scales with a meaningful zero are diverging, with zero in the middle.
Cells that are NaN are hatched. Text is never read as markup, whatever the tokens hold.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from negprobe.attention import MAP_METRICS, Comparison, StatementAttention
from negprobe.errors import ViewError
from negprobe.views.drawing import draw_map, figure_of, largest_size, symmetric
from negprobe.views.labels import aligned_label, tick_label

_CUE_COLOUR = "#a8320a"
_UNITS = {
    "raw": "attention weight",
    "norm": "A · ‖v W_O‖ (model units)",
    "similarity": "cosine of the head's outputs",
}
_CELL = 0.17  # inches a token gets while the map is small
_LARGEST_MAP = 7.0  # inches; above, tokens share the space
_LABEL = 0.1  # inches a label needs

_Map = Float[np.ndarray, "_ _"]
_Limits = tuple[float, float]


def raw_beside_value_weighted(attention: StatementAttention, layer: int, head: int) -> Figure:
    """One head before and after the values: raw attention, norm-weighted attention, and similarity of its outputs.

    Queries are rows and keys are columns. The first two scales start at 0, cosines run from -1 to 1.

    Raises:
        ViewError: if there is no such layer or head, or a map does not fit its tokens.
    """
    labels = _labels(attention)
    figure = _map_figure([labels] * 3, n_rows=1)
    figure.suptitle(f"Layer {layer}, head {head}", fontsize=10)
    titles = {"raw": "Attention", "norm": "Norm-weighted attention", "similarity": "Similarity of outputs"}
    for axes, (measure, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        values = _head_map(attention, measure, layer, head)
        image = _draw_token_map(axes, values, labels, measure == "similarity", _limits(measure, values))
        axes.set_title(title, fontsize=9)
        _colour_bar(image, [axes], _UNITS[measure])
    return figure


def four_heatmaps(comparison: Comparison, layer: int, head: int, *, difference: bool = True) -> Figure:
    """One head on both statements, before the values (attention, top) and after (similarity of outputs, bottom).

    The two maps of a row share a scale. The third column is counterfactual - original on the aligned tokens, each on
    its own scale with zero in the middle. The cue is marked in the counterfactual.

    Args:
        comparison: Original and counterfactual.
        layer: Which layer.
        head: Which head of it.
        difference: Whether to add the third column.

    Raises:
        ViewError: if there is no such layer or head, a map does not fit its tokens, or no tokens are aligned.
    """
    original, counterfactual, alignment = comparison.original, comparison.counterfactual, comparison.alignment
    cue = comparison.cue_positions
    labels = [_labels(original), _labels(counterfactual)]
    titles, marks = ["Original, {}", "Counterfactual, {}"], [(), cue]
    if difference:
        labels.append(_aligned_labels(comparison))
        titles.append("Counterfactual − original\n(aligned tokens)")
        marks.append(tuple(i for i, position in enumerate(alignment.counterfactual) if position in cue))
    figure = _map_figure(labels, n_rows=2)
    figure.suptitle(f"Layer {layer}, head {head}", fontsize=10)
    stages = {"raw": "before the values", "similarity": "after the values"}
    for row, (measure, stage) in zip(figure.subplots(2, len(labels)), stages.items(), strict=True):
        maps = [_head_map(side, measure, layer, head) for side in (original, counterfactual)]
        limits = _limits(measure, *maps)
        images = [
            _draw_token_map(axes, values, names, measure == "similarity", limits, marked)
            for axes, values, names, marked in zip(row, maps, labels, marks, strict=False)
        ]
        _colour_bar(images[-1], list(row[:2]), _UNITS[measure])
        if difference:
            change = _aligned(maps[1], alignment.counterfactual) - _aligned(maps[0], alignment.original)
            image = _draw_token_map(row[2], change, labels[2], True, symmetric(change), marks[2])
            _colour_bar(image, [row[2]], f"change of {_UNITS[measure].partition(' of ')[0]}")
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title.format(stage), fontsize=9)
    return figure


def layer_head_map(
    values: ArrayLike,
    *,
    label: str,
    diverging: bool = False,
    limits: _Limits | None = None,
    axes: Axes | None = None,
) -> Figure:
    """A number for every layer (row) and head (column), written into the cells where there is room.

    Args:
        values: `[layer, head]`; NaN where undefined.
        label: What the numbers are, beside the colour bar.
        diverging: Whether zero is in the middle of the scale; otherwise it runs from 0 (or the least, if negative) to
            the largest value.
        limits: The scale's ends, if they are to be others.
        axes: Where to draw; a new figure if there is none.

    Raises:
        ViewError: if `values` is not a table with at least one layer and head.
    """
    table = _table(values, "layer and head")
    axes = axes or _cell_axes(table)
    _draw_cells(axes, table, label, diverging, limits)
    _name_axes(axes, "head", "layer")
    return figure_of(axes)


def metric_overview(comparison: Comparison | pd.DataFrame) -> Figure:
    """The four metrics of a comparison for every layer and head; the mean over pairs where a table holds several.

    Differences are on a scale from 0. Correlations are on one from the least to 1, at which nothing has changed.

    Args:
        comparison: A comparison, or a table with the columns `layer`, `head` and the four metrics.

    Raises:
        ViewError: if the table is empty or lacks a column.
    """
    metrics = comparison if isinstance(comparison, pd.DataFrame) else comparison.metrics
    tables = {name: by_layer_and_head(metrics, name) for name in MAP_METRICS}
    width, height = _cell_size(tables[MAP_METRICS[0]])
    figure = Figure(figsize=(2 * width, 2 * height), layout="constrained")
    for axes, (name, table) in zip(figure.subplots(2, 2).flat, tables.items(), strict=True):
        limits = (_least(table), 1.0) if name.endswith("correlation") else None
        layer_head_map(table, label=name.replace("_", " "), limits=limits, axes=axes)
    return figure


def by_layer_and_head(metrics: pd.DataFrame, name: str) -> Float[np.ndarray, "layer head"]:
    """A column of a table of metrics as `[layer, head]`, the mean where a layer and head has several rows.

    Raises:
        ViewError: if the table is empty or lacks a column.
    """
    missing = {"layer", "head", name} - set(metrics.columns)
    if missing or metrics.empty:
        what = f"has no column {', '.join(sorted(missing))}" if missing else "is empty"
        raise ViewError(f"The table of metrics {what}; take the `metrics` of a comparison.")
    table = metrics.groupby(["layer", "head"])[name].mean().unstack()
    n_layers, n_heads = (int(index.max()) + 1 for index in (table.index, table.columns))
    return table.reindex(index=range(n_layers), columns=range(n_heads)).to_numpy(dtype=float)


def patching_map(effect: xr.DataArray) -> Figure:
    """What patching does, by layer (row) and position, role or head (column): 0 is nothing, 1 the whole swing.

    Zero is in the middle of the scale, which reaches as far as the largest effect in either direction. Positions are
    labelled by their `token` coordinate where the result has one.

    Args:
        effect: Normalised effects with the dimensions `layer` and one other; `attrs` may name site and direction.

    Raises:
        ViewError: if it has other dimensions, or is empty.
    """
    others = [str(dim) for dim in effect.dims if dim != "layer"]
    if len(others) != 1 or effect.ndim != 2:
        raise ViewError(
            f"A patching map needs the dimensions layer and one of position, role and head, not {effect.dims}; "
            "average over pairs, or select one."
        )
    by = others[0]
    table = _table(effect.transpose("layer", by).values, f"layer and {by}")
    axes = _cell_axes(table)
    _draw_cells(axes, table, "normalised effect", diverging=True)
    names = effect.coords["token"] if "token" in effect.coords else effect[by]
    _label_tokens(axes, "x", [tick_label(str(name)) for name in names.values])
    if "layer" in effect.coords:
        _label_tokens(axes, "y", [str(layer) for layer in effect["layer"].values])
    _name_axes(axes, by, "layer")
    named = [str(effect.attrs[key]) for key in ("site", "how", "direction") if effect.attrs.get(key, "swap") != "swap"]
    axes.set_title(", ".join(named), fontsize=9)
    return figure_of(axes)


def _head_map(attention: StatementAttention, measure: str, layer: int, head: int) -> _Map:
    values: Tensor = getattr(attention, measure)
    tokens = len(attention.statement.tokens)
    if values.ndim != 4 or values.shape[2:] != (tokens, tokens):
        raise ViewError(
            f"The {measure} map of {attention.statement.text!r} has shape {tuple(values.shape)}; its {tokens} tokens "
            f"need (layer, head, {tokens}, {tokens})."
        )
    n_layers, n_heads = values.shape[:2]
    if not (0 <= layer < n_layers and 0 <= head < n_heads):
        raise ViewError(
            f"There is no layer {layer}, head {head}: layers are 0 to {n_layers - 1} and heads 0 to {n_heads - 1}."
        )
    return values[layer, head].detach().cpu().double().numpy()


def _labels(attention: StatementAttention) -> list[str]:
    tokens = attention.statement.tokens
    if not tokens:
        raise ViewError("A statement without tokens has no attention to draw.")
    return [tick_label(token) for token in tokens]


def _aligned_labels(comparison: Comparison) -> list[str]:
    alignment = comparison.alignment
    if not alignment.original:
        raise ViewError("No tokens of the two statements are aligned, so there is no difference to draw.")
    before, after = comparison.original.statement.tokens, comparison.counterfactual.statement.tokens
    aligned = zip(alignment.original, alignment.counterfactual, strict=True)
    return [aligned_label(before[i], after[j]) for i, j in aligned]


def _aligned(values: _Map, positions: Sequence[int]) -> _Map:
    return values[np.ix_(positions, positions)]


def _limits(measure: str, *maps: _Map) -> _Limits:
    return (-1.0, 1.0) if measure == "similarity" else (0.0, max(largest_size(values) for values in maps))


def _least(values: _Map) -> float:
    """The least value, 0 if there is none below 1, so that a scale up to 1 has a length."""
    least = float(np.nanmin(values, initial=1.0))
    return least if least < 1 else 0.0


def _table(values: ArrayLike, axes: str) -> _Map:
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.size == 0:
        raise ViewError(f"A map needs a value for each {axes}, but its values have shape {table.shape}.")
    return table


def _map_figure(columns: Sequence[Sequence[str]], n_rows: int) -> Figure:
    """A figure with room for maps of these tokens; it grows with them until labels have to be left out."""
    widths = [min(max(_CELL * len(labels), 2.2), _LARGEST_MAP) for labels in columns]
    margin = 0.3 + 0.075 * max(len(label) for labels in columns for label in labels)
    width = sum(widths) + len(columns) * (margin + 0.7)
    return Figure(figsize=(width, 0.3 + n_rows * (max(widths) + margin + 0.4)), layout="compressed")


def _draw_token_map(
    axes: Axes, values: _Map, labels: Sequence[str], diverging: bool, limits: _Limits, marked: Collection[int] = ()
) -> AxesImage:
    image = draw_map(axes, values, diverging, limits)
    for which in ("x", "y"):
        _label_tokens(axes, which, labels, marked)
    _name_axes(axes, "key" + _thinned(labels), "query")
    return image


def _name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)


def _label_step(labels: Sequence[str]) -> int:
    return int(np.ceil(len(labels) * _LABEL / _LARGEST_MAP))


def _thinned(labels: Sequence[str]) -> str:
    step = _label_step(labels)
    return f" (1 token in {step} is named)" if step > 1 else ""


def _label_tokens(axes: Axes, which: str, labels: Sequence[str], marked: Collection[int] = ()) -> None:
    """Labels along one axis; the marked ones stand out and are never left out."""
    step = _label_step(labels)
    crowded = {i + j for i in marked for j in range(1 - step, step)}
    shown = sorted(set(marked) | set(range(0, len(labels), step)) - crowded)
    rotation = 90 if which == "x" and max(map(len, labels)) > 2 else 0
    ticks = axes.xaxis if which == "x" else axes.yaxis
    # A dollar sign is a dollar sign, not the start of a formula.
    ticks.set_ticks(shown, [labels[i] for i in shown], fontsize=7, rotation=rotation, parse_math=False)
    for position, text in zip(shown, ticks.get_ticklabels(), strict=True):
        if position in marked:
            text.set(color=_CUE_COLOUR, fontweight="bold")


def _colour_bar(image: AxesImage, axes: list[Axes], label: str) -> None:
    bar = axes[0].figure.colorbar(image, ax=axes, shrink=0.85)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _cell_size(table: _Map) -> tuple[float, float]:
    """Width and height in inches of a figure that holds a number in each cell, up to a limit."""
    rows, columns = table.shape
    return 1.9 + min(max(0.4 * columns, 1.6), 14), 1.1 + min(max(0.28 * rows, 1.0), 12)


def _cell_axes(table: _Map) -> Axes:
    return Figure(figsize=_cell_size(table), layout="constrained").subplots()


def _draw_cells(axes: Axes, table: _Map, label: str, diverging: bool, limits: _Limits | None = None) -> None:
    if limits is None:
        limits = symmetric(table) if diverging else (float(np.nanmin(table, initial=0.0)), largest_size(table))
    image = draw_map(axes, table, diverging, limits, aspect="auto")
    axes.tick_params(labelsize=7)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(24, integer=True))
    _colour_bar(image, [axes], label + ("\n(hatched: undefined)" if np.isnan(table).any() else ""))
    _write_numbers(axes, table, image)


def _write_numbers(axes: Axes, table: _Map, image: AxesImage) -> None:
    """The numbers in the cells, if a cell is wide enough, to two figures of the largest."""
    rows, columns = table.shape
    box = axes.get_window_extent()
    dpi = figure_of(axes).dpi
    if box.width / dpi / columns < 0.3 or box.height / dpi / rows < 0.14:
        return
    decimals = int(np.clip(1 - np.floor(np.log10(largest_size(table))), 0, 3))
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            red, green, blue, _ = image.to_rgba(value)
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            axes.text(
                column,
                row,
                f"{value.round(decimals) + 0.0:.{decimals}f}",
                color=ink,
                fontsize=6,
                ha="center",
                va="center",
            )
