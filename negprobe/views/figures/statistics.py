"""Figures of results over many pairs: tests of every head, spread over layers and roles, replication in groups.

`drawing` describes the common style. Layers and heads count from 0. `width` is in inches: 6.9 for a page, 3.3 for one
of its two columns. Scales of effects have zero in the middle, where the model responds to the negation as to any other
word.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from negprobe.base.arguments import checked
from negprobe.base.errors import ViewError
from negprobe.statistics import ALPHA
from negprobe.views.figures.drawing import (
    BLUE,
    GREY,
    HALO,
    HATCHED,
    LARGE,
    MEDIUM,
    ORANGE,
    PAGE,
    SMALL,
    STEPS,
    cell_axes,
    check_width,
    draw_cells,
    figure_of,
    label_scatter,
    layer_by_head,
    legend_below,
    name_points,
    number_range,
    scatter_heads,
    set_title,
    size_in_points,
    spearman,
    square_axes,
    thin_ticks,
)
from negprobe.views.labels import metric_name, metric_unit, role_label, tick_label

_EFFECT = "counterfactual − control"
_N_STRONGEST = 6  # heads shown by group


@checked
def effect_map(tests: xr.Dataset, metric: str, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """A map of the effect of negation on one metric by layer (row) and head (column), with significant effects marked.

    A ring marks `q <= ALPHA` (Benjamini & Hochberg; the expected share of false rings is at most `ALPHA`). A dot marks
    `p_max_t <= ALPHA` (max-T; the probability of any false dot is at most `ALPHA`). The legend gives their numbers.
    Zero is in the middle of the scale.

    Args:
        tests: Dims `metric`, `layer`, `head`; variables `effect`, `n`, `q`, `p_max_t`, as `effect_tests` returns them.
        metric: The metric.
        width: Maximum width of the figure in inches; with few heads it is narrower.
        axes: The axes to draw on; by default those of a new figure.

    Raises:
        ViewError: if the tests lack the metric, a dimension or a variable.
    """
    check_width(width)
    found = _tests_of_metric(tests, metric, ("effect", "n", "q", "p_max_t"))
    table = layer_by_head(found["effect"])
    alone, axes = axes is None, axes or cell_axes(table.shape, width)
    draw_cells(axes, table, f"{_EFFECT}\n{_unit(metric)}".strip(), diverging=True)
    axes.set_xlabel("head", fontsize=MEDIUM)
    n_tested = np.isfinite(layer_by_head(found["p_max_t"])).sum()
    tested = "too few to test" if "untestable" in tests.attrs else f"{n_tested} heads tested"
    set_title(axes, metric_name(metric), f"{tested}, {_pairs(found['n'])}")
    cell = size_in_points(axes) / np.array(table.shape[::-1])
    size = float(np.clip(0.55 * cell.min(), 4, 9))  # points
    for name, criterion, diameter, inside in (
        ("q", f"q ≤ {ALPHA:g}, Benjamini–Hochberg", size, "none"),
        ("p_max_t", f"p ≤ {ALPHA:g}, max-T", 0.45 * size, "black"),
    ):
        layers, heads = np.nonzero(layer_by_head(found[name]) <= ALPHA)
        marks = axes.scatter(heads, layers, diameter**2, facecolors=inside, edgecolors="black", linewidths=0.9)
        marks.set_label(f"{criterion} ({len(layers)})")
        marks.set_path_effects([HALO])
    legend_below(axes, *axes.get_legend_handles_labels(), alone=alone)
    return figure_of(axes)


@checked
def raw_against_norm(
    tests: xr.Dataset,
    raw: str = "attention_to_cue",
    weighted: str = "norm_to_cue",
    *,
    width: float = PAGE,
    axes: Axes | None = None,
) -> Figure:
    """A scatter plot of the effect of negation on attention (x) and on norm-weighted attention (y), one dot per head.

    Colours show layers. The outermost heads are named "layer.head", as far as the names fit; distances are relative to
    the largest effect on each axis. If both metrics have the same unit, a diagonal line shows equal effects: the values
    change nothing.

    Args:
        tests: Dims `metric`, `layer`, `head`; variables `effect`, `n`.
        raw: The metric on the x axis.
        weighted: The metric on the y axis.
        width: Maximum width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure. The names of the heads fit their current size.

    Raises:
        ViewError: if the tests lack a metric, a dimension or a variable, or no head has both effects.
    """
    check_width(width)
    x, y = (layer_by_head(_tests_of_metric(tests, metric, ("effect", "n"))["effect"]) for metric in (raw, weighted))
    n_layers = len(x)
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        raise ViewError(f"No head has an effect on both {raw} and {weighted}, so there is nothing to draw.")
    layers, heads = np.nonzero(both)
    points = np.column_stack([x[both], y[both]])
    alone, axes = axes is None, axes or square_axes(width)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    scatter_heads(axes, points, layers, n_layers)
    label_scatter(axes, *(f"{metric_name(metric)} {_unit(metric)}\n{_EFFECT}" for metric in (raw, weighted)))
    if _unit(raw) and _unit(raw) == _unit(weighted):
        axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle="--", zorder=0, label="equal effects")
        legend_below(axes, *axes.get_legend_handles_labels(), alone=alone)
    n = tests["n"].sel(metric=[raw, weighted])
    axes.set_title(f"Spearman ρ {spearman(points)} over {len(points)} heads\n{_pairs(n)}", fontsize=LARGE)
    name_points(axes, points, [f"{layer}.{head}" for layer, head in zip(layers, heads, strict=True)])
    return figure_of(axes)


@checked
def attention_distance_by_layer(metrics: xr.Dataset, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """The distance of attention and norm-weighted attention by layer: one mark per head, and a line of medians.

    A head's distance is the mean over pairs of `|query - key|` in tokens, weighted by its attention. The reference line
    is the distance of attention that is spread evenly over the words; it is drawn if the metrics contain it.

    Args:
        metrics: Variables `attention_distance` and `norm_distance`, dims `pair`, `layer`, `head`; optionally
            `uniform_distance`, dim `pair`.
        width: Width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure.

    Raises:
        ViewError: if a variable or dimension is missing, or no distance is defined.
    """
    check_width(width)
    kinds = {"attention": "attention_distance", "norm-weighted attention": "norm_distance"}
    _check_dataset(metrics, "metrics", ("pair", "layer", "head"), kinds.values(), "`AttentionProbe.metrics`")
    distances = {kind: layer_by_head(metrics[name].mean("pair")) for kind, name in kinds.items()}
    if not any(np.isfinite(values).any() for values in distances.values()):
        raise ViewError("No head has an attention distance, so there is nothing to draw; use pairs with several words.")
    alone = axes is None
    axes = axes or Figure(figsize=(width, 2.1 + 0.2 * width), layout="constrained").subplots()
    keys: dict[str, Any] = {}
    n_layers, n_heads = next(iter(distances.values())).shape
    step = 0.5 * size_in_points(axes)[0] / n_layers
    styles = ((-0.2, "o", BLUE), (0.2, "^", ORANGE))
    for (kind, values), (shift, marker, colour) in zip(distances.items(), styles, strict=True):
        layers, heads = np.nonzero(np.isfinite(values))
        # Heads are spread horizontally within their layer, so that equal distances do not hide each other.
        spread = 0.24 * ((heads + 0.5) / n_heads - 0.5)
        size = float(np.clip(0.35 * step, 2.2, 4.5)) ** 2
        dots = axes.scatter(
            layers + shift + spread, values[layers, heads], size, colour, marker=marker, alpha=0.65, linewidths=0
        )
        known = np.unique(layers)
        (line,) = axes.plot(known + shift, np.nanmedian(values[known], axis=1), color=colour, linewidth=1.1)
        keys[kind] = (dots, line)
    if "uniform_distance" in metrics:
        uniform = float(metrics["uniform_distance"].mean())
        keys["uniform attention"] = axes.axhline(uniform, color="black", linewidth=0.9, linestyle="--", zorder=0)
    axes.set_xlim(-0.6, n_layers - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", fontsize=MEDIUM)
    axes.set_ylabel("mean |query − key| (tokens)", fontsize=MEDIUM)
    title = f"How far heads attend, {_pairs(xr.DataArray(metrics.sizes['pair']))}\n(marks: heads, lines: their median)"
    axes.set_title(title, fontsize=LARGE)
    axes.tick_params(labelsize=SMALL)
    thin_ticks(axes)
    legend_below(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


@checked
def cue_shares_by_layer(shares: xr.DataArray, *, width: float = PAGE, axes: Axes | None = None) -> Figure:
    """The cue's share of the information flowing into the other words by layer, with one colour per measure.

    Solid lines are the cue's share, dashed lines the share of the neutral words that replace it in the control. Both
    are means over the pairs that have a control; if no pair has one, only solid lines are drawn, over all pairs.

    Args:
        shares: Dims `pair`, `compared`, `measure`, `layer`, as `AttentionProbe.cue_shares` returns them.
        width: Width of the figure in inches.
        axes: The axes to draw on; by default those of a new figure.

    Raises:
        ViewError: if a dimension is missing, or no share is defined.
    """
    check_width(width)
    missing = {"pair", "compared", "measure", "layer"} - set(shares.dims)
    if missing or not bool(shares.notnull().any()):
        what = f"lack the dimension {', '.join(sorted(missing))}" if missing else "are all undefined"
        raise ViewError(f"The shares {what}; give what `AttentionProbe.cue_shares` returns for pairs with a cue.")
    drawn = controlled = shares.dropna("pair", how="any")
    if not controlled.sizes["pair"]:
        drawn = shares.sel(compared=["counterfactual"]).dropna("pair", how="any")
    alone = axes is None
    axes = axes or Figure(figsize=(width, 2.9 + 0.06 * width), layout="constrained").subplots()
    keys: dict[str, Any] = {}
    colours = colormaps["viridis"](np.linspace(0, 0.9, drawn.sizes["measure"]))
    for measure, colour, marker in zip(drawn["measure"].values, colours, "os^Dv", strict=False):
        for compared, style in zip(drawn["compared"].values, ("-", "--"), strict=False):
            values = drawn.sel(measure=measure, compared=compared).mean("pair")
            (line,) = axes.plot(
                drawn["layer"].values, values, style, color=colour, marker=marker, markersize=3.5, linewidth=1.1
            )
            keys.setdefault(metric_name(str(measure)), line)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", fontsize=MEDIUM)
    axes.set_ylabel("share of the inflow to a word", fontsize=MEDIUM)
    dashed = "dashed: the neutral words in its place" if controlled.sizes["pair"] else ""
    set_title(axes, "What the cue contributes", dashed, _pairs(xr.DataArray(drawn.sizes["pair"])))
    axes.tick_params(labelsize=SMALL)
    thin_ticks(axes, "x")
    legend_below(axes, list(keys.values()), list(keys), alone=alone)
    return figure_of(axes)


@checked
def diffusion_by_role(metrics: xr.Dataset, *, width: float = PAGE) -> Figure:
    """Maps of the effect of the cue on the outputs at the other tokens, by layer (row) and role (column).

    The left map shows the relative change of the heads' outputs from the original to the counterfactual, on a scale
    that starts at 0. The right map shows how much larger this change is than that caused by a neutral word, with zero
    in the middle. Both are means over heads, then over the pairs that have a control and a token of the role; the
    column labels give the number of pairs. If no pair has a control, only the left map is drawn, over all pairs. Roles
    that occur in no pair are left out.

    Args:
        metrics: Variable `output_change_by_role`, dims `pair`, `compared`, `role`, `layer`, `head`.
        width: Width of the figure in inches.

    Raises:
        ViewError: if the variable, a dimension or the counterfactual is missing, or no role is defined.
    """
    check_width(width)
    dims = ("pair", "compared", "role", "layer", "head")
    _check_dataset(metrics, "metrics", dims, ["output_change_by_role"], "`AttentionProbe.metrics`")
    change = metrics["output_change_by_role"].mean("head").transpose("compared", "pair", "layer", "role")
    if "counterfactual" not in change["compared"]:
        raise ViewError("The metrics lack the comparison with the counterfactual; keep it when selecting comparisons.")
    counterfactual = change.sel(compared="counterfactual", drop=True)
    panels = {"counterfactual": counterfactual}
    if "control" in change["compared"] and (control := change.sel(compared="control", drop=True)).notnull().any():
        difference = counterfactual - control
        panels = {"counterfactual": counterfactual.where(difference.notnull()), _EFFECT: difference}
    n_pairs = next(iter(panels.values())).notnull().any("layer").sum("pair")
    roles = n_pairs["role"].values[n_pairs.values > 0]
    if not len(roles):
        raise ViewError("No token of any role has an output that can be compared, so there is nothing to draw.")
    names = [f"{role_label(str(role))} ({int(n_pairs.sel(role=role))})" for role in roles]
    n_layers = change.sizes["layer"]
    panel_width = min(0.5 + 0.4 * len(roles), width / 2)
    map_height = n_layers * min(0.28, 4.5 / n_layers, max(0.125, 0.7 * panel_width / len(roles)))
    figure = Figure(figsize=(len(panels) * panel_width, 2 + map_height), layout="constrained")
    figure.suptitle("Change of outputs by role (number of pairs)", fontsize=LARGE)
    for axes, (what, values) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False).flat, panels.items(), strict=True
    ):
        table = values.sel(role=roles).mean("pair").values
        draw_cells(axes, table, metric_unit("output_change"), diverging=what == _EFFECT, bar="bottom")
        axes.set_xticks(range(len(roles)), names, rotation=90, fontsize=SMALL)
        axes.set_title(what.replace(" − ", "\n− " if panel_width < 2 else " − "), fontsize=MEDIUM)
        axes.label_outer()
    return figure


@checked
def effect_by_group(
    replication: xr.Dataset,
    metric: str,
    *,
    heads: Sequence[tuple[int, int]] | None = None,
    overall: xr.Dataset | None = None,
    width: float = PAGE,
) -> Figure:
    """The effect of negation on one metric in each group of pairs with 95 % intervals, one panel per head.

    Groups (cue types, data sets) are rows, labelled with their numbers of pairs; a diamond below shows all pairs
    together. All panels share the same x axis. Their titles give the number of groups in which the effect replicates,
    of those that could be tested. If the strongest heads are chosen by the effects drawn, these effects are larger than
    in new pairs (selection bias).

    Args:
        replication: Dims `group`, `metric`, `layer`, `head`; variables `effect`, `low`, `high`, `n`; dims
            `metric`, `layer`, `head`: `replicated`, `n_groups`. As `statistics.replication` returns them.
        metric: The metric.
        heads: Layer and head of each panel; by default the six heads with the largest mean effect over the pairs of all
            groups.
        overall: The tests of all pairs, dims `metric`, `layer`, `head`, for the diamonds.
        width: Width of the figure in inches.

    Raises:
        ViewError: if a dataset lacks the metric, a dimension or a variable, a head does not exist, or there is no head
            to draw.
    """
    check_width(width)
    variables = ("effect", "low", "high", "n", "replicated", "n_groups")
    _check_dataset(replication, "groups", ("group", "metric", "layer", "head"), variables, "`replication`")
    groups = _selected(replication, metric)
    parts = [groups.isel(group=i) for i in range(groups.sizes["group"])]
    names = [" ".join(map(tick_label, str(name).split())) or "(none)" for name in groups["group"].values]
    if overall is not None:
        parts.append(_tests_of_metric(overall, metric, ("effect", "low", "high", "n")))
        names.append("all")
    chosen = _strongest(groups) if heads is None else list(heads)
    for part in parts:
        _check_heads(part, chosen)
    shown = [[part.sel(layer=layer, head=head) for layer, head in chosen] for part in parts]
    rows = [f"{name} (n = {number_range(part['n'] for part in row)})" for name, row in zip(names, shown, strict=True)]
    n_columns = min(len(chosen), max(1, int((width - 1.2) / 0.9)))
    n_rows = -(-len(chosen) // n_columns)
    figure = Figure(figsize=(width, 1.1 + n_rows * (0.4 + 0.16 * len(rows))), layout="constrained")
    panels = list(figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flat)
    keys: dict[str, Any] = {}
    for i, (axes, (layer, head)) in enumerate(zip(panels, chosen, strict=False)):
        keys |= _draw_forest(axes, [row[i] for row in shown], groups.sizes["group"])
        replicated, tested = (int(groups[name].sel(layer=layer, head=head)) for name in ("replicated", "n_groups"))
        axes.set_title(f"{layer}.{head}: {replicated} of {tested}", fontsize=MEDIUM)
        axes.tick_params(labelsize=SMALL, labelbottom=i + n_columns >= len(chosen))
    for axes in panels[len(chosen) :]:
        axes.remove()
    panels[0].set_yticks(range(len(rows)), rows, parse_math=False)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    panels[0].xaxis.set_major_locator(MaxNLocator(3, steps=STEPS))
    figure.suptitle("layer.head: groups in which the effect replicates", fontsize=LARGE)
    title = f"{metric_name(metric)}, {_EFFECT}\n{_unit(metric)}".strip()
    legend_below(panels[0], list(keys.values()), list(keys), alone=True, title=title)
    return figure


def _draw_forest(axes: Axes, parts: Sequence[xr.Dataset], n_groups: int) -> dict[str, Any]:
    """Draw one effect with its interval per row, groups as circles, all pairs as a diamond; return the legend keys."""
    keys: dict[str, Any] = {}
    table = np.array([[float(part[name]) for name in ("effect", "low", "high")] for part in parts])
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    rows = np.arange(len(parts))
    for which, marker, colour, label in (
        (rows < n_groups, "o", BLUE, "a group, 95 % interval"),
        (rows >= n_groups, "D", "black", "all pairs"),
    ):
        if which.any():
            effect, low, high = table[which].T
            lines = axes.hlines(rows[which], low, high, color=colour, linewidth=1.1)
            (marks,) = axes.plot(effect, rows[which], marker, color=colour, markersize=3.5)
            keys[label] = (lines, marks)
    for row in rows[np.isnan(table[:, 0])]:
        keys["undefined"] = axes.axhspan(row - 0.5, row + 0.5, linewidth=0, **HATCHED)
    return keys


def _check_heads(dataset: xr.Dataset, heads: Sequence[tuple[int, int]]) -> None:
    for layer, head in heads:
        if layer not in dataset["layer"] or head not in dataset["head"]:
            raise ViewError(
                f"There is no layer {layer}, head {head}: the layers are {_span(dataset, 'layer')} and the heads "
                f"{_span(dataset, 'head')}."
            )
    if not heads:
        raise ViewError("heads is empty; give at least one head, or None for the strongest.")


def _span(dataset: xr.Dataset, dim: str) -> str:
    return f"{int(dataset[dim].min())} to {int(dataset[dim].max())}"


def _strongest(groups: xr.Dataset) -> list[tuple[int, int]]:
    """Layer and head of the largest mean effects, with groups weighted by their numbers of pairs."""
    known = groups["n"].where(groups["effect"].notnull())
    effect = layer_by_head(abs((groups["effect"] * known).sum("group") / known.sum("group")))
    if not np.isfinite(effect).any():
        raise ViewError("No head has an effect in any group, so there is nothing to draw.")
    order = np.argsort(-effect, axis=None, kind="stable")[: min(_N_STRONGEST, np.isfinite(effect).sum())]
    return [(int(i) // effect.shape[1], int(i) % effect.shape[1]) for i in order]


def _check_dataset(dataset: xr.Dataset, what: str, dims: Iterable[str], variables: Iterable[str], source: str) -> None:
    """Check that a dataset has these dimensions and variables.

    Raises:
        ViewError: if one is missing, or a dimension is empty.
    """
    lacks = [f"the variable {name}" for name in variables if name not in dataset]
    lacks += [f"the dimension {dim}" for dim in dims if dim not in dataset.dims]
    if lacks:
        raise ViewError(f"The {what} lack {', '.join(lacks)}; give the result of {source}.")
    if empty := [dim for dim in dims if dataset.sizes[dim] == 0]:
        raise ViewError(f"The {what} have no {' and no '.join(empty)}, so there is nothing to draw.")


def _tests_of_metric(tests: xr.Dataset, metric: str, variables: Iterable[str]) -> xr.Dataset:
    _check_dataset(tests, "tests", ("metric", "layer", "head"), variables, "`effect_tests`")
    return _selected(tests, metric)


def _selected(dataset: xr.Dataset, metric: str) -> xr.Dataset:
    known = [str(name) for name in dataset["metric"].values]
    if metric not in known:
        raise ViewError(f"There is no metric {metric!r}; choose from {', '.join(known)}.")
    return dataset.sel(metric=metric)


def _unit(metric: str) -> str:
    """The unit of a metric in brackets; empty for a correlation."""
    unit = metric_unit(metric)
    return f"({unit})" if unit else ""


def _pairs(n: xr.DataArray) -> str:
    """The number of pairs as "n = 40 pairs", or its range over the cells."""
    if not np.isfinite(n).all():
        raise ViewError(
            "The numbers of pairs, `n`, are not all numbers. Take the tests as `effect_tests` returns them."
        )
    return f"n = {number_range(n.values.flat)} pair" + "s" * bool((n != 1).any())
