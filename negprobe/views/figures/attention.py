"""Figures of attention, comparisons and patching results, each a matplotlib `Figure`.

`drawing` describes the common style. Layers and heads count from 0. `width` is the maximum width of a figure in inches:
6.9 for a page, 3.3 for one of its two columns; a figure with little to show is narrower. If the names of all tokens do
not fit, only some are shown, always including the cue, and the axis label gives the fraction.
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
_SHARES = "share of A · ‖v W_O‖"  # the unit of norm-weighted attention with renormalised rows
_TITLES = {"raw": "Attention", "norm": "Norm-weighted attention", "similarity": "Similarity of outputs"}
_NO_SPECIAL = {
    "raw": "rows renormalised without special tokens",
    "norm": "rows renormalised without special tokens",
    "similarity": "without special tokens",
}
_DIFFERENCE = "Counterfactual − original"
_CELL = 0.17  # inches per token, unless the map would be too large
_MIN_SIDE, _MAX_HEIGHT = 1.2, 9.0  # inches: the side of a map, and the height of a figure
_CHARACTER = 0.062  # average width of a character in a label, in inches


@dataclass(frozen=True)
class _TokenMap:
    """A map of one head over tokens, ready to draw.

    Attributes:
        values: The values; NaN where undefined.
        labels: The labels of the tokens, for both axes.
        marked: Indices of the tokens of the cue.
    """

    values: Float[np.ndarray, "query key"]
    labels: list[str]
    marked: tuple[int, ...] = field(default=())


@checked
def raw_beside_value_weighted(
    attention: StatementAttention, layer: int, head: int, *, special_tokens: bool = True, width: float = PAGE
) -> Figure:
    """One head before and after the values: raw attention, norm-weighted attention, and similarity of its outputs.

    Queries are rows and keys are columns. The first two scales start at 0, cosines run from -1 to 1. If the width is
    less than 5 inches, the maps are stacked.

    Args:
        attention: The attention of one statement.
        layer: The layer.
        head: The head.
        special_tokens: Whether to show the tokens that the tokenizer adds, such as [CLS] and [SEP]. Without them, the
            rows of the first two maps are renormalised to sum to 1, and the title says so; a row without any remaining
            attention is hatched.
        width: Maximum width of the figure in inches.

    Raises:
        ViewError: if the layer or head does not exist, no token is left, or a map does not match its tokens.
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

    The maps of the two statements share a scale. The maps of counterfactual - original show the aligned tokens, each on
    its own scale with zero in the middle. The cue is marked in the counterfactual. Statements are columns, or rows if
    the width is less than 5 inches.

    Args:
        comparison: Original and counterfactual.
        layer: The layer.
        head: The head.
        difference: Whether to add the maps of the difference.
        special_tokens: Whether to show the tokens that the tokenizer adds (see `raw_beside_value_weighted`).
        width: Maximum width of the figure in inches.

    Raises:
        ViewError: if the layer or head does not exist, a map does not match its tokens, or no tokens are left or
            aligned.
    """
    check_width(width)
    is_wide = width >= 5
    n_sides = 3 if difference else 2
    longest = _longest(width, n_sides if is_wide else 2)
    stages = {"raw": "attention", "similarity": "similarity of outputs"}
    rows = []
    for measure in stages:
        one = (comparison, measure, layer, head, special_tokens, longest)
        rows.append([*_sides(*one), *([_difference(*one)] if difference else [])])
    all_maps = [shown for row in rows for shown in row]
    figure = _map_figure(all_maps, n_sides if is_wide else 2, width, n_named=n_sides if is_wide else 1)
    _name_figure(figure, _title(layer, head, "raw", special_tokens))
    grid = figure.subplots(2, n_sides) if is_wide else figure.subplots(n_sides, 2).T
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
    # In a narrow figure, the map to the left shows the same statement and already names the rows.
    without_rows = [] if is_wide else list(grid[1])
    for axes in without_rows:
        axes.set(ylabel="", yticks=[])
    _name_tokens(list(grid.flat), all_maps, without_rows)
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
    """One head's change under the negation: a map of counterfactual - original on the aligned tokens.

    Zero is in the middle of the scale. Aligned tokens that differ are named by both, such as "now→not".

    Args:
        comparison: Original and counterfactual.
        layer: The layer.
        head: The head.
        measure: Attention (`raw`), norm-weighted attention (`norm`), or the cosine of the head's outputs
            (`similarity`).
        special_tokens: Whether to show the tokens that the tokenizer adds (see `raw_beside_value_weighted`).
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. The names of the tokens fit their current size.

    Raises:
        ViewError: if the measure, layer or head does not exist, a map does not match its tokens, or no tokens are left
            or aligned.
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
    """A map of one number per layer (row) and head (column), with the numbers written into the cells if they fit.

    Args:
        values: `[layer, head]`; NaN where undefined.
        label: The label of the colour bar.
        diverging: Whether the scale has zero in the middle; otherwise it runs from 0 to the largest value. By default
            it does if a value is negative.
        limits: The ends of the scale, if they should be others.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. Numbers are written if they fit their current size.

    Raises:
        ViewError: if `values` is not a table with at least one layer and head, or a value is negative on a scale that
            starts at 0.
    """
    check_width(width)
    table = _table(values, "layer and head")
    negative = bool((table < 0).any())
    diverging = negative if diverging is None else diverging
    if negative and not diverging and limits is None:
        raise ViewError("A value is negative, but the scale starts at 0; set diverging=True, or give limits.")
    axes = axes or cell_axes(table.shape, width)
    draw_cells(axes, table, label, diverging=diverging, limits=limits)
    axes.set_xlabel("head", fontsize=MEDIUM)
    lay_out(figure_of(axes))  # the axes need their final size
    write_numbers(axes)
    return figure_of(axes)


