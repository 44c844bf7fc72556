"""Shared parts of the figures: sizes, colours, maps, legends, and labels of points.

Figures are made without pyplot, so a notebook does not show them twice and threads share no state. They are meant to be
printed: `PAGE` and `COLUMN` are the widths of a page and of one of its two columns, no text is smaller than `SMALL`,
sequential scales are perceptually uniform, diverging scales have zero in the middle, and marks differ in shape as well
as in colour. Tokens are never parsed as math text.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.base.files import whole_file
from negprobe.base.texts import is_utf8, quoted
from negprobe.statistics import rank_correlation

PAGE, COLUMN = 6.9, 3.3  # inches: the width of a page without its margins, and of one of its two columns
SMALL, MEDIUM, LARGE = 7.0, 8.0, 9.0  # points: tick labels and names, axis and colour bar labels, titles
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe & Ito: distinguishable with every kind of colour vision
GREY = "#606060"
HALO = withStroke(linewidth=2, foreground="white")
STEPS = [1, 2, 5, 10]  # tick spacings; 2.5 would need one more digit
HATCHED: dict[str, Any] = {"facecolor": "#e4e4e4", "edgecolor": "#a0a0a0", "hatch": "////"}
"""The style of undefined values."""

CUE_COLOUR = "#a8320a"

_LINE_HEIGHT = 1.15  # relative to the font size
_MAX_NAMED = 10  # points named in a scatter plot

Limits = tuple[float, float]
Map = Float[np.ndarray, "_ _"]


@dataclass(frozen=True)
class CellNames:
    """The names of the rows and columns of a map.

    Attributes:
        columns: One name per column, from the left.
        rows: One name per row, from the top; empty to keep the numbers.
        along: The label of the x axis, such as "key".
        marked: Indices of the rows and columns to highlight: the cue.
    """

    columns: Sequence[str]
    rows: Sequence[str]
    along: str
    marked: tuple[int, ...] = ()


def figure_of(axes: Axes) -> Figure:
    """The top-level figure that contains the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # only axes removed from their figure have none
    return figure


def lay_out(figure: Figure) -> None:
    """Compute the layout of a figure now, so that the axes have their final size and position."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    for axes in figure.axes:
        axes.apply_aspect()


def fix_layout(figure: Figure) -> None:
    """Compute the layout and keep it; otherwise each save would start from the last layout and differ slightly."""
    lay_out(figure)
    figure.set_layout_engine(None)


def size_in_points(axes: Axes) -> Float[np.ndarray, "2"]:
    """The current width and height of axes, in points."""
    box = axes.get_window_extent()
    return np.array([box.width, box.height]) * 72 / figure_of(axes).dpi


def largest_size(values: Iterable[float] | Float[np.ndarray, "..."]) -> float:
    """The largest absolute value, ignoring NaN; 1 if there is none or it is 0, so that it can be divided by."""
    array = np.asarray(values if isinstance(values, np.ndarray) else [*values], dtype=float)
    return float(np.nanmax(np.abs(array), initial=0.0)) or 1.0


def symmetric(values: Float[np.ndarray, "..."]) -> Limits:
    """The ends of a scale with zero in the middle that covers all values."""
    return -largest_size(values), largest_size(values)


def number_range(numbers: Iterable[Any]) -> str:
    """The range of integers as "3 to 7", or the single value if all are equal."""
    distinct = sorted({int(number) for number in numbers})
    return " to ".join(map(str, dict.fromkeys((distinct[0], distinct[-1]))))


def spearman(points: Float[np.ndarray, "point 2"]) -> str:
    """Spearman's correlation of the two coordinates as "= 0.42", or "undefined"."""
    correlation, _ = rank_correlation(*points.T)
    return "undefined" if np.isnan(correlation) else f"= {correlation:.2f}".replace("-", "−")


