"""What is drawn of many pairs is the data: images, marks, points, names and the counts beside them."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy import stats

from negprobe.base.errors import ViewError
from negprobe.statements import ROLES
from negprobe.statistics import effect_tests, replication
from negprobe.views import (
    attention_distance_by_layer,
    cue_shares_by_layer,
    diffusion_by_role,
    effect_by_group,
    effect_map,
    raw_against_norm,
)
from negprobe.views.labels import role_label
from tests.support.sample_statistics import GROUPS, metrics_of, replication_of, statistics_of

SIZES = ((4, 4), (6, 12), (12, 12), (24, 16))


def cells(axes: Axes) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def scatters(axes: Axes) -> list[PathCollection]:
    return [collection for collection in axes.collections if isinstance(collection, PathCollection)]


def offsets(collection: PathCollection) -> np.ndarray:
    return np.ma.filled(collection.get_offsets(), np.nan)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colour_bars(figure: Figure, which: str = "y") -> list[str]:
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    return [axes.get_ylabel() if which == "y" else axes.get_xlabel() for axes in bars]


def names(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


@pytest.mark.parametrize("metric", ["attention_to_cue", "attention_pattern_correlation"])
def test_an_effect_map_is_the_effects_of_one_metric_with_zero_in_the_middle(metric: str) -> None:
    tests = statistics_of()
    axes = effect_map(tests, metric).axes[0]
    expected = tests["effect"].sel(metric=metric).values
    np.testing.assert_array_equal(cells(axes), expected)
    low, high = axes.images[0].get_clim()
    assert -low == high == np.nanmax(abs(expected))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
    assert axes.patch.get_hatch()


def test_rings_are_heads_that_survive_benjamini_hochberg_and_dots_those_that_survive_max_t() -> None:
    tests = statistics_of(6, 12)
    figure = effect_map(tests, "attention_to_cue")
    rings, dots = scatters(figure.axes[0])
    for marks, name in ((rings, "q"), (dots, "p_max_t")):
        p = tests[name].sel(metric="attention_to_cue").values
        expected = {(head, layer) for layer, head in np.ndindex(p.shape) if p[layer, head] <= 0.05}
        assert set(map(tuple, offsets(marks).astype(int))) == expected
        assert expected
    assert len(rings.get_facecolor()) == 0 and len(dots.get_facecolor()) == 1
    assert rings.get_sizes() > 2 * dots.get_sizes()


def test_the_legend_of_an_effect_map_says_what_marks_mean_and_counts_them() -> None:
    tests = statistics_of(6, 12)
    q, p = (int((tests[name].sel(metric="norm_to_cue") <= 0.05).sum()) for name in ("q", "p_max_t"))
    figure = effect_map(tests, "norm_to_cue")
    assert legend(figure) == [f"q ≤ 0.05, Benjamini–Hochberg ({q})", f"p ≤ 0.05, max-T ({p})"]
    assert figure.axes[0].get_title() == "norm-weighted attention to the cue\n72 heads tested, n = 38 to 40 pairs"


def test_a_p_value_of_exactly_the_level_is_marked_as_the_tables_count_it() -> None:
    tests = statistics_of()
    tests["q"][:] = tests["p_max_t"][:] = 0.05
    figure = effect_map(tests, "norm_to_cue")
    assert [len(offsets(marks)) for marks in scatters(figure.axes[0])] == [12, 12]


def test_an_effect_map_says_what_is_measured_and_when_cells_are_undefined() -> None:
    bars = [
        colour_bars(effect_map(statistics_of(), metric))[0] for metric in ("attention_to_cue", "mean_attention_diff")
    ]
    assert bars == [
        "counterfactual − control\n(share of a query's weight)",
        "counterfactual − control\n(attention weight)",
    ]
    (undefined,) = colour_bars(effect_map(statistics_of(), "attention_pattern_correlation"))
    assert undefined == "counterfactual − control\n(hatched: undefined)"


@pytest.mark.filterwarnings("error")
def test_effects_too_few_to_test_are_drawn_without_marks() -> None:
    tests = statistics_of(n=3)
    tests["q"][:] = tests["p_max_t"][:] = 1.0
    figure = effect_map(tests.assign_attrs(untestable="With 3 pairs no head can."), "norm_to_cue")
    figure.draw_without_rendering()
    title = "norm-weighted attention to the cue too few to test, n = 1 to 3 pairs"
    assert figure.axes[0].get_title().replace("\n", " ") == title
    assert [len(offsets(marks)) for marks in scatters(figure.axes[0])] == [0, 0]


def test_heads_keep_their_place_when_others_are_left_out_or_dimensions_turned() -> None:
    tests = statistics_of().isel(layer=[0, 2], head=[3, 1]).transpose("head", "layer", "metric")
    drawn = cells(effect_map(tests, "norm_to_cue").axes[0])
    whole = statistics_of()["effect"].sel(metric="norm_to_cue").values
    assert drawn.shape == (3, 4)
    np.testing.assert_array_equal(drawn[[0, 2]][:, [1, 3]], whole[[0, 2]][:, [1, 3]])
    assert np.isfinite(drawn).sum() == 4


def test_each_head_is_a_point_of_raw_against_weighted_effect_in_its_layer_s_colour() -> None:
    tests = statistics_of()
    (points,) = scatters(raw_against_norm(tests).axes[0])
    effect = tests["effect"]
    expected = [
        (*effect.sel(metric=["attention_to_cue", "norm_to_cue"], layer=layer, head=head).values, layer)
        for layer, head in itertools.product(range(3), range(4))
    ]
    np.testing.assert_array_equal(np.column_stack([offsets(points), points.get_array()]), expected)


def test_undefined_heads_are_no_points() -> None:
    tests = statistics_of()
    figure = raw_against_norm(tests, "attention_to_cue", "attention_pattern_correlation")
    (points,) = scatters(figure.axes[0])
    assert len(offsets(points)) == 11
    assert "11 heads" in figure.axes[0].get_title()


def test_the_title_is_spearman_s_correlation() -> None:
    tests = statistics_of(6, 12)
    for weighted in ("norm_to_cue", "mean_attention_diff"):
        x, y = (tests["effect"].sel(metric=name).values.ravel() for name in ("attention_to_cue", weighted))
        rho = f"{stats.spearmanr(x, y).statistic:.2f}".replace("-", "−")
        title = raw_against_norm(tests, weighted=weighted).axes[0].get_title()
        assert title == f"Spearman ρ = {rho} over 72 heads\nn = 38 to 40 pairs"


@pytest.mark.filterwarnings("error")
def test_the_correlation_with_what_is_constant_is_undefined() -> None:
    tests = statistics_of()
    tests["effect"][1] = 0.0
    assert "undefined" in raw_against_norm(tests).axes[0].get_title()


def test_the_diagonal_is_drawn_only_where_both_have_one_unit() -> None:
    assert legend(raw_against_norm(statistics_of())) == ["equal effects"]
    for weighted in ("mean_attention_diff", "attention_pattern_correlation"):
        assert not raw_against_norm(statistics_of(), weighted=weighted).legends


@pytest.mark.sampled(5)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_names_belong_to_their_points_and_overlap_nothing(size: tuple[int, int], crowded: bool, width: float) -> None:
    tests = statistics_of(*size)
    if crowded:
        tests["effect"][:] = np.random.default_rng(4).uniform(-1, 1, tests["effect"].shape)
    figure = raw_against_norm(tests, width=width)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    at = axes.transData.transform(offsets(scatters(axes)[0]))
    effect = tests["effect"].sel(metric=["attention_to_cue", "norm_to_cue"])
    boxes = []
    for name in names(axes):
        layer, head = map(int, name.get_text().split("."))
        np.testing.assert_array_equal(name.xy, effect.sel(layer=layer, head=head).values)
        text = name.get_window_extent() if name.arrow_patch is None else super(Annotation, name).get_window_extent()
        boxes.append(text)
    assert crowded or len(boxes) >= 6
    for box in boxes:
        assert not box.count_contains(at)
        assert axes.bbox.fully_containsx(box.x0) and axes.bbox.fully_containsx(box.x1)
        assert axes.bbox.fully_containsy(box.y0) and axes.bbox.fully_containsy(box.y1)
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


def test_the_heads_farthest_out_are_named_first() -> None:
    tests = statistics_of(6, 12)
    tests["effect"].loc[{"metric": "attention_to_cue", "layer": 5, "head": 7}] = 3.0
    tests["effect"].loc[{"metric": "norm_to_cue", "layer": 2, "head": 11}] = -3.0
    assert {name.get_text() for name in names(raw_against_norm(tests).axes[0])[:2]} == {"5.7", "2.11"}


def test_distances_are_means_over_pairs_with_a_line_through_the_medians() -> None:
    metrics = metrics_of()
    figure = attention_distance_by_layer(metrics)
    axes = figure.axes[0]
    for points, line, name in zip(scatters(axes), axes.lines[:2], ("attention_distance", "norm_distance"), strict=True):
        mean = np.mean(metrics[name].values, axis=0)
        for layer in range(3):
            of_layer = offsets(points)[np.abs(offsets(points)[:, 0] - layer) < 0.5][:, 1]
            np.testing.assert_allclose(of_layer, mean[layer][np.isfinite(mean[layer])], rtol=1e-12)
            np.testing.assert_allclose(line.get_ydata()[layer], np.median(of_layer), rtol=1e-12)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), metrics["uniform_distance"].values.mean(), rtol=1e-12)
    assert legend(figure) == ["attention", "norm-weighted attention", "uniform attention"]
    assert "tokens" in axes.get_ylabel() and "n = 6 pairs" in axes.get_title()


def test_without_the_uniform_distance_there_is_no_reference() -> None:
    figure = attention_distance_by_layer(metrics_of().drop_vars("uniform_distance"))
    assert len(figure.axes[0].lines) == 2
    assert "uniform attention" not in legend(figure)


def test_a_head_s_distance_is_the_mean_of_the_pairs_that_have_it() -> None:
    metrics = metrics_of()
    metrics["attention_distance"][0, 2, 3] = np.nan
    points = offsets(scatters(attention_distance_by_layer(metrics).axes[0])[0])
    np.testing.assert_allclose(points[-1, 1], metrics["attention_distance"].values[1:, 2, 3].mean(), rtol=1e-12)


def test_diffusion_is_the_counterfactual_s_change_and_what_is_beyond_the_control_s() -> None:
    metrics = metrics_of()
    figure = diffusion_by_role(metrics)
    left, right = (axes for axes in figure.axes if axes.images)
    roles = [role for role in ROLES if role != "mask"]
    change = metrics["output_change_by_role"]
    for layer, (column, role) in itertools.product(range(3), enumerate(roles)):
        values = change.sel(role=role, layer=layer).values  # [pair, compared, head]
        pairs = [pair for pair in values if np.isfinite(pair).all()]
        np.testing.assert_allclose(cells(left)[layer, column], np.mean([pair[0] for pair in pairs]), rtol=1e-12)
        beyond = np.mean([pair[0] - pair[1] for pair in pairs])
        np.testing.assert_allclose(cells(right)[layer, column], beyond, rtol=1e-9)
    assert left.images[0].get_clim()[0] == 0
    low, high = right.images[0].get_clim()
    assert -low == high == np.abs(cells(right)).max()
    labels = [label.get_text() for label in left.get_xticklabels()]
    assert labels == [f"{role_label(role)} ({4 if role == 'affected' else 5})" for role in roles]
    assert colour_bars(figure, "x") == ["relative change"] * 2


@pytest.mark.filterwarnings("error")
def test_without_a_control_the_change_is_drawn_alone() -> None:
    metrics = metrics_of()
    without = metrics.copy(deep=True)
    without["output_change_by_role"].loc[{"compared": "control"}] = np.nan
    for dataset in (without, metrics.sel(compared=["counterfactual"])):
        (axes,) = (axes for axes in diffusion_by_role(dataset).axes if axes.images)
        assert axes.get_xticklabels()[0].get_text() == "cue (6)"
        expected = metrics["output_change_by_role"].sel(compared="counterfactual", role="cls").values.mean((0, 2))
        column = [label.get_text().startswith("[CLS]") for label in axes.get_xticklabels()].index(True)
        np.testing.assert_allclose(cells(axes)[:, column], expected, rtol=1e-12)


def rows_of(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """The marks `[x, row]` of a forest, and the intervals `[low, high, row]`."""
    marks = [line.get_xydata() for line in axes.lines if line.get_marker() != "None"]
    segments = [segment for lines in axes.collections for segment in lines.get_segments() if len(segment)]
    return np.concatenate(marks), np.array([(*segment[:, 0], segment[0, 1]) for segment in segments])


def test_a_panel_holds_each_group_s_effect_and_interval_and_then_those_of_all_pairs() -> None:
    groups, overall = replication_of(), statistics_of()
    heads = [(2, 3), (0, 1)]
    panels = effect_by_group(groups, "norm_to_cue", heads=heads, overall=overall).axes
    for axes, (layer, head) in zip(panels, heads, strict=True):
        at = {"metric": "norm_to_cue", "layer": layer, "head": head}
        expected = np.array(
            [[*groups[name].sel(at).values, overall[name].sel(at).values.item()] for name in ("effect", "low", "high")]
        )
        marks, intervals = rows_of(axes)
        np.testing.assert_array_equal(marks[:, 0], expected[0])
        np.testing.assert_array_equal(marks[:, 1], range(6))
        known = np.isfinite(expected[1])
        np.testing.assert_array_equal(intervals[:, :2], expected[1:, known].T)
        replicated = int(groups["replicated"].sel(at))
        assert axes.get_title() == f"{layer}.{head}: {replicated} of {4 if (layer, head) == (0, 1) else 5}"


def test_groups_are_named_with_their_pairs() -> None:
    figure = effect_by_group(replication_of(), "norm_to_cue", heads=[(2, 3), (0, 1)], overall=statistics_of())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    numbered = [f"{group} (n = {n})" for group, n in zip(GROUPS, ("5", "6", "7", "8", "0 to 9"), strict=True)]
    assert labels == [*numbered, "all (n = 38 to 40)"]
    low, high = figure.axes[0].get_ylim()
    assert low > high, "the first group is on top"


def test_a_group_without_the_effect_is_hatched() -> None:
    groups = replication_of()
    groups["low"][-1, :, 0, 1] = groups["high"][-1, :, 0, 1] = np.nan
    figure = effect_by_group(groups, "norm_to_cue", heads=[(0, 1), (2, 3)])
    (patch,) = figure.axes[0].patches
    assert patch.get_hatch() and patch.get_y() == 3.5
    assert not figure.axes[1].patches
    assert legend(figure) == ["a group, 95 % interval", "undefined"]


def test_the_strongest_heads_by_the_mean_of_all_pairs_come_first() -> None:
    groups = replication_of(6, 12)
    groups["n"][0] = 100
    groups["effect"][1] *= 3
    at = groups.sel(metric="attention_to_cue")
    size = {}
    for layer, head in np.ndindex(6, 12):
        effect, n = (at[name].sel(layer=layer, head=head).values for name in ("effect", "n"))
        known = np.isfinite(effect)
        size[layer, head] = abs(np.average(effect[known], weights=n[known]))
    expected = sorted(size, key=lambda head: -size[head])[:6]
    titles = [axes.get_title().split(":")[0] for axes in effect_by_group(groups, "attention_to_cue").axes]
    assert titles == [f"{layer}.{head}" for layer, head in expected]


def test_group_names_are_text_and_none_is_a_name() -> None:
    figure = effect_by_group(replication_of(groups=("", r"$\frac", "no  longer")), "norm_to_cue", heads=[(1, 1)])
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["(none) (n = 5)", r"$\frac (n = 6)", "no longer (n = 7)"]


Draw = Callable[..., Figure]
DRAWN: dict[str, tuple[Draw, Callable[..., xr.Dataset], tuple[str, ...]]] = {
    "effect_map": (effect_map, statistics_of, ("norm_to_cue",)),
    "raw_against_norm": (raw_against_norm, statistics_of, ()),
    "attention_distance_by_layer": (attention_distance_by_layer, metrics_of, ()),
    "diffusion_by_role": (diffusion_by_role, metrics_of, ()),
    "effect_by_group": (effect_by_group, replication_of, ("norm_to_cue",)),
}
NEEDED = {
    "effect_map": ("effect", "n", "q", "p_max_t"),
    "raw_against_norm": ("effect", "n"),
    "attention_distance_by_layer": ("attention_distance", "norm_distance"),
    "diffusion_by_role": ("output_change_by_role",),
    "effect_by_group": ("effect", "low", "high", "n", "replicated", "n_groups"),
}


@pytest.mark.parametrize("figure", ["effect_map", "raw_against_norm", "attention_distance_by_layer"])
def test_they_can_be_drawn_into_given_axes(figure: str) -> None:
    draw, data, args = DRAWN[figure]
    whole = Figure(layout="constrained")
    left, right = whole.subplots(1, 2)
    assert draw(data(), *args, axes=right) is whole
    assert right.collections and right.get_legend() and not whole.legends
    assert not left.collections


@pytest.mark.parametrize("figure", DRAWN)
def test_what_lacks_is_named(figure: str) -> None:
    draw, data, args = DRAWN[figure]
    for name in NEEDED[figure]:
        with pytest.raises(ViewError, match=f"lack the variable {name}"):
            draw(data().drop_vars(name), *args)
    with pytest.raises(ViewError, match="the dimension head"):
        draw(data().isel(head=0), *args)
    with pytest.raises(ViewError, match="no layer"):
        draw(data().isel(layer=slice(0)), *args)


def test_a_metric_or_head_that_is_not_there_is_an_error() -> None:
    for draw, data in ((effect_map, statistics_of), (effect_by_group, replication_of)):
        with pytest.raises(ViewError, match="no metric 'norm'; choose from mean_attention_diff, attention_to_cue"):
            draw(data(), "norm")
    for heads in ([(3, 0)], [(0, 4)], [(-1, 0)]):
        with pytest.raises(ViewError, match=r"layers are 0 to 2 and the heads 0 to 3"):
            effect_by_group(replication_of(), "norm_to_cue", heads=heads)
    with pytest.raises(ViewError, match="at least one"):
        effect_by_group(replication_of(), "norm_to_cue", heads=[])


def test_tests_by_role_ask_for_one_role() -> None:
    by_role = statistics_of().expand_dims(role=["cue", "affected"])
    for draw in (lambda: effect_map(by_role, "norm_to_cue"), lambda: raw_against_norm(by_role)):
        with pytest.raises(ViewError, match="select one role"):
            draw()


@pytest.mark.parametrize("pairs", [4, 24])
def test_they_draw_what_the_tests_of_effects_return(pairs: int) -> None:
    random = np.random.default_rng(3)
    values = random.normal(0.5 * np.eye(3, 4), 0.3, (2, pairs, 3, 4))
    effects = xr.Dataset(
        {
            name: (("pair", "layer", "head"), value)
            for name, value in zip(("attention_to_cue", "norm_to_cue"), values, strict=True)
        }
    )
    tests = effect_tests(effects, n_resamples=199)
    figure = effect_map(tests, "norm_to_cue")
    assert ("too few" in figure.axes[0].get_title()) == (pairs == 4)
    assert {(0, 0), (1, 1), (2, 2)} & set(map(tuple, offsets(scatters(figure.axes[0])[1]))) or pairs == 4
    assert f"n = {pairs} pairs" in raw_against_norm(tests).axes[0].get_title()
    groups = ["not", "never"] * (pairs // 2)
    found = replication(effects, groups, min_pairs=2, n_resamples=199)
    labels = effect_by_group(found, "norm_to_cue", overall=tests).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [
        f"never (n = {pairs // 2})",
        f"not (n = {pairs // 2})",
        f"all (n = {pairs})",
    ]


def test_nothing_defined_is_an_error() -> None:
    tests, metrics, groups = (
        xr.full_like(data(), np.nan, float) for data in (statistics_of, metrics_of, replication_of)
    )
    for draw in (
        lambda: raw_against_norm(tests),
        lambda: attention_distance_by_layer(metrics),
        lambda: diffusion_by_role(metrics),
        lambda: effect_by_group(groups, "norm_to_cue"),
    ):
        with pytest.raises(ViewError, match="nothing to draw"):
            draw()
    with pytest.raises(ViewError, match="counterfactual"):
        diffusion_by_role(metrics_of().sel(compared=["control"]))


def test_pyplot_knows_nothing_of_them() -> None:
    from matplotlib import pyplot

    for draw, data, args in DRAWN.values():
        draw(data(), *args)
    assert pyplot.get_fignums() == []


def test_cue_shares_are_drawn_as_means_over_the_controlled_pairs() -> None:
    random = np.random.default_rng(0)
    values = random.uniform(size=(7, 2, 3, 4))
    values[2, 1] = np.nan
    coords = {"compared": ["counterfactual", "control"], "measure": ["residual", "zeroing", "globenc"]}
    shares = xr.DataArray(values, dims=("pair", "compared", "measure", "layer"), coords=coords | {"layer": range(4)})
    figure = cue_shares_by_layer(shares)
    lines = figure.axes[0].get_lines()
    expected = np.delete(values, 2, axis=0).mean(axis=0)
    for index, line in enumerate(lines):
        np.testing.assert_allclose(line.get_ydata(), expected[index % 2, index // 2])
        assert line.get_linestyle() == ("-", "--")[index % 2]
    assert "n = 6 pairs" in figure.axes[0].get_title()
    alone = cue_shares_by_layer(shares.where(shares["compared"] == "counterfactual"))
    assert len(alone.axes[0].get_lines()) == 3 and "n = 7 pairs" in alone.axes[0].get_title()
    with pytest.raises(ViewError, match="all undefined"):
        cue_shares_by_layer(shares * np.nan)
    with pytest.raises(ViewError, match="lack the dimension layer"):
        cue_shares_by_layer(shares.isel(layer=0))