@checked
def metric_overview(comparison: Comparison | xr.Dataset, *, width: float = PAGE) -> Figure:
    """Maps of the four metrics of a comparison by layer and head, averaged over pairs if there are several.

    The scales of differences start at 0. The scales of correlations run from the smallest to 1 (no change), or from -1
    to 1 if a correlation is negative.

    Args:
        comparison: A comparison, or the four metrics as `AttentionProbe.metrics` returns them, of one compared side.
        width: Maximum width of the figure in inches.

    Raises:
        ViewError: as `by_layer_and_head`.
    """
    check_width(width)
    metrics = comparison.metrics if isinstance(comparison, Comparison) else comparison
    tables = {name: by_layer_and_head(metrics, name) for name in MAP_METRICS}
    n_layers, n_heads = tables[MAP_METRICS[0]].shape
    panel_width = min(0.5 + max(0.4 * n_heads, 1.1), width / 2)
    map_height = n_layers * min(0.3, 3.2 / n_layers, max(0.15, 0.8 * (panel_width - 0.5) / n_heads))
    size = (2 * panel_width, 2 * (1.15 + max(map_height, 0.6)))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.08))
    panels = list(figure.subplots(2, 2).flat)
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        is_correlation = name.endswith("correlation")
        negative = bool((table < 0).any())
        limits = ((-1.0, 1.0) if negative else (_lowest(table), 1.0)) if is_correlation else None
        label = "Pearson correlation" if is_correlation else metric_unit(name)
        draw_cells(axes, table, label, diverging=is_correlation and negative, limits=limits, bar="bottom")
        set_title(axes, metric_name(name), size=MEDIUM)
        axes.set_xlabel("head", fontsize=MEDIUM)
    lay_out(figure)  # the axes need their final size
    write_numbers(*panels)
    return figure


