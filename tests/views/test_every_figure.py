"""What all figures promise: their width, text that can be read and stays inside, and axes that are drawn into."""

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from negprobe import views
from tests.support.sample_comparisons import comparison_of
from tests.support.sample_patching import averages_of, circuit_of, effects_and_attention, mean_effects_of, readings_of
from tests.support.sample_statistics import metrics_of, replication_of, statistics_of

LONG = ("[CLS]", *(f"token{i}" for i in range(58)), "[SEP]")

Draw = Callable[..., Figure]
random = np.random.default_rng(0)


def shares_of(n_layers: int = 12) -> xr.DataArray:
    measures = ["all_heads_norm", "residual", "zeroing", "rollout", "globenc"]
    coords = {"compared": ["counterfactual", "control"], "measure": measures, "layer": range(n_layers)}
    values = np.random.default_rng(2).uniform(size=(7, 2, len(measures), n_layers))
    return xr.DataArray(values, dims=("pair", *coords), coords=coords)


def edges_of() -> pd.DataFrame:
    parts = circuit_of(12, 12, 20).components[:6]
    rows = [(one, other, 1.0) for one, other in product(parts, parts) if one.layer < other.layer]
    return pd.DataFrame(rows, columns=["sender", "receiver", "score"])


ONE, MANY = comparison_of(LONG[:9], layers=1, heads=1), comparison_of(LONG, layers=1, heads=1)
LABEL = "norm-weighted attention to the cue (share of a query's weight), mean over pairs"
FIGURES: dict[str, Draw] = {
    "raw": lambda **to: views.raw_beside_value_weighted(ONE.original, 0, 0, **to),
    "raw, without special tokens": lambda **to: views.raw_beside_value_weighted(
        MANY.original, 0, 0, special_tokens=False, **to
    ),
    "four, without special tokens": lambda **to: views.four_heatmaps(MANY, 0, 0, special_tokens=False, **to),
    "four, no difference": lambda **to: views.four_heatmaps(ONE, 0, 0, difference=False, **to),
    "difference": lambda **to: views.difference_map(MANY, 0, 0, measure="norm", special_tokens=False, **to),
    "layer by head": lambda **to: views.layer_head_map(random.normal(size=(24, 16)), label=LABEL, **to),
    "overview": lambda **to: views.metric_overview(comparison_of(LONG[:4], at=2, layers=12, heads=12), **to),
    "positions": lambda **to: views.patching_map(mean_effects_of("position", list(LONG)), **to),
    "roles": lambda **to: views.patching_map(mean_effects_of("role", ["cue", "affected", "mask", "cls"], 4), **to),
    "circuit": lambda **to: views.circuit_graph(circuit_of(12, 12, 20), readings_of(12, 12), edges=edges_of(), **to),
    "faithfulness": lambda **to: views.faithfulness_curve(circuit_of(12, 12, 20), **to),
    "causal": lambda **to: views.causal_against_attention(*effects_and_attention(), LABEL, **to),
    "agreement": lambda **to: views.attribution_agreement(*effects_and_attention(), **to),
    "effect by role": lambda **to: views.effect_by_role(averages_of("role", ["cue", "mask", "cls"], 12), **to),
    "effect map": lambda **to: views.effect_map(statistics_of(12, 12), "norm_to_cue", **to),
    "small effect map": lambda **to: views.effect_map(statistics_of(2, 2), "attention_pattern_correlation", **to),
    "raw against norm": lambda **to: views.raw_against_norm(statistics_of(12, 12), **to),
    "distance": lambda **to: views.attention_distance_by_layer(metrics_of(12, 12), **to),
    "cue shares": lambda **to: views.cue_shares_by_layer(shares_of(), **to),
    "diffusion": lambda **to: views.diffusion_by_role(metrics_of(12, 12), **to),
    "groups": lambda **to: views.effect_by_group(
        replication_of(6, 6), "norm_to_cue", overall=statistics_of(6, 6), **to
    ),
}
# Those that hold several maps or panels are whole figures.
INTO_AXES = {
    name: draw
    for name, draw in FIGURES.items()
    if not name.startswith(("raw,", "four", "overview", "effect by", "diffusion", "groups")) and name != "raw"
}


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_a_figure_is_no_wider_than_asked_and_its_text_is_legible_and_inside(
    name: str, width: float, shown: Callable[[Figure], list[Text]]
) -> None:
    figure = FIGURES[name](width=width)
    texts = shown(figure)
    assert texts
    assert figure.get_figwidth() <= width
    assert min(text.get_fontsize() for text in texts) >= 7
    page = figure.bbox.padded(1)
    for text in texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1, f"{text.get_text()!r} is cut at a side"
        assert page.y0 <= box.y0 and box.y1 <= page.y1, f"{text.get_text()!r} is cut above or beneath"
    # Titles and labels; what is smaller stands beside ticks and points.
    boxes = {text: text.get_window_extent().padded(-1) for text in texts if text.get_fontsize() > 7}
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", INTO_AXES)
def test_a_figure_is_drawn_into_given_axes_and_nowhere_else(name: str) -> None:
    whole = Figure(figsize=(6.9, 4), layout="constrained")
    left, right = whole.subplots(1, 2)
    assert INTO_AXES[name](axes=right) is whole
    assert right.images or right.collections or right.lines or right.patches
    assert not (left.images or left.collections or left.lines or left.patches or left.texts or left.get_title())
    np.testing.assert_array_equal(whole.get_size_inches(), (6.9, 4))
