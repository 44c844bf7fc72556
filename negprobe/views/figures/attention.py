"""Figures of attention, comparisons and patching results, each a matplotlib `Figure`.

Drawn as `figures.drawing` says. Layers and heads count from 0. `width` is what a figure has at most, in inches:
6.9 for a page, 3.3 for one of its two columns; with little to show it is narrower. Where there are more tokens than
their names have room for, as many are named as can be read, the axis says how many, and the cue is always among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike
from torch import Tensor

from negprobe.attention import MAP_METRICS, Comparison, StatementAttention
from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.base.texts import quoted
from negprobe.views.figures.drawing import (
    LARGE,
    MEDIUM,
    PAGE,
    CellNames,
    Limits,
    Map,
    cell_axes,
    check_width,
    colour_bar,
    draw_cells,
    draw_map,
    figure_of,
    largest_size,
    lay_out,
    layer_by_head,
    name_cells,
    number_range,
    set_title,
    symmetric,
    wrapped,
    write_numbers,
)
from negprobe.views.labels import aligned_label, metric_name, metric_unit, patching_title, role_label, tick_label

_UNITS = {
    "raw": "attention weight",
    "norm": "A · ‖v W_O‖ (model units)",
    "similarity": "cosine of the head's outputs",
}
_SHARES = "share of A · ‖v W_O‖"  # what norm-weighted attention is once its rows are renormalised
_TITLES = {"raw": "Attention", "norm": "Norm-weighted attention", "similarity": "Similarity of outputs"}
_NO_SPECIAL = {
    "raw": "rows renormalised without special tokens",
    "norm": "rows renormalised without special tokens",
    "similarity": "without special tokens",
}
_DIFFERENCE = "Counterfactual − original"
_CELL = 0.17  # inches a token gets while the map is small
_LEAST_MAP, _HIGHEST = 1.2, 9.0  # inches of a map's side, and of a page
_CHARACTER = 0.062  # inches of a label's character, on average


@dataclass(frozen=True)
class _TokenMap:
    """A map of one head over tokens, as it is drawn.

    Attributes:
        values: NaN where undefined.
        labels: Of the tokens, along both axes.
        marked: Which of them are the cue.
    """

    values: Float[np.ndarray, "query key"]
    labels: list[str]
    marked: tuple[int, ...] = field(default=())


@checked
def raw_beside_value_weighted(
    attention: StatementAttention, layer: int, head: int, *, special_tokens: bool = True, width: float = PAGE
) -> Figure:
    """One head before and after the values: raw attention, norm-weighted attention, and similarity of its outputs.

    Queries are rows and keys are columns. The first two scales start at 0, cosines run from -1 to 1. On less than 5
    inches the maps stand above each other.

    Args:
        attention: Of one statement.
        layer: Which layer.
        head: Which head of it.
        special_tokens: Whether to show what the tokenizer puts in, such as [CLS] and [SEP]. Without them the rows of
            the first two maps are divided by what is left of them, and the title says so; a row of which nothing is
            left is hatched.
        width: Inches the figure is wide at most.

    Raises:
        ViewError: if there is no such layer or head, no token is left, or a map does not fit its tokens.
    """
    check_width(width)
    n_columns = 3 if width >= 5 else 1
    longest = _longest(width, n_columns)
    maps = {
        measure: _statement_map(attention, measure, layer, head, special_tokens, longest=longest) for measure in _TITLES
    }
    figure = _map_figure([*maps.values()], n_columns, width, n_named=n_columns)
    _name_figure(figure, _title(layer, head, "raw", special_tokens))
    panels = list(figure.subplots(3 // n_columns, n_columns, squeeze=False).flat)
    for axes, (measure, shown) in zip(panels, maps.items(), strict=True):
        image = _draw_token_map(axes, shown, measure == "similarity", _limits(measure, shown.values))
        axes.set_title(_TITLES[measure], fontsize=LARGE)
        colour_bar(image, [axes], _unit(measure, special_tokens) + _why_hatched(measure, shown), "bottom")
    _name_tokens(panels, [*maps.values()])
    return figure


@checked
def four_heatmaps(
    comparison: Comparison,
    layer: int,
    head: int,
    *,
    difference: bool = True,
    special_tokens: bool = True,
    width: float = PAGE,
) -> Figure:
    """One head on both statements, before the values (attention) and after (similarity of outputs).

    The two statements share a scale before the values, and one after. Beside them is counterfactual - original on the
    aligned tokens, each on its own scale with zero in the middle. The cue is marked in the counterfactual. Statements
    are columns, or rows on less than 5 inches.

    Args:
        comparison: Original and counterfactual.
        layer: Which layer.
        head: Which head of it.
        difference: Whether to add the difference.
        special_tokens: Whether to show what the tokenizer puts in (see `raw_beside_value_weighted`).
        width: Inches the figure is wide at most.

    Raises:
        ViewError: if there is no such layer or head, a map does not fit its tokens, or no tokens are left or aligned.
    """
    check_width(width)
    across = width >= 5
    n_sides = 3 if difference else 2
    longest = _longest(width, n_sides if across else 2)
    stages = {"raw": "attention", "similarity": "similarity of outputs"}
    rows = []
    for measure in stages:
        one = (comparison, measure, layer, head, special_tokens, longest)
        rows.append([*_sides(*one), *([_difference(*one)] if difference else [])])
    every = [shown for row in rows for shown in row]
    figure = _map_figure(every, n_sides if across else 2, width, n_named=n_sides if across else 1)
    _name_figure(figure, _title(layer, head, "raw", special_tokens))
    grid = figure.subplots(2, n_sides) if across else figure.subplots(n_sides, 2).T
    names = ["Original", "Counterfactual", _DIFFERENCE]
    for line, maps, (measure, stage) in zip(map(list, grid), rows, stages.items(), strict=True):
        limits = _limits(measure, *(shown.values for shown in maps[:2]))
        diverging = measure == "similarity"
        images = [
            _draw_token_map(axes, shown, diverging, limits) for axes, shown in zip(line[:2], maps[:2], strict=True)
        ]
        colour_bar(images[-1], line[:2], _unit(measure, special_tokens) + _why_hatched(measure, *maps[:2]), "bottom")
        if difference:
            image = _draw_token_map(line[2], maps[2], True, symmetric(maps[2].values))
            colour_bar(image, [line[2]], _change(measure, special_tokens) + _why_hatched(measure, maps[2]), "bottom")
        for axes, name in zip(line, names, strict=False):
            set_title(axes, f"{name},", stage, size=MEDIUM)
    # In a column the same statement stands to the left, and names the rows.
    nameless = [] if across else list(grid[1])
    for axes in nameless:
        axes.set(ylabel="", yticks=[])
    _name_tokens(list(grid.flat), every, nameless)
    return figure


@checked
def difference_map(
    comparison: Comparison,
    layer: int,
    head: int,
    *,
    measure: str = "raw",
    special_tokens: bool = True,
    width: float = PAGE,
    axes: Axes | None = None,
) -> Figure:
    """What the negation changes in one head's map: counterfactual - original, on the tokens that both have.

    Zero is in the middle of the scale. A token that differs between the two is named with both, "now→not".

    Args:
        comparison: Original and counterfactual.
        layer: Which layer.
        head: Which head of it.
        measure: Attention (`raw`), norm-weighted attention (`norm`), or the cosine of the head's outputs
            (`similarity`).
        special_tokens: Whether to show what the tokenizer puts in (see `raw_beside_value_weighted`).
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Tokens are named for the size it has now.

    Raises:
        ViewError: if there is no such measure, layer or head, a map does not fit its tokens, or no tokens are left or
            aligned.
    """
    check_width(width)
    if measure not in _UNITS:
        raise ViewError(f"There is no measure {measure!r}; choose from {', '.join(_UNITS)}.")
    shown = _difference(comparison, measure, layer, head, special_tokens, _longest(width, 1))
    axes = axes or _map_figure([shown], 1, width, n_named=1).subplots()
    image = _draw_token_map(axes, shown, True, symmetric(shown.values))
    set_title(axes, _DIFFERENCE, *_title(layer, head, measure, special_tokens))
    colour_bar(image, [axes], _change(measure, special_tokens) + _why_hatched(measure, shown), "bottom")
    _name_tokens([axes], [shown])
    return figure_of(axes)


@checked
def layer_head_map(
    values: ArrayLike,
    *,
    label: str,
    diverging: bool | None = None,
    limits: Limits | None = None,
    width: float = PAGE,
    axes: Axes | None = None,
) -> Figure:
    """A number for every layer (row) and head (column), written into the cells where there is room.

    Args:
        values: `[layer, head]`; NaN where undefined.
        label: What the numbers are, beside the colour bar.
        diverging: Whether zero is in the middle of the scale; otherwise it runs from 0 to the largest value. By default
            it is where a value is negative.
        limits: The scale's ends, if they are to be others.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Numbers are written if they fit the size it has now.

    Raises:
        ViewError: if `values` is not a table with at least one layer and head, or a value is negative on a scale that
            starts at 0.
    """
    check_width(width)
    table = _table(values, "layer and head")
    negative = bool((table < 0).any())
    diverging = negative if diverging is None else diverging
    if negative and not diverging and limits is None:
        raise ViewError("A value is negative, and the scale would start at 0; give its ends, or let it be diverging.")
    axes = axes or cell_axes(table.shape, width)
    draw_cells(axes, table, label, diverging=diverging, limits=limits)
    axes.set_xlabel("head", fontsize=MEDIUM)
    lay_out(figure_of(axes))  # now the axes have the size that they will have
    write_numbers(axes)
    return figure_of(axes)


@checked
def metric_overview(comparison: Comparison | xr.Dataset, *, width: float = PAGE) -> Figure:
    """The four metrics of a comparison for every layer and head; the mean over pairs where there are several.

    Differences are on a scale from 0. Correlations are on one from the least to 1, at which nothing has changed; where
    one is negative, on one from -1 to 1.

    Args:
        comparison: A comparison, or the four metrics as `AttentionProbe.metrics` returns them, of one compared side.
        width: Inches the figure is wide at most.

    Raises:
        ViewError: as `by_layer_and_head`.
    """
    check_width(width)
    metrics = comparison.metrics if isinstance(comparison, Comparison) else comparison
    tables = {name: by_layer_and_head(metrics, name) for name in MAP_METRICS}
    n_layers, n_heads = tables[MAP_METRICS[0]].shape
    across = min(0.5 + max(0.4 * n_heads, 1.1), width / 2)
    down = n_layers * min(0.3, 3.2 / n_layers, max(0.15, 0.8 * (across - 0.5) / n_heads))
    size = (2 * across, 2 * (1.15 + max(down, 0.6)))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08))
    panels = list(figure.subplots(2, 2).flat)
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        is_correlation = name.endswith("correlation")
        negative = bool((table < 0).any())
        limits = ((-1.0, 1.0) if negative else (_least(table), 1.0)) if is_correlation else None
        label = "Pearson correlation" if is_correlation else metric_unit(name)
        draw_cells(axes, table, label, diverging=is_correlation and negative, limits=limits, bar="bottom")
        set_title(axes, metric_name(name), size=MEDIUM)
        axes.set_xlabel("head", fontsize=MEDIUM)
    lay_out(figure)  # now the axes have the size that they will have
    write_numbers(*panels)
    return figure


@checked
def by_layer_and_head(metrics: xr.Dataset, name: str) -> Float[np.ndarray, "layer head"]:
    """One of the metrics of a comparison as `[layer, head]`; the mean over pairs where there are several.

    Raises:
        ViewError: if there is no such metric, it has other dimensions, or there are no layers, heads or pairs.
    """
    if name not in metrics.data_vars or not {"layer", "head"} <= set(metrics[name].dims):
        raise ViewError(f"There is no metric {quoted(name)} by layer and head; give the `metrics` of a comparison.")
    values = metrics[name]
    if not values.size:
        raise ViewError("The metrics are empty, so there is nothing to draw; give the `metrics` of a comparison.")
    if values.dtype.kind not in "biuf":
        raise ViewError(f"The metric {quoted(name)} has no numbers to draw; take one of the metrics of a comparison.")
    return layer_by_head(values.mean([dim for dim in values.dims if dim == "pair"]))


@checked
def patching_map(effect: xr.DataArray, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """What patching does, by layer (row) and position, role or head (column): 0 is nothing, 1 the whole swing.

    Zero is in the middle of the scale, which reaches as far as the largest effect in either direction. Positions are
    labelled by their `token` coordinate where the result has one.

    Args:
        effect: Normalised effects with the dimensions `layer` and one other; `attrs` may name `site`, `how`,
            `direction` and `key_role`, and the coordinates `base_run`, `source_run` and `n_pairs`; the title describes
            them.
        width: Inches the figure is wide at most.
        axes: Where to draw; a new figure if there is none. Tokens are named, and numbers written, for the size it has
            now.

    Raises:
        ViewError: if it has other dimensions, or is empty.
    """
    check_width(width)
    others = [str(dim) for dim in effect.dims if dim != "layer"]
    if len(others) != 1 or effect.ndim != 2:
        raise ViewError(
            f"A patching map needs the dimensions layer and one of position, role and head, not {effect.dims}; "
            "average over pairs, or select one."
        )
    by = others[0]
    table = _table(effect.transpose("layer", by).values, f"layer and {by}")
    labels = _part_labels(effect, by)
    beneath = _CHARACTER * max(map(len, labels)) if by != "head" else 0.0
    axes = axes or cell_axes(table.shape, width, beneath=beneath)
    draw_cells(axes, table, "normalised effect\n(1: the whole swing)", diverging=True)
    set_title(axes, *patching_title(effect), *_n_pairs(effect))
    layers = [str(layer) for layer in effect["layer"].values] if "layer" in effect.coords else []
    along = {"position": "token", "role": "role of the token"}.get(by, by)
    name_cells({axes: CellNames(labels, layers, along)})
    write_numbers(axes)
    return figure_of(axes)


def _n_pairs(effect: xr.DataArray) -> list[str]:
    if "n_pairs" not in effect.coords:
        return []
    n = number_range(effect["n_pairs"].values.flat)
    return [f"n = {n} pair{'s' * (n != '1')}"]


def _part_labels(effect: xr.DataArray, by: str) -> list[str]:
    """The names of positions, by their tokens if they are known, of roles, or of heads."""
    if by == "role":
        return [role_label(str(role)) for role in effect[by].values]
    parts = effect.coords["token"] if by == "position" and "token" in effect.coords else effect[by]
    return [tick_label(str(part)) for part in parts.values]


def _statement_map(
    attention: StatementAttention,
    measure: str,
    layer: int,
    head: int,
    special_tokens: bool,
    longest: int,
    cue: Sequence[int] = (),
) -> _TokenMap:
    """One head's map of a statement, its special tokens left out if they are to be."""
    tokens = attention.statement.tokens
    kept = _kept(attention, special_tokens)
    labels = [tick_label(tokens[i], longest) for i in kept]
    marked = tuple(i for i, position in enumerate(kept) if position in cue)
    return _TokenMap(_kept_values(attention, measure, layer, head, kept), labels, marked)


