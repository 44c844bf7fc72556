"""What is drawn is the data: the arrays in the images, their scales and their labels."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from negprobe.attention import MAP_METRICS, Comparison
from negprobe.base.errors import ViewError
from negprobe.statements import Alignment
from negprobe.views import (
    by_layer_and_head,
    difference_map,
    four_heatmaps,
    layer_head_map,
    metric_overview,
    patching_map,
    raw_beside_value_weighted,
)
from negprobe.views.labels import aligned_label, metric_name
from tests.support.sample_comparisons import (
    CUE,
    HEADS,
    LAYERS,
    ORIGINAL,
    attention_of,
    comparison_of,
    metrics_of,
    tokenized,
    with_raw,
)


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


@pytest.fixture
def replaced() -> Comparison:
    """ "now" becomes "not", and "ever" is put in behind it; [CLS] and [SEP] are special."""
    before = (*ORIGINAL[:CUE], "now", *ORIGINAL[CUE:])
    after = (*ORIGINAL[:CUE], "not", "ever", *ORIGINAL[CUE:])
    kept = tuple(i for i in range(len(after)) if i != CUE + 1)
    return replace(
        comparison_of(ORIGINAL),
        original=attention_of(before, 3),
        counterfactual=attention_of(after, 4),
        alignment=Alignment(tuple(range(len(before))), kept, (), (CUE + 1,)),
    )


@pytest.mark.parametrize("measure", ["raw", "norm", "similarity"])
@pytest.mark.parametrize("special_tokens", [True, False])
def test_a_difference_map_is_counterfactual_minus_original_on_the_aligned_tokens(
    replaced: Comparison, measure: str, special_tokens: bool
) -> None:
    axes, bar = difference_map(replaced, 1, 2, measure=measure, special_tokens=special_tokens).axes
    sides = []
    for side in (replaced.original, replaced.counterfactual):
        values = getattr(side, measure)[1, 2].double().numpy().copy()
        if not special_tokens and measure != "similarity":
            for query in range(len(values)):
                values[query] /= sum(
                    values[query, key] for key in range(len(values)) if not side.statement.special[key]
                )
        sides.append(values)
    words = range(len(ORIGINAL) + 1) if special_tokens else range(1, len(ORIGINAL))
    expected = np.zeros((len(words), len(words)))
    for row, q in enumerate(words):
        for column, k in enumerate(words):
            expected[row, column] = sides[1][q + (q > CUE), k + (k > CUE)] - sides[0][q, k]
    np.testing.assert_allclose(drawn(axes), expected, rtol=1e-12, atol=1e-15)
    low, high = axes.images[0].get_clim()
    assert -low == high == abs(drawn(axes)).max()
    tokens = [aligned_label("now", "not") if q == CUE else replaced.original.statement.tokens[q] for q in words]
    assert labels(axes, "x") == labels(axes, "y") == tokens
    title = axes.get_title().replace("\n", " ")
    assert title.startswith("Counterfactual − original Layer 1, head 2")
    assert ("without special tokens" in title) != special_tokens
    assert ("renormalised" in title) == (not special_tokens and measure != "similarity")
    assert bar.get_xlabel().startswith("change of")


@pytest.mark.parametrize("width", [3.3, 6.9])
def test_special_tokens_are_left_out_and_what_is_left_of_a_row_sums_to_one(width: float) -> None:
    attention = attention_of(ORIGINAL)
    raw = attention.raw.clone()
    raw[1, 2, 3] = 0
    raw[1, 2, 3, 0] = 1  # "is" looks at [CLS] alone
    attention = with_raw(attention, raw)
    figure = raw_beside_value_weighted(attention, 1, 2, special_tokens=False, width=width)
    words = range(1, len(ORIGINAL) - 1)
    for axes, measure in zip(maps(figure), ("raw", "norm", "similarity"), strict=True):
        whole = getattr(attention, measure)[1, 2].double().numpy()
        for row, q in enumerate(words):
            left = sum(whole[q, k] for k in words)
            for column, k in enumerate(words):
                value = whole[q, k] if measure == "similarity" else whole[q, k] / left if left else np.nan
                np.testing.assert_allclose(drawn(axes)[row, column], value, rtol=1e-12)
        assert labels(axes) == list(ORIGINAL[1:-1])
        assert axes.patch.get_hatch()
    assert "rows renormalised without special tokens" in figure.get_suptitle().replace("\n", " ")
    raw_bar, norm_bar, cosine_bar = colour_bars(figure)
    assert raw_bar == "attention weight (hatched: no attention left)"
    assert norm_bar == "share of A · ‖v W_O‖ (hatched: no attention left)"
    assert cosine_bar == "cosine of the head's outputs"


def test_with_special_tokens_the_title_says_nothing_of_them(comparison: Comparison) -> None:
    for figure in (raw_beside_value_weighted(comparison.original, 0, 0), four_heatmaps(comparison, 0, 0)):
        assert figure.get_suptitle() == "Layer 0, head 0"


@pytest.mark.parametrize("width", [3.3, 6.9])
def test_four_heatmaps_without_special_tokens_are_renormalised_in_both_statements(
    comparison: Comparison, width: float
) -> None:
    figure = four_heatmaps(comparison, 1, 2, special_tokens=False, width=width)
    by_title = {axes.get_title().replace("\n", " "): axes for axes in maps(figure)}
    for name, side in (("Original", comparison.original), ("Counterfactual", comparison.counterfactual)):
        whole = side.raw[1, 2].double().numpy()[1:-1, 1:-1]
        np.testing.assert_allclose(
            drawn(by_title[f"{name}, attention"]), whole / whole.sum(axis=1, keepdims=True), rtol=1e-12
        )
        similarity = side.similarity[1, 2].double().numpy()[1:-1, 1:-1]
        np.testing.assert_array_equal(drawn(by_title[f"{name}, similarity of outputs"]), similarity)
    difference = by_title["Counterfactual − original, attention"]
    single = maps(difference_map(comparison, 1, 2, special_tokens=False))[0]
    np.testing.assert_array_equal(drawn(difference), drawn(single))
    assert "rows renormalised without special tokens" in figure.get_suptitle().replace("\n", " ")


def test_in_a_column_each_row_of_maps_is_a_statement_named_at_its_left(comparison: Comparison) -> None:
    panels = maps(four_heatmaps(comparison, 0, 0, width=3.3))
    for axes in panels:
        is_left = "similarity" not in axes.get_title()
        tokens = list(ORIGINAL)
        if axes.get_title().startswith("Counterfactual,"):
            tokens.insert(CUE, "not")
        assert labels(axes) == tokens
        assert labels(axes, "y") == (tokens if is_left else [])
        assert (axes.get_ylabel() == "query") == is_left


def test_a_difference_map_of_what_is_not_there_is_an_error(comparison: Comparison) -> None:
    with pytest.raises(ViewError, match="no measure 'z'; choose from raw, norm, similarity"):
        difference_map(comparison, 0, 0, measure="z")
    with pytest.raises(ViewError, match=f"no layer {LAYERS}, head 0"):
        difference_map(comparison, LAYERS, 0)
    with pytest.raises(ViewError, match="No tokens"):
        difference_map(replace(comparison, alignment=Alignment((), (), (), ())), 0, 0)
    with pytest.raises(ViewError, match="No tokens"):
        # [CLS] alone is aligned.
        difference_map(replace(comparison, alignment=Alignment((0,), (0,), (), ())), 0, 0, special_tokens=False)


def test_a_statement_without_words_is_an_error() -> None:
    with pytest.raises(ViewError, match="only special tokens"):
        raw_beside_value_weighted(attention_of(("[CLS]", "[SEP]")), 0, 0, special_tokens=False)
    with pytest.raises(ViewError, match="has no tokens"):
        raw_beside_value_weighted(attention_of(()), 0, 0)


def test_a_negative_value_on_a_scale_from_zero_is_an_error() -> None:
    values = np.array([[-1.0, 2.0]])
    with pytest.raises(ViewError, match="negative"):
        layer_head_map(values, label="effect", diverging=False)
    assert maps(layer_head_map(values, label="effect"))[0].images[0].get_clim() == (-2, 2)
    given = layer_head_map(values, label="effect", diverging=False, limits=(-1.0, 2.0))
    assert maps(given)[0].images[0].get_clim() == (-1, 2)


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


def test_a_metric_is_layer_by_head_in_order_and_the_mean_over_pairs() -> None:
    metrics = metrics_of()
    expected = metrics[MAP_METRICS[0]].values
    shuffled = metrics.isel(layer=[2, 0, 1], head=[3, 1, 0, 2]).transpose("head", "layer")
    np.testing.assert_array_equal(by_layer_and_head(shuffled, MAP_METRICS[0]), expected)
    two = xr.concat([metrics, metrics + 0.5], "pair")
    np.testing.assert_allclose(by_layer_and_head(two, MAP_METRICS[0]), expected + 0.25)
    with pytest.raises(ViewError, match="select one compared"):
        by_layer_and_head(xr.concat([metrics, metrics], "compared"), MAP_METRICS[0])


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
    nothing = xr.full_like(comparison.metrics["attention_pattern_correlation"], np.nan)
    metrics = comparison.metrics.assign(attention_pattern_correlation=nothing)
    figure = metric_overview(metrics)
    figure.draw_without_rendering()
    axes = maps(figure)[2]
    assert np.isnan(drawn(axes)).all()
    assert axes.patch.get_hatch()


def test_metrics_without_one_to_draw_or_without_heads_are_an_error() -> None:
    with pytest.raises(ViewError, match="no metric 'mean_attention_diff' by layer"):
        metric_overview(metrics_of().drop_vars("mean_attention_diff"))
    with pytest.raises(ViewError, match="empty"):
        metric_overview(metrics_of().isel(head=[]))
    with pytest.raises(ViewError, match="by layer and head"):
        metric_overview(metrics_of().isel(layer=0))
    with pytest.raises(ViewError, match="not numeric"):
        metric_overview(metrics_of().astype(str))


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