def layer_by_head(values: xr.DataArray) -> Float[np.ndarray, "layer head"]:
    """The values as `[layer, head]`, counted from 0; NaN for missing layers and heads."""
    if others := [str(dim) for dim in values.dims if dim not in ("layer", "head")]:
        raise ViewError(f"A number for each layer and head is needed; select one {' and one '.join(others)} first.")
    named = values.assign_coords({dim: values[dim] for dim in ("layer", "head")})
    whole = {dim: np.arange(int(values[dim].max()) + 1) for dim in ("layer", "head")}
    return named.reindex(whole).transpose("layer", "head").to_numpy().astype(float)


def draw_map(
    axes: Axes, values: Map, diverging: bool, limits: Limits, aspect: Literal["equal", "auto"] = "equal"
) -> AxesImage:
    """An image of the values; NaN is hatched."""
    # The background of the axes, visible at NaN because its cells are transparent.
    axes.patch.set(**HATCHED)
    low, high = limits
    return axes.imshow(values, cmap=DIVERGING if diverging else SEQUENTIAL, vmin=low, vmax=high, aspect=aspect)


def colour_bar(image: AxesImage, axes: Sequence[Axes], label: str, location: Literal["right", "bottom"]) -> None:
    """Add a colour bar with a label next to axes, with as many tick labels as fit."""
    bar = figure_of(axes[0]).colorbar(image, ax=list(axes), location=location, shrink=0.9)
    extent = Bbox.union([one.get_window_extent() for one in axes])
    length = (extent.width if location == "bottom" else extent.height) * 72 / figure_of(axes[0]).dpi
    bar.set_label(wrapped(label, length, MEDIUM), fontsize=MEDIUM, parse_math=False)
    bar.ax.tick_params(labelsize=SMALL)
    bar.locator = _BarLocator(bar.ax)


class _BarLocator(MaxNLocator):
    """As many ticks as fit the length that the bar has when it is drawn."""

    def __init__(self, bar: Axes) -> None:
        super().__init__(steps=STEPS)
        self._bar = bar

    def __call__(self) -> Sequence[float]:
        width, height = size_in_points(self._bar)
        self.set_params(nbins=int(np.clip(width / 32 if width > height else height / 20, 2, 6)))
        return [*super().__call__()]


def check_width(width: float) -> None:
    """Check that a figure's width in inches is in the supported range.

    Raises:
        ViewError: if it is not from 2 to 40 inches.
    """
    if not 2 <= width <= 40:
        raise ViewError(f"width must be from 2 to 40 inches, got {width}; use {PAGE} for the width of a page.")


def cell_axes(shape: tuple[int, ...], width: float, *, label_height: float = 0.0) -> Axes:
    """Axes of a new figure for a map, with cells that are as large as fits, up to a maximum size.

    Args:
        shape: Numbers of rows and columns.
        width: Maximum width of the figure in inches.
        label_height: Height of the column labels in inches, in addition to that of a number.
    """
    rows, columns = shape
    cell_width = min(0.4, (width - 1.25) / columns)
    cell_height = min(cell_width, max(0.125, min(0.36, 4.5 / rows)))
    size = (min(width, max(1.25 + cell_width * columns, 3.0)), 1.5 + label_height + max(cell_height * rows, 1.2))
    return Figure(figsize=size, layout="constrained").subplots()


def draw_cells(
    axes: Axes,
    table: Map,
    label: str,
    *,
    diverging: bool,
    limits: Limits | None = None,
    bar: Literal["right", "bottom"] = "right",
) -> AxesImage:
    """Draw a map with layers as rows, and a labelled colour bar.

    Without `limits`, the scale starts at 0 or, if `diverging`, has 0 in the middle.
    """
    if limits is None:
        limits = symmetric(table) if diverging else (0.0, largest_size(table))
    image = draw_map(axes, table, diverging, limits, aspect="auto")
    colour_bar(image, [axes], label + ("\n(hatched: undefined)" if np.isnan(table).any() else ""), bar)
    axes.set_ylabel("layer", fontsize=MEDIUM)
    axes.tick_params(labelsize=SMALL)
    thin_ticks(axes)
    return image