def _sides(
    comparison: Comparison, measure: str, layer: int, head: int, special_tokens: bool, longest: int
) -> list[_TokenMap]:
    """One head's map of the original, and of the counterfactual."""
    sides = ((comparison.original, ()), (comparison.counterfactual, comparison.cue_positions))
    return [_statement_map(side, measure, layer, head, special_tokens, longest, cue) for side, cue in sides]


def _difference(
    comparison: Comparison, measure: str, layer: int, head: int, special_tokens: bool, longest: int
) -> _TokenMap:
    """Counterfactual - original of one head's map, on the aligned tokens that are shown of both."""
    alignment, sides = comparison.alignment, (comparison.original, comparison.counterfactual)
    kept = [_kept(side, special_tokens) for side in sides]
    pairs = [
        (kept[0].index(i), kept[1].index(j))
        for i, j in zip(alignment.original, alignment.counterfactual, strict=True)
        if i in kept[0] and j in kept[1]
    ]
    if not pairs:
        raise ViewError("No tokens of the two statements are aligned, so there is no difference to draw.")
    before, after = (
        _kept_values(side, measure, layer, head, shown)[np.ix_(at, at)]
        for side, shown, at in zip(sides, kept, zip(*pairs, strict=True), strict=True)
    )
    tokens = [[side.statement.tokens[i] for i in shown] for side, shown in zip(sides, kept, strict=True)]
    labels = [aligned_label(tokens[0][i], tokens[1][j], max(longest - 5, 4)) for i, j in pairs]
    marked = tuple(at for at, (_, j) in enumerate(pairs) if kept[1][j] in comparison.cue_positions)
    return _TokenMap(after - before, labels, marked)


