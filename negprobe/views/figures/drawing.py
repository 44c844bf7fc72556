"""What the figures are drawn with: sizes, colours, maps, legends, names beside points.

Figures are made without pyplot: nothing is shown twice in a notebook, and no state is shared between threads. They are
meant to be printed: `PAGE` and `COLUMN` are the widths of a page and of one of its two columns, no text is smaller than
`SMALL`, sequential scales are perceptually uniform, diverging ones have a meaningful zero in their middle, and marks
differ in shape as well as in colour. Text is never read as markup, whatever the tokens hold.
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

PAGE, COLUMN = 6.9, 3.3  # inches between the margins of a page, and of one of its two columns
SMALL, MEDIUM, LARGE = 7.0, 8.0, 9.0  # points: ticks and names, what axes and bars show, titles
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
BLUE, ORANGE = "#0072b2", "#d55e00"  # Okabe & Ito: told apart by every kind of colour vision
GREY = "#606060"
HALO = withStroke(linewidth=2, foreground="white")
STEPS = [1, 2, 5, 10]  # of ticks; 2.5 would need a digit more
HATCHED: dict[str, Any] = {"facecolor": "#e4e4e4", "edgecolor": "#a0a0a0", "hatch": "////"}
"""How what is undefined looks."""

CUE_COLOUR = "#a8320a"

_LINE = 1.15  # of a text's size: what a line of it takes
_MOST_NAMED = 10  # points named in a scatter

Limits = tuple[float, float]
Map = Float[np.ndarray, "_ _"]


@dataclass(frozen=True)
class CellNames:
    """What the rows and columns of a map are called.

    Attributes:
        columns: A name each, from the left.
        rows: A name each, from the top; empty if they keep their numbers.
        along: What the columns are, such as "key".
        marked: Rows and columns that stand out: the cue.
    """

    columns: Sequence[str]
    rows: Sequence[str]
    along: str
    marked: tuple[int, ...] = ()


def figure_of(axes: Axes) -> Figure:
    """The whole figure that axes are in, subfigures or not."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # only axes that were taken out of their figure have none
    return figure


def lay_out(figure: Figure) -> None:
    """Give all axes of a figure the size and place that they will have."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    for axes in figure.axes:
        axes.apply_aspect()


def fix_layout(figure: Figure) -> None:
    """Lay out a figure for good: a layout starts from what it last was, and would shift by a hair with every file."""
    lay_out(figure)
    figure.set_layout_engine(None)


def size_in_points(axes: Axes) -> Float[np.ndarray, "2"]:
    """Width and height that axes have now."""
    box = axes.get_window_extent()
    return np.array([box.width, box.height]) * 72 / figure_of(axes).dpi


def largest_size(values: Iterable[float] | Float[np.ndarray, "..."]) -> float:
    """The largest size of a value, 1 if there is none to scale by."""
    every = np.asarray(values if isinstance(values, np.ndarray) else [*values], dtype=float)
    return float(np.nanmax(np.abs(every), initial=0.0)) or 1.0


def symmetric(values: Float[np.ndarray, "..."]) -> Limits:
    """The ends of a scale with zero in the middle that all values fit."""
    return -largest_size(values), largest_size(values)


def number_range(numbers: Iterable[Any]) -> str:
    """The least and the greatest of some whole numbers, or the one that they are."""
    distinct = sorted({int(number) for number in numbers})
    return " to ".join(map(str, dict.fromkeys((distinct[0], distinct[-1]))))


def spearman(points: Float[np.ndarray, "point 2"]) -> str:
    """Spearman's correlation of the two coordinates, "= 0.42", or "undefined"."""
    correlation, _ = rank_correlation(*points.T)
    return "undefined" if np.isnan(correlation) else f"= {correlation:.2f}".replace("-", "−")


def layer_by_head(values: xr.DataArray) -> Float[np.ndarray, "layer head"]:
    """As `[layer, head]` from 0 on; NaN for layers and heads that are not there."""
    if others := [str(dim) for dim in values.dims if dim not in ("layer", "head")]:
        raise ViewError(f"A number for each layer and head is needed; select one {' and one '.join(others)} first.")
    named = values.assign_coords({dim: values[dim] for dim in ("layer", "head")})
    whole = {dim: np.arange(int(values[dim].max()) + 1) for dim in ("layer", "head")}
    return named.reindex(whole).transpose("layer", "head").to_numpy().astype(float)