def name_cells(panels: Mapping[Axes, CellNames]) -> None:
    """Label the rows and columns of the maps of one figure, with as many names as fit the final size of the maps.

    Marked names are bold, in another colour, and have priority over others. If not all names fit, a note below the map
    (or, with several maps, below the figure) gives the fraction that is shown.
    """
    figure = figure_of(next(iter(panels)))
    marked = any(names.marked for names in panels.values())
    steps: list[int] = []
    for _ in range(2):
        # The first pass uses the current size of the axes; with these names they get their final size.
        step = max(_step(axes, names) for axes, names in panels.items())
        if step in steps:
            break
        steps.append(step)
        notes = ["cue in bold"] * marked + [f"1 in {step} named"] * (step > 1)
        if len(panels) > 1:
            figure.supxlabel(", ".join(notes), fontsize=SMALL)
        for axes, names in panels.items():
            _name_ticks(axes, "x", names.columns, step, names.marked)
            if names.rows:
                _name_ticks(axes, "y", names.rows, step, names.marked)
            label = f"{names.along} ({', '.join(notes)})" if notes and len(panels) == 1 else names.along
            axes.set_xlabel(wrapped(label, size_in_points(axes)[0], MEDIUM), fontsize=MEDIUM)
        lay_out(figure)


def _step(axes: Axes, names: CellNames) -> int:
    """The smallest step such that the names of every step-th row and column fit."""
    lines = size_in_points(axes) / (_LINE_HEIGHT * SMALL)
    return int(np.ceil(max(len(names.columns) / lines[0], len(names.rows) / lines[1])))


def _name_ticks(axes: Axes, which: Literal["x", "y"], names: Sequence[str], step: int, marked: tuple[int, ...]) -> None:
    """Label every `step`-th row or column, and every marked one instead of those too close to it."""
    shown: list[int] = []
    for i in [*marked, *range(0, len(names), step)]:
        if all(abs(i - other) >= step for other in shown):
            shown.append(i)
    shown.sort()
    axis = axes.xaxis if which == "x" else axes.yaxis
    upright = which == "x" and max(map(len, names)) > 2
    # Without parse_math=False, a dollar sign would start a formula.
    axis.set_ticks(shown, [names[i] for i in shown], fontsize=SMALL, rotation=90 if upright else 0, parse_math=False)
    for position, text in zip(shown, axis.get_ticklabels(), strict=True):
        bold = position in marked
        text.set(color=CUE_COLOUR if bold else "black", fontweight="bold" if bold else "normal")


def set_title(axes: Axes, *lines: str, size: float = LARGE) -> None:
    """Set the title of axes, with lines wrapped to the width of the axes."""
    available = size_in_points(axes)[0]
    axes.set_title(wrapped("\n".join(filter(None, lines)), available, size), fontsize=size, parse_math=False)


def wrapped(text: str, points: float, size: float) -> str:
    """The text wrapped at spaces, in as few lines of similar length as possible.

    Args:
        text: The text.
        points: Maximum width of a line in points; a longer word stays whole.
        size: Font size in points.

    Raises:
        ViewError: if the text contains half a surrogate pair.
    """
    if not is_utf8(text):
        raise ViewError(f"The label {quoted(text)} contains half a surrogate pair, which cannot be drawn; fix it.")
    longest = max(int(points / (0.55 * size)), 8)
    return "\n".join(_evenly(line, longest) for line in text.split("\n"))


def _evenly(line: str, longest: int) -> str:
    """The line wrapped as narrowly as possible without more lines than at the maximum width."""
    layouts = [textwrap.wrap(line, characters, break_long_words=False) for characters in range(longest, 0, -1)]
    return "\n".join([lines for lines in layouts if len(lines) == len(layouts[0])][-1])