def _kept(attention: StatementAttention, special_tokens: bool) -> list[int]:
    """Positions of the tokens that are shown."""
    special = attention.statement.special
    if not special:
        raise ViewError("A statement without tokens has no attention to draw.")
    kept = [i for i, put_in in enumerate(special) if special_tokens or not put_in]
    if not kept:
        raise ViewError(f"{attention.statement.text!r} has special tokens alone; draw it with them.")
    return kept


def _kept_values(
    attention: StatementAttention, measure: str, layer: int, head: int, kept: Sequence[int]
) -> Float[np.ndarray, "query key"]:
    """One head's map of these tokens; rows of attention divided by what is left of them if some are left out."""
    values = _head_map(attention, measure, layer, head)
    shown = values[np.ix_(kept, kept)]
    if measure == "similarity" or len(kept) == len(values):
        return shown
    left = shown.sum(axis=1, keepdims=True)
    return np.divide(shown, left, out=np.full_like(shown, np.nan), where=left > 0)


def _head_map(attention: StatementAttention, measure: str, layer: int, head: int) -> Float[np.ndarray, "query key"]:
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


def _title(layer: int, head: int, measure: str, special_tokens: bool) -> list[str]:
    where = f"Layer {layer}, head {head}"
    return [where] if special_tokens else [where, _NO_SPECIAL[measure]]


