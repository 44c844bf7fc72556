"""What is drawn is the data: the arrays in the images, their scales and their labels."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sample_comparisons import CUE, HEADS, LAYERS, ORIGINAL, attention_of, comparison_of, metrics_of, tokenized

from negprobe.attention import MAP_METRICS, Comparison
from negprobe.errors import ViewError
from negprobe.statements import Alignment
from negprobe.views import (
    by_layer_and_head,
    four_heatmaps,
    layer_head_map,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.labels import aligned_label, metric_name


def maps(figure: Figure) -> list[Axes]:
    """The axes that hold a map, without the colour bars."""
    return [axes for axes in figure.axes if axes.images]


def drawn(axes: Axes) -> np.ndarray:
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def labels(axes: Axes, which: str = "x") -> list[str]:
    axis = axes.xaxis if which == "x" else axes.yaxis
    return [label.get_text() for label in axis.get_ticklabels()]


def colour_bars(figure: Figure) -> list[str]:
    """What the bars say, along whichever side they lie."""
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    return [(axes.get_ylabel() or axes.get_xlabel()).replace("\n", " ") for axes in bars]


def test_raw_stands_beside_norm_and_similarity_of_the_same_head() -> None:
    attention = attention_of(ORIGINAL)
    raw, norm, similarity = maps(raw_beside_value_weighted(attention, 1, 2))
    np.testing.assert_array_equal(drawn(raw), attention.raw[1, 2].double())
    np.testing.assert_array_equal(drawn(norm), attention.norm[1, 2].double())
    np.testing.assert_array_equal(drawn(similarity), attention.similarity[1, 2].double())
    assert raw.images[0].get_clim() == (0, attention.raw[1, 2].max())
    assert norm.images[0].get_clim() == (0, attention.norm[1, 2].max())
    assert similarity.images[0].get_clim() == (-1, 1)
    for axes in (raw, norm, similarity):
        assert labels(axes, "x") == labels(axes, "y") == list(ORIGINAL)


def test_each_colour_bar_says_what_is_measured() -> None:
    bars = colour_bars(raw_beside_value_weighted(attention_of(ORIGINAL), 0, 0))
    assert bars == ["attention weight", "A · ‖v W_O‖ (model units)", "cosine of the head's outputs"]


def test_four_heatmaps_are_original_and_counterfactual_before_and_after_the_values(comparison: Comparison) -> None:
    figure = four_heatmaps(comparison, 2, 3, difference=False)
    sides = [comparison.original, comparison.counterfactual]
    expected = [side.raw[2, 3] for side in sides] + [side.similarity[2, 3] for side in sides]
    for axes, values in zip(maps(figure), expected, strict=True):
        np.testing.assert_array_equal(drawn(axes), values.double())


def test_the_two_statements_share_a_scale(comparison: Comparison) -> None:
    raw_original, raw_counterfactual, *similarity = maps(four_heatmaps(comparison, 2, 3, difference=False))
    largest = max(comparison.original.raw[2, 3].max(), comparison.counterfactual.raw[2, 3].max())
    assert raw_original.images[0].get_clim() == raw_counterfactual.images[0].get_clim() == (0, largest)
    assert [axes.images[0].get_clim() for axes in similarity] == [(-1, 1)] * 2


def test_the_difference_is_taken_on_aligned_tokens_with_zero_in_the_middle(comparison: Comparison) -> None:
    difference = maps(four_heatmaps(comparison, 0, 1))[2]
    expected = np.zeros((len(ORIGINAL), len(ORIGINAL)))
    for q in range(len(ORIGINAL)):
        for k in range(len(ORIGINAL)):
            after = comparison.counterfactual.raw[0, 1, q + (q >= CUE), k + (k >= CUE)]
            expected[q, k] = after.double() - comparison.original.raw[0, 1, q, k].double()
    np.testing.assert_array_equal(drawn(difference), expected)
    low, high = difference.images[0].get_clim()
    assert -low == high == abs(expected).max()


def test_the_cue_is_marked_in_the_counterfactual_alone(comparison: Comparison) -> None:
    original, counterfactual, difference = maps(four_heatmaps(comparison, 0, 0))[:3]
    for ticks in (counterfactual.get_xticklabels(), counterfactual.get_yticklabels()):
        assert [text.get_text() for text in ticks if text.get_fontweight() == "bold"] == ["not"]
        assert len({to_hex(text.get_color()) for text in ticks}) == 2
    for axes in (original, difference):
        assert not [text for text in axes.get_xticklabels() if text.get_fontweight() == "bold"]


def test_an_aligned_cue_is_marked_in_the_difference() -> None:
    original = (*ORIGINAL[:CUE], "now", *ORIGINAL[CUE:])
    everywhere = tuple(range(len(original)))
    aligned = replace(
        comparison_of(ORIGINAL), original=attention_of(original), alignment=Alignment(everywhere, everywhere, (), ())
    )
    difference = maps(four_heatmaps(aligned, 0, 0))[2]
    bold = [text.get_text() for text in difference.get_xticklabels() if text.get_fontweight() == "bold"]
    assert bold == [aligned_label("now", "not")]


def test_of_many_tokens_some_are_named_and_the_cue_always_is() -> None:
    n, cue = 128, 71
    figure = four_heatmaps(comparison_of([f"w{i}" for i in range(n)], at=cue), 0, 0)
    counterfactual = maps(figure)[1]
    names = labels(counterfactual)
    assert "not" in names
    assert 10 < len(names) < n
    step = np.bincount(np.diff(counterfactual.get_xticks()).astype(int)).argmax()
    assert f"1 in {step} named" in figure.get_supxlabel()
    boxes = [text.get_window_extent() for text in counterfactual.get_xticklabels()]
    assert all(one.x1 <= next_.x0 + 1 for one, next_ in pairwise(boxes)), "names lie on each other"
    assert all(
        name == "not" or int(name[1:]) == at - (at > cue)
        for name, at in zip(names, counterfactual.get_xticks(), strict=True)
    )


def test_tokens_are_text_and_never_formulas() -> None:
    tokens = ("[CLS]", r"$\frac{1}$", "_^$", "</script>", "x" * 200, "[SEP]")
    figure = raw_beside_value_weighted(attention_of(tokens), 0, 0)
    figure.draw_without_rendering()
    assert labels(maps(figure)[0])[1:3] == [r"$\frac{1}$", "_^$"]


def test_a_layer_or_head_that_is_not_there_is_an_error(comparison: Comparison) -> None:
    for layer, head in ((LAYERS, 0), (0, HEADS), (-1, 0)):
        with pytest.raises(ViewError, match=f"no layer {layer}, head {head}"):
            four_heatmaps(comparison, layer, head)


def test_a_map_that_does_not_fit_its_tokens_is_an_error() -> None:
    attention = attention_of(ORIGINAL)
    with pytest.raises(ViewError, match="5 tokens"):
        raw_beside_value_weighted(replace(attention, statement=tokenized(ORIGINAL[:5])), 0, 0)


def test_a_difference_needs_aligned_tokens(comparison: Comparison) -> None:
    with pytest.raises(ViewError, match="No tokens"):
        four_heatmaps(replace(comparison, alignment=Alignment((), (), (), ())), 0, 0)


def test_a_layer_head_map_draws_its_numbers_and_writes_them() -> None:
    values = np.array([[0.25, 0.5, 0.75], [1.0, np.nan, 0.0]])
    figure = layer_head_map(values, label="effect")
    (axes,) = maps(figure)
    np.testing.assert_array_equal(drawn(axes), values)
    assert axes.images[0].get_clim() == (0, 1)
    written = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "0.2", (1, 0): "0.5", (2, 0): "0.8", (0, 1): "1.0", (2, 1): "0.0"}
    assert "undefined" in colour_bars(figure)[0]


def test_a_diverging_map_has_zero_in_the_middle() -> None:
    figure = layer_head_map(np.array([[-0.2, 0.5]]), label="effect", diverging=True)
    assert maps(figure)[0].images[0].get_clim() == (-0.5, 0.5)


def test_cells_too_small_for_numbers_have_none() -> None:
    assert not maps(layer_head_map(np.ones((4, 100)), label="effect"))[0].texts


def test_a_map_can_be_drawn_into_given_axes() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert layer_head_map(np.ones((2, 2)), label="effect", axes=right) is figure
    assert right.images and not left.images


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros(3), np.zeros((1, 2, 3))])
def test_what_is_not_a_table_is_an_error(values: np.ndarray) -> None:
    with pytest.raises(ViewError, match="layer and head"):
        layer_head_map(values, label="effect")


def test_a_column_becomes_layer_by_head_whatever_the_order_of_rows() -> None:
    metrics = metrics_of()
    table = by_layer_and_head(metrics.sample(frac=1, random_state=0), MAP_METRICS[0])
    for row in metrics.itertuples():
        assert table[row.layer, row.head] == row.max_attention_diff


def test_the_overview_shows_the_four_metrics(comparison: Comparison) -> None:
    metrics = comparison.metrics
    for overview in (metric_overview(comparison), metric_overview(metrics)):
        for axes, name in zip(maps(overview), MAP_METRICS, strict=True):
            np.testing.assert_array_equal(drawn(axes), by_layer_and_head(metrics, name))
        titles = [axes.get_title().replace("\n", " ") for axes in maps(overview)]
        assert titles == [metric_name(name) for name in MAP_METRICS]
        assert colour_bars(overview) == ["attention weight"] * 2 + ["Pearson correlation"] * 2
        assert [axes.images[0].get_clim()[1] for axes in maps(overview)][2:] == [1, 1]


@pytest.mark.filterwarnings("error")
def test_undefined_metrics_are_hatched_and_not_a_crash(comparison: Comparison) -> None:
    metrics = comparison.metrics.assign(attention_pattern_correlation=np.nan)
    figure = metric_overview(metrics)
    figure.draw_without_rendering()
    axes = maps(figure)[2]
    assert np.isnan(drawn(axes)).all()
    assert axes.patch.get_hatch()


def test_a_table_without_a_metric_or_without_rows_is_an_error() -> None:
    with pytest.raises(ViewError, match="no column mean_attention_diff"):
        metric_overview(metrics_of().drop(columns="mean_attention_diff"))
    with pytest.raises(ViewError, match="empty"):
        metric_overview(metrics_of().head(0))


def patched(*dims: str, **coords: object) -> xr.DataArray:
    values = np.array([[-0.1, 0.5, np.nan, 0.8], [0.2, 0.4, np.nan, 1.0]])
    attrs = {"site": "resid_pre", "direction": "denoising"}
    return xr.DataArray(values if dims[0] == "layer" else values.T, dims=dims, coords=coords, attrs=attrs)


def test_a_patching_map_is_layer_by_token_with_zero_in_the_middle() -> None:
    tokens = ["[CLS]", "not", "open", "[SEP]"]
    effect = patched("layer", "position", layer=[0, 1], position=range(4), token=("position", tokens))
    figure = patching_map(effect)
    (axes,) = maps(figure)
    np.testing.assert_array_equal(drawn(axes), effect.values)
    assert labels(axes) == tokens
    assert axes.images[0].get_clim() == (-1, 1)
    title = "Swapping the residual stream into the layer in the counterfactual (denoising)"
    assert axes.get_title().replace("\n", " ") == title
    assert len(axes.texts) == 6


def test_a_patching_map_takes_its_dimensions_in_either_order() -> None:
    roles = ["cue", "affected", "mask", "other"]
    (axes,) = maps(patching_map(patched("role", "layer", role=roles)))
    np.testing.assert_array_equal(drawn(axes), patched("layer", "role").values)
    assert labels(axes) == ["cue", "affected", "[MASK]", "other"]


def test_a_patching_map_of_many_pairs_asks_for_one() -> None:
    with pytest.raises(ViewError, match="average over pairs"):
        patching_map(patched("layer", "head").expand_dims(pair=3))
    with pytest.raises(ViewError, match="layer and head"):
        patching_map(patched("layer", "head")[:, :0])


def test_pyplot_knows_nothing_of_the_figures(comparison: Comparison) -> None:
    from matplotlib import pyplot

    four_heatmaps(comparison, 0, 0)
    metric_overview(comparison)
    assert pyplot.get_fignums() == []