def draw_map(
    axes: Axes, values: Map, diverging: bool, limits: Limits, aspect: Literal["equal", "auto"] = "equal"
) -> AxesImage:
    """Values as colours, those that are NaN hatched."""
    # What lies under a missing cell: NaN is drawn as nothing.
    axes.patch.set(**HATCHED)
    low, high = limits
    return axes.imshow(values, cmap=DIVERGING if diverging else SEQUENTIAL, vmin=low, vmax=high, aspect=aspect)


def colour_bar(image: AxesImage, axes: Sequence[Axes], label: str, location: Literal["right", "bottom"]) -> None:
    """A bar beside axes that says what their colours mean, with as many numbers as have room beside it."""
    bar = figure_of(axes[0]).colorbar(image, ax=list(axes), location=location, shrink=0.9)
    beside = Bbox.union([one.get_window_extent() for one in axes])
    room = (beside.width if location == "bottom" else beside.height) * 72 / figure_of(axes[0]).dpi
    bar.set_label(wrapped(label, room, MEDIUM), fontsize=MEDIUM, parse_math=False)
    bar.ax.tick_params(labelsize=SMALL)
    bar.locator = _BarLocator(bar.ax)


class _BarLocator(MaxNLocator):
    """Ticks that have room between them, whatever length the bar has when it is drawn."""

    def __init__(self, bar: Axes) -> None:
        super().__init__(steps=STEPS)
        self._bar = bar

    def __call__(self) -> Sequence[float]:
        across, high = size_in_points(self._bar)
        self.set_params(nbins=int(np.clip(across / 32 if across > high else high / 20, 2, 6)))
        return [*super().__call__()]


def check_width(width: float) -> None:
    """Refuse a width, in inches, at which no figure can be drawn.

    Raises:
        ViewError: for less than 2 inches and more than 40, and what is no number.
    """
    if not 2 <= width <= 40:
        raise ViewError(f"A figure cannot be {width} inches wide; give from 2 to 40, such as {PAGE} for a page.")