def _name_figure(figure: Figure, lines: Sequence[str]) -> None:
    figure.suptitle(wrapped("\n".join(lines), 72 * figure.get_figwidth(), LARGE), fontsize=LARGE)


def _unit(measure: str, special_tokens: bool) -> str:
    return _UNITS[measure] if special_tokens or measure != "norm" else _SHARES


def _change(measure: str, special_tokens: bool) -> str:
    """What a difference map shows."""
    return f"change of {'cosine' if measure == 'similarity' else _unit(measure, special_tokens)}"


def _why_hatched(measure: str, *maps: _TokenMap) -> str:
    """Why a map has undefined cells, if it has."""
    if not any(np.isnan(shown.values).any() for shown in maps):
        return ""
    return "\n(hatched: " + ("undefined)" if measure == "similarity" else "no attention left)")


def _limits(measure: str, *maps: Map) -> Limits:
    return (-1.0, 1.0) if measure == "similarity" else (0.0, max(largest_size(values) for values in maps))


def _least(values: Map) -> float:
    """The least value, 0 if there is none below 1, so that a scale up to 1 has a length."""
    least = float(np.nanmin(values, initial=1.0))
    return least if least < 1 else 0.0


def _table(values: ArrayLike, axes: str) -> Map:
    try:
        table = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ViewError(f"A map needs a number for each {axes}, but its values are no numbers: {error}.") from error
    if table.ndim != 2 or table.size == 0:
        raise ViewError(f"A map needs a value for each {axes}, but its values have shape {table.shape}.")
    return table