def write_numbers(*panels: Axes) -> None:
    """Write the numbers into the cells of maps if all of them fit, rounded to two digits of each map's largest."""
    numbers = [_numbers(axes) for axes in panels]
    for axes, (table, texts) in zip(panels, numbers, strict=True):
        cell = size_in_points(axes) / table.shape[::-1]
        if cell[0] < 2 + 0.62 * SMALL * max(map(len, texts.values()), default=0) or cell[1] < SMALL + 2:
            return
    for axes, (table, texts) in zip(panels, numbers, strict=True):
        for (row, column), text in texts.items():
            red, green, blue, _ = axes.images[0].to_rgba(table[row, column])
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            number = axes.text(column, row, text, color=ink, fontsize=SMALL, ha="center", va="center")
            number.set_in_layout(False)


def _numbers(axes: Axes) -> tuple[Map, dict[tuple[int, ...], str]]:
    """The values of a map, and the text of each value that is not NaN."""
    table: Map = np.ma.filled(np.ma.asarray(axes.images[0].get_array(), dtype=float), np.nan)
    decimals = int(np.clip(1 - np.floor(np.log10(largest_size(table))), 0, 3))
    texts = {
        at: f"{value.round(decimals) + 0.0:.{decimals}f}".replace("-", "−")
        for at, value in np.ndenumerate(table)
        if not np.isnan(value)
    }
    return table, texts


def thin_ticks(axes: Axes, which: Literal["x", "both"] = "both") -> None:
    """Set integer ticks along the axes, as many as fit."""
    n_fitting = size_in_points(axes) / (14, 10)
    for axis, n_ticks in zip((axes.xaxis, axes.yaxis)[: 1 if which == "x" else 2], n_fitting, strict=False):
        axis.set_major_locator(MaxNLocator(max(int(n_ticks), 1), integer=True))