def cell_axes(shape: tuple[int, ...], width: float, *, beneath: float = 0.0) -> Axes:
    """Axes of a new figure with cells as large as fit, but not larger than they need to be.

    Args:
        shape: How many rows and columns of cells.
        width: Inches the figure is wide at most.
        beneath: Inches that the labels of the columns need, beyond those of a number.
    """
    rows, columns = shape
    across = min(0.4, (width - 1.25) / columns)
    down = min(across, max(0.125, min(0.36, 4.5 / rows)))
    size = (min(width, max(1.25 + across * columns, 3.0)), 1.5 + beneath + max(down * rows, 1.2))
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
    """Layers as rows, with a bar that says what is drawn.

    The scale starts at 0, or has it in the middle, if there are no other `limits`.
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
    """Names beside the rows and columns of maps of one figure, as many as can be read in the size the maps will have.

    A marked name is bold and in another colour, and goes before others. How many have a name is told beneath: of a
    map, or of the figure where it has several.
    """
    figure = figure_of(next(iter(panels)))
    marked = any(names.marked for names in panels.values())
    for _ in range(2):
        # First by the size that the axes have as yet; with these names they get the one that they will have.
        step = max(_step(axes, names) for axes, names in panels.items())
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
    """One row, and one column, in how many has room for its name."""
    lines = size_in_points(axes) / (_LINE * SMALL)
    return int(np.ceil(max(len(names.columns) / lines[0], len(names.rows) / lines[1])))


def _name_ticks(axes: Axes, which: Literal["x", "y"], names: Sequence[str], step: int, marked: tuple[int, ...]) -> None:
    """Every so manieth name along an axis, and the marked ones instead of those that are too near to them."""
    shown: list[int] = []
    for i in [*marked, *range(0, len(names), step)]:
        if all(abs(i - other) >= step for other in shown):
            shown.append(i)
    shown.sort()
    axis = axes.xaxis if which == "x" else axes.yaxis
    upright = which == "x" and max(map(len, names)) > 2
    # A dollar sign is a dollar sign, not the start of a formula.
    axis.set_ticks(shown, [names[i] for i in shown], fontsize=SMALL, rotation=90 if upright else 0, parse_math=False)
    for position, text in zip(shown, axis.get_ticklabels(), strict=True):
        bold = position in marked
        text.set(color=CUE_COLOUR if bold else "black", fontweight="bold" if bold else "normal")


def set_title(axes: Axes, *lines: str, size: float = LARGE) -> None:
    """Lines above axes, broken where they would be longer than the axes are wide."""
    room = size_in_points(axes)[0]
    axes.set_title(wrapped("\n".join(filter(None, lines)), room, size), fontsize=size, parse_math=False)


def wrapped(text: str, points: float, size: float) -> str:
    """Text with lines broken, into few of like length, that are no longer than so many points where words allow.

    Raises:
        ViewError: for a text that no font can show.
    """
    if not is_utf8(text):
        raise ViewError(f"The label {quoted(text)} has half a surrogate pair, which no figure can show; correct it.")
    longest = max(int(points / (0.55 * size)), 8)
    return "\n".join(_evenly(line, longest) for line in text.split("\n"))


def _evenly(line: str, longest: int) -> str:
    """The narrowest way to break a line into as few lines as it needs."""
    broken = [textwrap.wrap(line, characters, break_long_words=False) for characters in range(longest, 0, -1)]
    return "\n".join([lines for lines in broken if len(lines) == len(broken[0])][-1])


def write_numbers(*panels: Axes) -> None:
    """Numbers in the cells of maps, to two figures of each map's largest, if all of them fit the cells now."""
    numbers = [_numbers(axes) for axes in panels]
    for axes, (table, texts) in zip(panels, numbers, strict=True):
        room = size_in_points(axes) / table.shape[::-1]
        if room[0] < 2 + 0.62 * SMALL * max(map(len, texts.values()), default=0) or room[1] < SMALL + 2:
            return
    for axes, (table, texts) in zip(panels, numbers, strict=True):
        for (row, column), text in texts.items():
            red, green, blue, _ = axes.images[0].to_rgba(table[row, column])
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
            number = axes.text(column, row, text, color=ink, fontsize=SMALL, ha="center", va="center")
            number.set_in_layout(False)


def _numbers(axes: Axes) -> tuple[Map, dict[tuple[int, ...], str]]:
    """A map's values, and those that are defined as they are written."""
    table: Map = np.ma.filled(np.ma.asarray(axes.images[0].get_array(), dtype=float), np.nan)
    decimals = int(np.clip(1 - np.floor(np.log10(largest_size(table))), 0, 3))
    texts = {
        at: f"{value.round(decimals) + 0.0:.{decimals}f}".replace("-", "−")
        for at, value in np.ndenumerate(table)
        if not np.isnan(value)
    }
    return table, texts


def thin_ticks(axes: Axes, which: Literal["x", "both"] = "both") -> None:
    """As many whole numbers along the axes as have room."""
    room = size_in_points(axes) / (14, 10)
    for axis, most in zip((axes.xaxis, axes.yaxis)[: 1 if which == "x" else 2], room, strict=False):
        axis.set_major_locator(MaxNLocator(max(int(most), 1), integer=True))