def _longest(width: float, n_columns: int) -> int:
    """Characters of a token's label, where so many maps stand side by side."""
    return 14 if width / n_columns > 2.2 else 9


def _map_figure(maps: Sequence[_TokenMap], n_columns: int, width: float, *, n_named: int) -> Figure:
    """A figure with room for these maps; it grows with their tokens up to its width, then tokens share the space.

    Of its columns, `n_named` have tokens beside their maps.
    """
    n_rows = len(maps) // n_columns
    label = _CHARACTER * max(len(label) for shown in maps for label in shown.labels)
    beside = n_named * label + n_columns * 0.4  # of all maps
    down = label + 1.3  # what is above and beneath each
    tokens = max(len(shown.labels) for shown in maps)
    room = min((width - beside) / n_columns, (_HIGHEST - 0.6) / n_rows - down)
    side = min(max(_CELL * tokens, _LEAST_MAP), room)
    size = (min(width, max(n_columns * side + beside, 2.6)), 0.6 + n_rows * (side + down))
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(compress=True, h_pad=0.07))


def _draw_token_map(axes: Axes, shown: _TokenMap, diverging: bool, limits: Limits) -> AxesImage:
    axes.set_ylabel("query", fontsize=MEDIUM)
    return draw_map(axes, shown.values, diverging, limits)


def _name_tokens(panels: Sequence[Axes], maps: Sequence[_TokenMap], nameless: Sequence[Axes] = ()) -> None:
    """Tokens beneath every map, and beside those that are not `nameless`."""
    name_cells(
        {
            axes: CellNames(shown.labels, [] if axes in nameless else shown.labels, "key", shown.marked)
            for axes, shown in zip(panels, maps, strict=True)
        }
    )