def legend_below(axes: Axes, keys: list[Any], labels: list[str], *, alone: bool, title: str = "") -> None:
    """Add a legend with as few rows as possible below the axes, or below the figure if the axes are `alone` in it."""
    figure = figure_of(axes)
    available = 72 * figure.get_figwidth() if alone else size_in_points(axes)[0]
    title = wrapped(title, available - 20, MEDIUM) if title else ""
    columns = int(np.clip(available // (26 + 3.9 * max(map(len, labels))), 1, len(labels)))
    style: dict[str, Any] = {
        "ncols": columns,
        "fontsize": SMALL,
        "frameon": False,
        "handletextpad": 0.4,
        "columnspacing": 1.2,
    }
    style |= {"title": title, "title_fontsize": MEDIUM, "scatteryoffsets": [0.5]}
    if alone:
        legend = figure.legend(keys, labels, loc="outside lower center", **style)
        legend.get_title().set_multialignment("center")
        return
    below = 20 + 11 * (1 + axes.get_xlabel().count("\n"))  # height in points of tick labels and axis label
    shifted = axes.transAxes + ScaledTranslation(0, -below / 72, figure.dpi_scale_trans)
    axes.legend(keys, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=shifted, **style)


def square_axes(width: float) -> Axes:
    """Almost square axes of a new figure for a scatter plot, at most 4.6 inches wide."""
    width = min(width, 4.6)
    return Figure(figsize=(width, 0.88 * width + 0.3), layout="constrained").subplots()


def scatter_heads(
    axes: Axes, points: Float[np.ndarray, "head 2"], layers: Int[np.ndarray, " head"], n_layers: int
) -> None:
    """Draw one dot per head in the colour of its layer, and a colour bar of the layers."""
    colours = ListedColormap(colormaps[SEQUENTIAL](np.linspace(0, 0.95, n_layers)))
    norm = BoundaryNorm(np.arange(n_layers + 1) - 0.5, n_layers)
    size = dot_size(len(points))
    axes.scatter(
        points[:, 0], points[:, 1], size, layers, cmap=colours, norm=norm, edgecolors="#303030", linewidths=0.3
    )
    bar = figure_of(axes).colorbar(ScalarMappable(norm, colours), ax=axes, ticks=MaxNLocator(8, integer=True))
    bar.set_label("layer", fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL, which="both")
    bar.ax.minorticks_off()


def label_scatter(axes: Axes, x: str, y: str) -> None:
    """Label the axes of a scatter plot, with lines wrapped to the length of each axis."""
    width, height = size_in_points(axes)
    axes.set_xlabel(wrapped(x, width, MEDIUM), fontsize=MEDIUM, parse_math=False)
    axes.set_ylabel(wrapped(y, height, MEDIUM), fontsize=MEDIUM, parse_math=False)
    axes.tick_params(labelsize=SMALL)
    axes.margins(0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=STEPS))


def dot_size(n: int) -> int:
    """The area of a dot, in square points, in a scatter plot of `n` dots."""
    return 16 if n < 200 else 10


def name_points(axes: Axes, points: Float[np.ndarray, "point 2"], names: Sequence[str]) -> None:
    """Name the outermost points, where a name covers neither a point nor another name.

    Distances are relative to the largest absolute value of each coordinate.
    """
    figure = figure_of(axes)
    lay_out(figure)  # the axes need their final position
    at = axes.transData.transform(points) * 72 / figure.dpi
    frame = Bbox(axes.get_window_extent().get_points() * 72 / figure.dpi).padded(-2)
    scale = np.abs(points).max(axis=0)
    farthest = np.argsort(-np.abs(points / np.where(scale > 0, scale, 1)).max(axis=1), kind="stable")
    taken: list[Bbox] = []
    for i in farthest[:_MAX_NAMED]:
        half = np.array([2.3 * len(names[i]), 3.5])  # half the width and height of a 7 point text, in points
        others = np.delete(at, i, axis=0) - at[i]
        for radius, angle in product((5, 12, 20, 28), np.deg2rad((0, 180, 90, 270, 45, 135, 225, 315))):
            direction = np.array([np.cos(angle), np.sin(angle)])
            shift = direction * radius + np.sign(direction.round(6)) * half
            box = Bbox([at[i] + shift - half, at[i] + shift + half])
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            # A name is next to its own point only, or a leader line that passes no other point connects them.
            leader = radius > 5
            to_line = others[:, None] - direction * np.linspace(0, radius, 12)[:, None]
            clear = np.hypot(*to_line.T).min(initial=9) > 3 if leader else box.padded(6).count_contains(at) == 1
            if inside and clear and not box.padded(2).count_contains(at) and not box.padded(1.5).count_overlaps(taken):
                taken.append(box)
                _name_point(axes, names[i], points[i], shift, leader=leader)
                break


def _name_point(
    axes: Axes, name: str, point: Float[np.ndarray, "2"], shift: Float[np.ndarray, "2"], *, leader: bool
) -> None:
    """Write a name, shifted in points from its point, with a line to the point if `leader` is true."""
    arrow = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2} if leader else None
    text = axes.annotate(
        name,
        tuple(point),
        tuple(shift),
        textcoords="offset points",
        fontsize=SMALL,
        ha="center",
        va="center",
        arrowprops=arrow,
    )
    text.set_in_layout(False)
    text.set_path_effects([HALO])


@checked
def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG (300 dpi), PDF or SVG, depending on the extension of `path`, and return the path.

    Text in a PDF or SVG stays text. The file is written atomically. Saving the same figure again gives the same file,
    because the first save fixes its layout.

    Raises:
        ViewError: if the extension is another one, or the folder does not exist or cannot be written to.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    if kind not in undated:
        raise ViewError(f"The file name {path.name!r} has no known extension; it must end with .png, .pdf or .svg.")
    keep_text: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "negprobe"}
    try:
        with rc_context(keep_text), whole_file(path) as part:
            fix_layout(figure)
            figure.savefig(part, format=kind, dpi=300, metadata=undated[kind])
    except OSError as error:
        raise ViewError(
            f"The figure cannot be written to {path}: {error}. Choose an existing folder that you can write to."
        ) from error
    return path