def legend_beneath(axes: Axes, keys: list[Any], labels: list[str], *, alone: bool, title: str = "") -> None:
    """The legend in as few rows as it fits: beneath the axes, or beneath the figure if they are alone in it."""
    figure = figure_of(axes)
    room = 72 * figure.get_figwidth() if alone else size_in_points(axes)[0]
    title = wrapped(title, room - 20, MEDIUM) if title else ""
    columns = int(np.clip(room // (26 + 3.9 * max(map(len, labels))), 1, len(labels)))
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
    below = 20 + 11 * (1 + axes.get_xlabel().count("\n"))  # points that ticks and label take
    shifted = axes.transAxes + ScaledTranslation(0, -below / 72, figure.dpi_scale_trans)
    axes.legend(keys, labels, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=shifted, **style)


def square_axes(width: float) -> Axes:
    """Axes of a new figure for a scatter, which is no better for being wider than it is high."""
    width = min(width, 4.6)
    return Figure(figsize=(width, 0.88 * width + 0.3), layout="constrained").subplots()


def scatter_heads(
    axes: Axes, points: Float[np.ndarray, "head 2"], layers: Int[np.ndarray, " head"], n_layers: int
) -> None:
    """A dot a head in its layer's colour, with a bar that tells the layers."""
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
    """What stands along the axes of a scatter, in lines that are no longer than they are."""
    width, height = size_in_points(axes)
    axes.set_xlabel(wrapped(x, width, MEDIUM), fontsize=MEDIUM, parse_math=False)
    axes.set_ylabel(wrapped(y, height, MEDIUM), fontsize=MEDIUM, parse_math=False)
    axes.tick_params(labelsize=SMALL)
    axes.margins(0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=STEPS))


def dot_size(n: int) -> int:
    """Square points of each of `n` dots in a scatter."""
    return 16 if n < 200 else 10


def name_points(axes: Axes, points: Float[np.ndarray, "point 2"], names: Sequence[str]) -> None:
    """Names beside the points farthest out, where they hide neither a point nor another name."""
    figure = figure_of(axes)
    lay_out(figure)  # now the axes have the place that they will have
    at = axes.transData.transform(points) * 72 / figure.dpi
    frame = Bbox(axes.get_window_extent().get_points() * 72 / figure.dpi).padded(-2)
    scale = np.abs(points).max(axis=0)
    farthest = np.argsort(-np.abs(points / np.where(scale > 0, scale, 1)).max(axis=1), kind="stable")
    taken: list[Bbox] = []
    for i in farthest[:_MOST_NAMED]:
        half = np.array([2.3 * len(names[i]), 3.5])  # half a 7 point text's width and height, in points
        others = np.delete(at, i, axis=0) - at[i]
        for radius, angle in product((5, 12, 20, 28), np.deg2rad((0, 180, 90, 270, 45, 135, 225, 315))):
            direction = np.array([np.cos(angle), np.sin(angle)])
            shift = direction * radius + np.sign(direction.round(6)) * half
            box = Bbox([at[i] + shift - half, at[i] + shift + half])
            inside = frame.contains(*box.min) and frame.contains(*box.max)
            # A name is next to its point and to no other, or tied to it by a line that meets no other.
            leader = radius > 5
            way = others[:, None] - direction * np.linspace(0, radius, 12)[:, None]
            own = np.hypot(*way.T).min(initial=9) > 3 if leader else box.padded(6).count_contains(at) == 1
            if inside and own and not box.padded(2).count_contains(at) and not box.padded(1.5).count_overlaps(taken):
                taken.append(box)
                _name_point(axes, names[i], points[i], shift, leader=leader)
                break


def _name_point(
    axes: Axes, name: str, point: Float[np.ndarray, "2"], shift: Float[np.ndarray, "2"], *, leader: bool
) -> None:
    """A name so many points from its point, tied to it by a line if it is not next to it."""
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
    """Write a figure as PNG (300 dots an inch), PDF or SVG, by the ending of its path, and return the path.

    Text of a PDF or SVG stays text. The file is written as a whole or not at all. The same figure gives the same file:
    its layout stays as it was written first.

    Raises:
        ViewError: for another ending, or a folder that is not there or cannot be written to.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    undated = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    if kind not in undated:
        raise ViewError(f"A figure cannot be written as {path.name!r}; let it end with .png, .pdf or .svg.")
    text_as_text: dict[Any, Any] = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "negprobe"}
    try:
        with rc_context(text_as_text), whole_file(path) as part:
            fix_layout(figure)
            figure.savefig(part, format=kind, dpi=300, metadata=undated[kind])
    except OSError as error:
        raise ViewError(
            f"The figure cannot be written to {path}: {error}. Choose a folder that is there and yours."
        ) from error
    return path
