"""What is drawn of circuits and effects is the data, and the sentences about heads have their numbers."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Annotation
from scipy import stats

from negprobe.attention import HeadReading, Reading, ReadingChange
from negprobe.base.errors import InputError, ViewError
from negprobe.statements import ROLES
from negprobe.views import (
    attribution_agreement,
    causal_against_attention,
    circuit_graph,
    effect_by_role,
    faithfulness_curve,
    head_sentence,
)
from negprobe.views.labels import role_label
from tests.support.sample_patching import Circuit, Component, averages_of, by_head, circuit_of, readings_of


def scatters(axes: Axes) -> dict[str, PathCollection]:
    found = [collection for collection in axes.collections if isinstance(collection, PathCollection)]
    return {str(collection.get_label()): collection for collection in found}


def offsets(collection: PathCollection) -> np.ndarray:
    return np.ma.filled(collection.get_offsets(), np.nan)


def names(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def part_at(circuit: Circuit, axes: Axes) -> dict[Component, tuple[float, float]]:
    """Where each component of the circuit stands, by the name beneath it."""
    return {part: names(axes)[i].xy for i, part in enumerate(circuit.components)}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("n_layers", "n_heads", "size"), [(2, 3, 5), (12, 12, 20), (6, 12, 78), (4, 4, 0)])
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_every_component_is_a_mark_and_those_of_the_circuit_have_their_score_and_name(n_layers, n_heads, size, width):
    circuit = circuit_of(n_layers, n_heads, size)
    figure = circuit_graph(circuit, width=width)
    axes = figure.axes[0]
    marks = scatters(axes)
    assert sum(len(offsets(marks[kind])) for kind in marks) == len(circuit.scores)
    assert [name.get_text() for name in names(axes)] == [str(part) for part in circuit.components]
    places = part_at(circuit, axes)
    for kind, is_head in (("head", True), ("MLP", False)):
        inside = [part for part in circuit.components if (part.head is not None) == is_head]
        np.testing.assert_allclose(offsets(marks[kind]), np.array([places[part] for part in inside]).reshape(-1, 2))
        np.testing.assert_array_equal(marks[kind].get_array(), [circuit.scores[part] for part in inside])
        n_of_kind = n_layers * (n_heads if is_head else 1)
        assert len(offsets(marks[f"{kind} outside"])) == n_of_kind - len(inside)
        low, high = marks[kind].get_clim()
        assert -low == high == max((abs(circuit.scores[part]) for part in circuit.components), default=1.0)
        order = np.argsort([abs(circuit.scores[part]) for part in inside])
        assert (np.diff(marks[kind].get_sizes()[order]) >= 0).all()
    assert axes.get_title() == f"{size} of {n_layers * (n_heads + 1)} components\na_model_$1"
    figure.draw_without_rendering()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("width", [3.3, 6.9])
@pytest.mark.parametrize("told", [True, False])
def test_layers_go_up_heads_stand_in_order_and_mlps_to_their_right(width, told):
    circuit = circuit_of(5, 12, 65)
    axes = circuit_graph(circuit, readings_of(5, 12) if told else None, width=width).axes[0]
    places = part_at(circuit, axes)
    for one, other in itertools.combinations(places, 2):
        (x, y), (right, up) = places[one], places[other]
        if one.layer != other.layer:
            assert (one.layer < other.layer) == (y < up)
        elif one.head is not None and other.head is not None:
            # As words on a page: to the right, or on a line beneath.
            assert (one.head < other.head) == ((-y, x) < (-up, right))
        else:
            assert (one.head is None) == (x > right)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list("01234")


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("n_layers", "n_heads", "size"), [(4, 4, 20), (6, 12, 30), (8, 12, 104)])
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_names_overlap_no_name_and_no_mark_and_stay_inside(n_layers, n_heads, size, width):
    circuit = circuit_of(n_layers, n_heads, size)
    figure = circuit_graph(circuit, readings_of(n_layers, n_heads), width=width)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [name.get_window_extent() for name in names(axes)]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    marks = axes.transData.transform(np.concatenate([offsets(marks) for marks in scatters(axes).values()]))
    assert not any(box.count_contains(marks) for box in boxes)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= axes.bbox.y0 - 1 for box in boxes)


def test_the_legend_counts_what_is_inside_and_outside_and_the_bar_says_what_scores_are():
    circuit = circuit_of(3, 4, 6)
    figure = circuit_graph(circuit)
    heads = sum(part.head is not None for part in circuit.components)
    assert 0 < heads < 6
    assert legend(figure) == [f"head ({heads})", f"MLP ({6 - heads})", "outside (9)"]
    assert figure.axes[1].get_xlabel() == "effect of ablating it alone\nswap ablation in the counterfactual (denoising)"


def test_of_a_circuit_of_heads_alone_the_legend_names_no_mlps():
    circuit = circuit_of(3, 4, 15)
    heads = {part: score for part, score in circuit.scores.items() if part.head is not None}
    figure = circuit_graph(replace(circuit, scores=heads, components=tuple(heads)[:3]))
    assert legend(figure) == ["head (3)", "outside (9)"]


def test_heads_and_mlps_differ_in_shape():
    marks = scatters(circuit_graph(circuit_of(3, 4, 15)).axes[0])
    assert len(marks["head"].get_paths()[0].vertices) != len(marks["MLP"].get_paths()[0].vertices)


def test_beneath_a_head_stands_what_it_reads_and_beneath_an_mlp_only_its_name():
    circuit = circuit_of(3, 4, 15)
    readings = readings_of(3, 4)
    texts = names(circuit_graph(circuit, readings).axes[0])
    roles = readings["key"].values
    for part, text in zip(circuit.components, texts, strict=True):
        assert text.get_text() == (
            str(part) if part.head is None else f"{part}\n[MASK] → {role_label(roles[part.layer + part.head])}"
        )


def test_beneath_a_head_stands_what_changes_if_it_is_much():
    circuit = circuit_of(3, 4, 15)
    readings = readings_of(3, 4)
    where = {"base": "control", "measure": "norm", "query": "affected", "key": "cue"}
    readings["change"].loc[where | {"layer": 0, "head": 3}] = 0.8
    readings["change"].loc[where | {"layer": 2, "head": 1}] = -0.25
    readings["change"].loc[where | {"layer": 2, "head": 2}] = 0.24
    told = {text.get_text().split("\n")[0]: text.get_text() for text in names(circuit_graph(circuit, readings).axes[0])}
    assert told["0.3"].split("\n")[1:] == [f"[MASK] → {role_label(ROLES[3])}", "affected → cue +0.80"]
    assert told["2.1"].split("\n")[2:] == ["affected → cue −0.25"]
    assert [name for name, text in told.items() if text.count("\n") == 2] == [
        str(part) for part in circuit.components if str(part) in ("0.3", "2.1")
    ]


def test_without_edges_no_line_is_drawn_and_with_them_each_is_one():
    circuit = circuit_of(3, 4, 15)
    assert not [patch for patch in circuit_graph(circuit).axes[0].patches if isinstance(patch, FancyArrowPatch)]
    rows = [("0.1", "mlp 2", 0.5), (Component(1, 2), Component(2, 0), -2.0), (Component(0, None), "1.3", 1.0)]
    edges = pd.DataFrame(rows, columns=["sender", "receiver", "score"])
    figure = circuit_graph(circuit, edges=edges)
    axes = figure.axes[0]
    places = {str(part): place for part, place in part_at(circuit, axes).items()}
    lines = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    for line, (sender, receiver, _) in zip(lines, rows, strict=True):
        assert line._posA_posB == [places[str(sender)], places[str(receiver)]]
    widths = [line.get_linewidth() for line in lines]
    assert widths[0] < widths[2] < widths[1]
    colours = [to_rgba(line.get_edgecolor()) for line in lines]
    assert colours[0] == colours[2] != colours[1]
    assert {"edge, score ≥ 0", "edge, score < 0"} <= set(legend(figure))


def test_a_graph_can_be_drawn_into_given_axes():
    figure = Figure(figsize=(6.9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    assert circuit_graph(circuit_of(3, 4, 5), axes=right) is figure
    assert len(names(right)) == 5 and not left.texts
    assert right.get_legend() is not None and not figure.legends
    np.testing.assert_array_equal(figure.get_size_inches(), (6.9, 4))


def test_a_graph_of_what_is_not_there_is_an_error():
    circuit = circuit_of(3, 4, 5)
    with pytest.raises(ViewError, match="has no scores"):
        circuit_graph(replace(circuit, scores={}))
    with pytest.raises(ViewError, match=r"no score for 7\.1"):
        circuit_graph(replace(circuit, components=(Component(7, 1),)))
    with pytest.raises(ViewError, match="no column score"):
        circuit_graph(circuit, edges=pd.DataFrame({"sender": ["0.1"], "receiver": ["1.1"]}))
    with pytest.raises(ViewError, match="no score: logits"):
        circuit_graph(circuit, edges=pd.DataFrame({"sender": ["0.1"], "receiver": ["logits"], "score": [1.0]}))
    with pytest.raises(InputError, match="no head"):
        circuit_graph(circuit, readings_of(1, 1))


@pytest.mark.parametrize(("n_layers", "n_heads", "scale", "first"), [(4, 4, "linear", 0), (12, 12, "log", 1)])
def test_a_faithfulness_curve_is_the_curve_its_band_and_the_circuit(n_layers, n_heads, scale, first):
    circuit = circuit_of(n_layers, n_heads, 6)
    figure = faithfulness_curve(circuit)
    axes = figure.axes[0]
    curve = circuit.curve.iloc[first:]
    line, one, threshold, random, chosen = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), curve[["share", "faithfulness"]])
    band = axes.collections[0].get_paths()[0].vertices
    for share, low, high in curve[["share", "low", "high"]].values:
        assert {low, high} <= set(band[band[:, 0] == share, 1])
    assert (list(one.get_ydata()), list(threshold.get_ydata())) == ([1, 1], [0.85, 0.85])
    n = n_layers * (n_heads + 1)
    np.testing.assert_array_equal(chosen.get_xydata(), [[6 / n, 0.875]])
    np.testing.assert_array_equal(random.get_xydata(), [[6 / n, 0.125]])
    (interval,) = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    np.testing.assert_array_equal(interval.get_segments(), [[(6 / n, 0.75), (6 / n, 0.9375)]])
    assert axes.get_xscale() == scale
    assert axes.get_title() == "CPR 0.81, CMD 0.25\nswap ablation in the counterfactual (denoising)"
    assert legend(figure) == [
        "best-ranked, 95 % interval",
        "whole model",
        "threshold 0.85",
        "random circuits",
        f"circuit (6 of {n})",
    ]


def test_a_curve_without_rows_or_columns_is_an_error():
    circuit = circuit_of(2, 2, 2)
    with pytest.raises(ViewError, match="curve is empty"):
        faithfulness_curve(replace(circuit, curve=circuit.curve.iloc[:0]))
    with pytest.raises(ViewError, match="lacks the column low"):
        faithfulness_curve(replace(circuit, curve=circuit.curve.drop(columns="low")))


@pytest.fixture
def effects() -> xr.DataArray:
    rng = np.random.default_rng(2)
    n_pairs = ("layer", "head"), rng.integers(35, 41, (3, 4))
    return by_head(rng.normal(size=(3, 4)), n_pairs=n_pairs).assign_attrs(direction="denoising")


@pytest.fixture
def attention() -> xr.DataArray:
    return by_head(np.random.default_rng(3).uniform(size=(3, 4)))


def test_each_head_is_a_point_of_attention_against_effect_in_its_layer_s_colour(effects, attention):
    figure = causal_against_attention(effects, attention.transpose("head", "layer"), "attention to the cue")
    axes = figure.axes[0]
    (points,) = scatters(axes).values()
    expected = [
        (float(attention.sel(layer=layer, head=head)), float(effects.sel(layer=layer, head=head)), layer)
        for layer, head in itertools.product(range(3), range(4))
    ]
    np.testing.assert_array_equal(np.column_stack([offsets(points), points.get_array()]), expected)
    assert axes.get_xlabel() == "attention to the cue"
    assert axes.get_ylabel() == "effect of swapping its output\nin the counterfactual (denoising)"
    rho = f"{stats.spearmanr(attention.values.ravel(), effects.values.ravel()).statistic:.2f}".replace("-", "−")
    n = effects["n_pairs"].values
    assert axes.get_title() == f"Spearman ρ = {rho} over 12 heads\nn = {n.min()} to {n.max()} pairs"


def test_the_heads_named_are_those_far_out(effects, attention):
    effects.loc[{"layer": 2, "head": 1}] = -9.0
    attention.loc[{"layer": 0, "head": 3}] = 8.0
    axes = causal_against_attention(effects, attention, "attention").axes[0]
    named = {name.get_text(): name.xy for name in names(axes)}
    assert {"2.1", "0.3"} <= set(named)
    for name, (x, y) in named.items():
        layer, head = map(int, name.split("."))
        assert (x, y) == (attention.values[layer, head], effects.values[layer, head])


def test_heads_without_an_effect_are_no_points_and_others_keep_their_names(effects, attention):
    effects[0, 0] = np.nan
    axes = causal_against_attention(effects.isel(layer=[0, 2]), attention, "attention").axes[0]
    (points,) = scatters(axes).values()
    np.testing.assert_array_equal(points.get_array(), [0, 0, 0, 2, 2, 2, 2])
    assert {name.get_text().split(".")[0] for name in names(axes)} <= {"0", "2"}
    assert "over 7 heads" in axes.get_title()


@pytest.mark.filterwarnings("error")
def test_the_correlation_with_attention_that_is_constant_is_undefined(effects, attention):
    assert "undefined" in causal_against_attention(effects, attention * 0, "attention").axes[0].get_title()


def test_a_long_label_is_broken_so_that_it_stays_inside_the_figure(effects, attention):
    label = "norm-weighted attention to the cue (share of a query's weight), mean over pairs"
    figure = causal_against_attention(effects, attention, label, width=3.3)
    figure.draw_without_rendering()
    box = figure.axes[0].xaxis.label.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert figure.axes[0].get_xlabel().replace("\n", " ") == label


def test_effects_with_other_dimensions_or_without_a_head_in_common_are_errors(effects, attention):
    with pytest.raises(ViewError, match="effects need the dimensions layer and head"):
        causal_against_attention(effects.expand_dims("pair"), attention, "attention")
    with pytest.raises(ViewError, match="No head has both"):
        causal_against_attention(effects * np.nan, attention, "attention")


@pytest.mark.parametrize(
    ("by", "groups", "panel", "along"),
    [("role", ["mask", "cue", "cls"], "role", "layer"), ("head", [0, 1, 2, 3], "layer", "head")],
)
@pytest.mark.parametrize("width", [3.3, 6.9])
def test_effects_of_a_sweep_are_a_panel_a_role_or_layer_with_intervals(by, groups, panel, along, width):
    table = averages_of(by, groups, 6)
    shuffled = pd.concat([table[table["layer"] == 0], table[table["layer"] > 0].sample(frac=1, random_state=0)])
    figure = effect_by_role(shuffled, width=width)
    panels = groups if panel == "role" else range(6)
    for axes, name in zip(figure.axes, panels, strict=True):
        rows = table[table[panel] == name]
        zero, effects = axes.lines
        assert list(zero.get_ydata()) == [0, 0]
        np.testing.assert_array_equal(effects.get_xydata(), rows[[along, "effect"]])
        # Heads of a layer do not follow each other.
        assert (effects.get_linestyle() == "-") == (along == "layer")
        (intervals,) = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
        drawn = np.array(intervals.get_segments())
        np.testing.assert_array_equal(drawn[:, 0], rows[[along, "low"]])
        np.testing.assert_array_equal(drawn[:, 1], rows[[along, "high"]])
        what = role_label(name) if panel == "role" else f"layer {name}"
        assert axes.get_title() == f"{what} (n = {rows['n_pairs'].min()} to {rows['n_pairs'].max()})"
    assert figure.get_supxlabel() == along and "95 %" in figure.get_supylabel()


@pytest.mark.parametrize(("by", "groups"), [("role", ["mask", "cue", "cls"]), ("head", [0, 1, 2, 3])])
def test_averages_as_a_dataset_are_drawn_as_their_table_is(by, groups):
    table = averages_of(by, groups, 6)
    shape = {"layer": range(6), by: groups}
    names = ["effect", "low", "high", "n_pairs"]
    averages = xr.Dataset({name: ((*shape,), table[name].to_numpy().reshape(6, -1)) for name in names}, coords=shape)
    for one, other in zip(effect_by_role(averages).axes, effect_by_role(table).axes, strict=True):
        assert one.get_title() == other.get_title()
        for mine, theirs in zip(one.lines, other.lines, strict=True):
            np.testing.assert_array_equal(mine.get_xydata(), theirs.get_xydata())


def test_parts_that_no_pair_has_are_left_out():
    table = averages_of("role", ["cue", "mask"], 3)
    table.loc[table["role"] == "cue", ["effect", "low", "high"]] = np.nan
    assert [axes.get_title().split()[0] for axes in effect_by_role(table).axes] == ["[MASK]"]


def test_averages_that_cannot_be_drawn_are_errors():
    table = averages_of("role", ["cue"], 2)
    with pytest.raises(ViewError, match="lacks the column n_pairs"):
        effect_by_role(table.drop(columns="n_pairs"))
    with pytest.raises(ViewError, match="lacks the column head"):
        effect_by_role(table.rename(columns={"role": "position"}))
    with pytest.raises(ViewError, match="several rows for the same role and layer"):
        effect_by_role(pd.concat([table, table]))
    with pytest.raises(ViewError, match="No effect"):
        effect_by_role(table.assign(effect=np.nan))
    with pytest.raises(ViewError, match="lacks the column"):
        effect_by_role(xr.Dataset())


def test_agreement_is_the_estimate_against_the_exact_effect_with_the_diagonal(effects):
    estimated = (effects + np.random.default_rng(7).normal(0, 0.3, effects.shape)).transpose("head", "layer")
    estimated[{"layer": 1, "head": 2}] = np.nan
    axes = attribution_agreement(effects, estimated).axes[0]
    (points,) = scatters(axes).values()
    expected = np.array(
        [
            (effects.sel(layer=layer, head=head), estimated.sel(layer=layer, head=head))
            for layer, head in itertools.product(range(3), range(4))
            if (layer, head) != (1, 2)
        ]
    )
    np.testing.assert_array_equal(offsets(points), expected)
    (diagonal,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert diagonal.get_slope() == 1 and diagonal.get_xy1() == (0, 0)
    assert axes.get_xlim() == axes.get_ylim()
    rho = f"{stats.spearmanr(*expected.T).statistic:.2f}"
    error = f"{abs(expected[:, 0] - expected[:, 1]).mean():.2g}"
    assert axes.get_title() == f"Spearman ρ = {rho} over 11 parts\nmean |error| {error}"


def test_the_worst_guesses_are_named_first_on_the_side_away_from_the_diagonal(effects):
    estimated = effects.copy()
    estimated.loc[{"layer": 2, "head": 1}] += 5
    estimated.loc[{"layer": 0, "head": 3}] -= 4
    above, below = names(attribution_agreement(effects, estimated).axes[0])
    assert (above.get_text(), below.get_text()) == ("2.1", "0.3")
    assert above.xyann[0] < 0 < above.xyann[1] and below.xyann[1] < 0 < below.xyann[0]
    assert above.xy == (effects.values[2, 1], estimated.values[2, 1])


def test_parts_other_than_heads_are_named_by_all_their_places():
    roles = xr.DataArray([[0.1, 0.2]], dims=("layer", "role"), coords={"layer": [3], "role": ["cue", "mask"]})
    (name,) = names(attribution_agreement(roles, roles + np.array([0.0, 1.0])).axes[0])
    assert name.get_text() == "3 mask"
    of_heads = roles.expand_dims(head=[5])
    (name,) = names(attribution_agreement(of_heads, of_heads + np.array([0.0, 1.0])).axes[0])
    assert name.get_text() == "3.5 mask"


def test_estimates_of_other_parts_are_an_error(effects):
    with pytest.raises(ViewError, match="exact and estimated must be the same"):
        attribution_agreement(effects, effects.rename(head="role"))
    with pytest.raises(ViewError, match="No part has both"):
        attribution_agreement(effects, effects * np.nan)


CUE = Reading("mask", "cue", raw=0.412, norm=0.618, even=0.0764, n=40)
STORY = HeadReading(2, 1, CUE, CUE, ReadingChange("mask", "cue", "control", raw=0.384, norm=0.587, n=38))


def test_a_sentence_says_what_a_head_reads_where_with_its_numbers():
    assert head_sentence(STORY) == (
        "2.1: attention from [MASK] to the cue stands out most (raw 0.41, norm-weighted 0.62, uniform 0.08; n = 40). "
        "The same attention changes most compared with the control (raw +0.38, norm-weighted +0.59; n = 38)."
    )


def test_a_sentence_says_where_the_values_turn_the_story_and_what_else_changes():
    raw = Reading("cls", "sep", raw=0.9, norm=0.1, even=0.125, n=40)
    change = ReadingChange("other", "affected", "original", raw=0.004, norm=-0.25, n=40)
    assert head_sentence(replace(STORY, raw=raw, change=change)) == (
        "2.1: attention from [MASK] to the cue stands out most (raw 0.41, norm-weighted 0.62, uniform 0.08; n = 40). "
        "In the raw weights, attention from the first token to the separator stands out most (raw 0.90, norm-weighted "
        "0.10, uniform 0.12; n = 40). Attention from the other tokens to the affected word changes most compared with "
        "the original (raw +0.00, norm-weighted −0.25; n = 40)."
    )


def test_a_change_that_rounds_to_nothing_is_none():
    change = ReadingChange("mask", "cue", "control", raw=0.02, norm=-0.0049, n=38)
    assert head_sentence(replace(STORY, change=change)).endswith(
        "n = 40). Its norm-weighted attention is the same in the control."
    )
    assert head_sentence(replace(STORY, change=None)).endswith("uniform 0.08; n = 40).")