@checked
def by_layer_and_head(metrics: xr.Dataset, name: str) -> Float[np.ndarray, "layer head"]:
    """A metric of a comparison as `[layer, head]`, averaged over pairs if there are several.

    Raises:
        ViewError: if there is no such metric, if it is empty, not numeric, or has other dimensions.
    """
    if name not in metrics.data_vars or not {"layer", "head"} <= set(metrics[name].dims):
        raise ViewError(f"There is no metric {quoted(name)} by layer and head; give the `metrics` of a comparison.")
    values = metrics[name]
    if not values.size:
        raise ViewError("The metrics are empty, so there is nothing to draw; give the `metrics` of a comparison.")
    if values.dtype.kind not in "biuf":
        raise ViewError(f"The metric {quoted(name)} is not numeric; give the name of a metric.")
    return layer_by_head(values.mean([dim for dim in values.dims if dim == "pair"]))


@checked
def patching_map(effect: xr.DataArray, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """A map of patching effects by layer (row) and position, role or head (column).

    0 means no change, 1 that the answer becomes the other run's. Zero is in the middle of the scale, which extends to
    the largest effect in either direction. Positions are labelled by their `token` coordinate if there is one.

    Args:
        effect: Normalised effects with the dimension `layer` and one other. The title uses the attributes `site`,
            `how`, `direction` and `key_role`, and the coordinates `base_run`, `source_run` and `n_pairs`, if present.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. Names and numbers fit their current size.

    Raises:
        ViewError: if the effects have other dimensions, or are empty.
    """
    check_width(width)
    others = [str(dim) for dim in effect.dims if dim != "layer"]
    if len(others) != 1 or effect.ndim != 2:
        raise ViewError(
            f"The effects must have the dimensions layer and one of position, role and head, got {effect.dims}; "
            "average over pairs, or select one."
        )
    by = others[0]
    table = _table(effect.transpose("layer", by).values, f"layer and {by}")
    labels = _part_labels(effect, by)
    label_height = _CHARACTER * max(map(len, labels)) if by != "head" else 0.0
    axes = axes or cell_axes(table.shape, width, label_height=label_height)
    draw_cells(axes, table, "normalised effect\n(1: the other run's answer)", diverging=True)
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
    """The labels of the columns: roles, heads, or the tokens of positions if they are known."""
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
    """One head's map of a statement, with or without special tokens."""
    tokens = attention.statement.tokens
    kept = _kept(attention, special_tokens)
    labels = [tick_label(tokens[i], longest) for i in kept]
    marked = tuple(i for i, position in enumerate(kept) if position in cue)
    return _TokenMap(_kept_values(attention, measure, layer, head, kept), labels, marked)


def _sides(
    comparison: Comparison, measure: str, layer: int, head: int, special_tokens: bool, longest: int
) -> list[_TokenMap]:
    """One head's maps of the original and of the counterfactual."""
    sides = ((comparison.original, ()), (comparison.counterfactual, comparison.cue_positions))
    return [_statement_map(side, measure, layer, head, special_tokens, longest, cue) for side, cue in sides]


def _difference(
    comparison: Comparison, measure: str, layer: int, head: int, special_tokens: bool, longest: int
) -> _TokenMap:
    """One head's map of counterfactual - original, on the aligned tokens that are shown."""
    alignment, sides = comparison.alignment, (comparison.original, comparison.counterfactual)
    kept = [_kept(side, special_tokens) for side in sides]
    pairs = [
        (kept[0].index(i), kept[1].index(j))
        for i, j in zip(alignment.original, alignment.counterfactual, strict=True)
        if i in kept[0] and j in kept[1]
    ]
    if not pairs:
        raise ViewError("No tokens of the two statements are aligned; choose a pair with aligned tokens.")
    before, after = (
        _kept_values(side, measure, layer, head, shown)[np.ix_(at, at)]
        for side, shown, at in zip(sides, kept, zip(*pairs, strict=True), strict=True)
    )
    tokens = [[side.statement.tokens[i] for i in shown] for side, shown in zip(sides, kept, strict=True)]
    labels = [aligned_label(tokens[0][i], tokens[1][j], max(longest - 5, 4)) for i, j in pairs]
    marked = tuple(at for at, (_, j) in enumerate(pairs) if kept[1][j] in comparison.cue_positions)
    return _TokenMap(after - before, labels, marked)


def _kept(attention: StatementAttention, special_tokens: bool) -> list[int]:
    """The positions of the tokens to show."""
    special = attention.statement.special
    if not special:
        raise ViewError("The statement has no tokens, so there is no attention to draw.")
    kept = [i for i, is_special in enumerate(special) if special_tokens or not is_special]
    if not kept:
        raise ViewError(f"{attention.statement.text!r} has only special tokens; draw it with special_tokens=True.")
    return kept


def _kept_values(
    attention: StatementAttention, measure: str, layer: int, head: int, kept: Sequence[int]
) -> Float[np.ndarray, "query key"]:
    """One head's map of these tokens; attention is renormalised if others are left out."""
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
            f"The {measure} map of {attention.statement.text!r} has shape {tuple(values.shape)}; for its {tokens} "
            f"tokens it must be (layer, head, {tokens}, {tokens})."
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
    """The label of the colour bar of a difference map."""
    return f"change of {'cosine' if measure == 'similarity' else _unit(measure, special_tokens)}"


def _why_hatched(measure: str, *maps: _TokenMap) -> str:
    """A note on why a map has undefined cells; empty if it has none."""
    if not any(np.isnan(shown.values).any() for shown in maps):
        return ""
    return "\n(hatched: " + ("undefined)" if measure == "similarity" else "no attention left)")


def _limits(measure: str, *maps: Map) -> Limits:
    return (-1.0, 1.0) if measure == "similarity" else (0.0, max(largest_size(values) for values in maps))


def _lowest(values: Map) -> float:
    """The smallest value; 0 if none is below 1, because a scale from 1 to 1 would be empty."""
    lowest = float(np.nanmin(values, initial=1.0))
    return lowest if lowest < 1 else 0.0


def _table(values: ArrayLike, axes: str) -> Map:
    try:
        table = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ViewError(f"The values must be numbers, one for each {axes}: {error}.") from error
    if table.ndim != 2 or table.size == 0:
        raise ViewError(f"The values must be a table with one value for each {axes}, got shape {table.shape}.")
    return table


def _longest(width: float, n_columns: int) -> int:
    """The maximum number of characters of a token's label, with `n_columns` maps side by side."""
    return 14 if width / n_columns > 2.2 else 9


def _map_figure(maps: Sequence[_TokenMap], n_columns: int, width: float, *, n_named: int) -> Figure:
    """An empty figure of a size that fits these maps.

    It grows with the number of tokens up to the maximum width or height; then the cells get smaller. `n_named` of its
    columns have row labels.
    """
    n_rows = len(maps) // n_columns
    label = _CHARACTER * max(len(label) for shown in maps for label in shown.labels)
    beside = n_named * label + n_columns * 0.4  # inches beside all maps together
    above_below = label + 1.3  # inches above and below each map
    tokens = max(len(shown.labels) for shown in maps)
    max_side = min((width - beside) / n_columns, (_MAX_HEIGHT - 0.6) / n_rows - above_below)
    side = min(max(_CELL * tokens, _MIN_SIDE), max_side)
    size = (min(width, max(n_columns * side + beside, 2.6)), 0.6 + n_rows * (side + above_below))
    return Figure(figsize=size, layout=ConstrainedLayoutEngine(compress=True, h_pad=0.07))


def _draw_token_map(axes: Axes, shown: _TokenMap, diverging: bool, limits: Limits) -> AxesImage:
    axes.set_ylabel("query", fontsize=MEDIUM)
    return draw_map(axes, shown.values, diverging, limits)


def _name_tokens(panels: Sequence[Axes], maps: Sequence[_TokenMap], without_rows: Sequence[Axes] = ()) -> None:
    """Write the tokens below every map, and beside every map that is not in `without_rows`."""
    name_cells(
        {
            axes: CellNames(shown.labels, [] if axes in without_rows else shown.labels, "key", shown.marked)
            for axes, shown in zip(panels, maps, strict=True)
        }
    )
