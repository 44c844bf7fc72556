"""What all figures are drawn with: which names and numbers have room, how lines break, how a figure becomes a file."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from negprobe.base.errors import ViewError
from negprobe.views import layer_head_map, save_figure
from negprobe.views.figures.drawing import (
    CellNames,
    colour_bar,
    draw_map,
    figure_of,
    largest_size,
    name_cells,
    number_range,
    spearman,
    wrapped,
    write_numbers,
)

MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


def map_of(values: np.ndarray, side: float = 2.0, *, diverging: bool = False) -> Axes:
    axes = Figure(figsize=(side, side), layout="constrained").subplots()
    limits = (-largest_size(values), largest_size(values)) if diverging else (0.0, largest_size(values))
    draw_map(axes, values, diverging, limits, aspect="auto")
    return axes


def written(axes: Axes) -> dict[tuple[int, ...], str]:
    """Numbers in the cells, by row and column."""
    return {tuple(int(at) for at in text.get_position()[::-1]): text.get_text() for text in axes.texts}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("n", "cue"), [(5, 2), (40, 0), (40, 17), (128, 71), (128, 127)])
@pytest.mark.parametrize("side", [2.0, 6.0])
def test_the_cue_is_always_named_and_no_name_lies_on_another(n: int, cue: int, side: float) -> None:
    axes = map_of(np.eye(n), side)
    names = [f"w{i}" for i in range(n)]
    name_cells({axes: CellNames(names, names, "key", (cue,))})
    assert "cue in bold" in axes.get_xlabel()
    for ticks, labels, along in (
        (axes.get_xticks(), axes.get_xticklabels(), "x"),
        (axes.get_yticks(), axes.get_yticklabels(), "y"),
    ):
        assert [text.get_text() for text in labels] == [f"w{int(at)}" for at in ticks]
        assert [text.get_text() for text in labels if text.get_fontweight() == "bold"] == [f"w{cue}"]
        boxes = sorted(tuple(getattr(text.get_window_extent(), f"interval{along}")) for text in labels)
        assert all(before[1] <= after[0] + 0.5 for before, after in pairwise(boxes))
        step = n if len(ticks) == 1 else int(np.diff(ticks).min())
        assert (f"1 in {step} named" in axes.get_xlabel().replace("\n", " ")) == (step > 1)
        # As many as have room: none is left out where two more would fit.
        assert step == 1 or np.diff(ticks).max() < 2 * step


def test_several_maps_share_a_step_and_tell_it_once() -> None:
    figure = Figure(figsize=(3.3, 2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [f"w{i}" for i in range(40)]
    for axes, n in ((left, 40), (right, 20)):
        draw_map(axes, np.eye(n), False, (0.0, 1.0))
    name_cells({left: CellNames(names, names, "key"), right: CellNames(names[:20], names[:20], "key")})
    steps = {int(np.diff(axes.get_xticks()).min()) for axes in (left, right)}
    assert len(steps) == 1 and figure.get_supxlabel() == f"1 in {steps.pop()} named"
    assert left.get_xlabel() == right.get_xlabel() == "key"


def test_rows_without_names_keep_their_numbers() -> None:
    axes = map_of(np.eye(3))
    before = list(axes.get_yticks())
    name_cells({axes: CellNames(["a", "b", "c"], [], "head")})
    assert list(axes.get_yticks()) == before
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_xlabel() == "head"


def test_numbers_have_two_figures_of_the_largest_and_none_where_undefined() -> None:
    for scale, texts in ((1.0, ["0.25", "−0.50", "0.00"]), (10.0, ["2.5", "−5.0", "0.0"]), (100.0, ["25", "−50", "0"])):
        axes = map_of(scale * np.array([[0.25, -0.5], [np.nan, -0.0001]]), diverging=True)
        write_numbers(axes)
        assert written(axes) == dict(zip([(0, 0), (0, 1), (1, 1)], texts, strict=True))


def test_numbers_can_be_told_from_their_cells() -> None:
    axes = map_of(np.array([[0.0, 1.0]]))
    write_numbers(axes)
    assert [text.get_color() for text in axes.texts] == ["white", "black"], "viridis is dark at 0 and light at 1"


def test_of_several_maps_all_have_numbers_or_none() -> None:
    wide, narrow = map_of(np.ones((2, 2))), map_of(np.ones((2, 20)))
    write_numbers(wide, narrow)
    assert not wide.texts and not narrow.texts
    write_numbers(wide)
    assert len(wide.texts) == 4
    flat = map_of(np.ones((30, 2)))
    write_numbers(flat)
    assert not flat.texts


@pytest.mark.sampled(4)
@pytest.mark.parametrize("side", [1.2, 3.0, 6.0])
@pytest.mark.parametrize("location", ["right", "bottom"])
@pytest.mark.parametrize("limits", [(0.0, 0.07), (-1.0, 1.0), (-130.0, 130.0)])
def test_numbers_of_a_bar_have_room_beside_each_other(side: float, location: Any, limits: tuple[float, float]) -> None:
    axes = Figure(figsize=(side, side), layout="constrained").subplots()
    image = draw_map(axes, np.eye(3), True, limits)
    colour_bar(image, [axes], "effect", location)
    figure = figure_of(axes)
    figure.draw_without_rendering()
    bar = figure.axes[1]
    axis, along = (bar.yaxis, "y") if location == "right" else (bar.xaxis, "x")
    inside = [text for text in axis.get_ticklabels() if limits[0] <= text.get_position()[along == "y"] <= limits[1]]
    boxes = sorted(tuple(getattr(text.get_window_extent(), f"interval{along}")) for text in inside)
    assert 2 <= len(boxes) <= 7
    assert all(before[1] < after[0] for before, after in pairwise(boxes))


def test_lines_break_into_few_and_evenly() -> None:
    text = "norm-weighted attention to the cue"
    assert wrapped(text, 1000.0, 9.0) == text
    assert wrapped(text, 150.0, 9.0) == "norm-weighted\nattention to the cue"
    assert wrapped("first\n" + text, 150.0, 9.0).split("\n")[0] == "first"
    assert wrapped("", 100.0, 9.0) == ""
    assert wrapped("w" * 50, 10.0, 9.0) == "w" * 50, "a word stays whole"


def test_numbers_are_told_from_the_least_to_the_greatest() -> None:
    assert number_range([3, 9, 5]) == "3 to 9"
    assert number_range(np.array([4.0, 4.0])) == "4"


def test_a_rank_correlation_of_few_or_constant_points_is_undefined() -> None:
    assert spearman(np.array([[0.0, 0.0], [1.0, -5.0], [2.0, -6.0]])) == "= −1.00"
    assert spearman(np.array([[0.0, 0.0], [1.0, 1.0]])) == "undefined"
    assert spearman(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])) == "undefined"


def test_the_largest_of_nothing_is_one() -> None:
    assert largest_size([]) == largest_size([0.0]) == largest_size(np.array([np.nan])) == 1.0
    assert largest_size([0.5, -2.0, np.nan]) == 2.0


@pytest.fixture
def figure() -> Figure:
    return layer_head_map(np.array([[0.25, np.nan], [1.0, 0.5]]), label="effect of negation")


@pytest.mark.parametrize("kind", MAGIC)
def test_a_figure_becomes_a_file_of_the_kind_its_name_says_and_always_the_same(
    figure: Figure, kind: str, tmp_path: Path
) -> None:
    first, second = tmp_path / f"one.{kind}", tmp_path / f"two.{kind.upper()}"
    assert save_figure(figure, first) == first
    assert save_figure(figure, str(second)) == second
    content = first.read_bytes()
    assert content.startswith(MAGIC[kind])
    assert content == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, second.name])


def test_text_of_a_vector_file_stays_text(figure: Figure, tmp_path: Path) -> None:
    assert ">effect of negation<" in save_figure(figure, tmp_path / "map.svg").read_text()
    assert b"/Type3" not in save_figure(figure, tmp_path / "map.pdf").read_bytes()


def test_a_png_has_300_dots_an_inch(figure: Figure, tmp_path: Path) -> None:
    header = save_figure(figure, tmp_path / "map.png").read_bytes()[16:24]
    dots = [int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")]
    np.testing.assert_allclose(dots, 300 * figure.get_size_inches(), atol=1)


@pytest.mark.parametrize("name", ["map", "map.jpg", "map.svgz", "map.png.txt"])
def test_another_ending_is_an_error(figure: Figure, name: str, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match=r"end with \.png, \.pdf or \.svg"):
        save_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_error(figure: Figure, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="Choose an existing folder"):
        save_figure(figure, tmp_path / "none" / "map.png")


def test_a_folder_in_the_file_s_place_is_an_error_and_nothing_is_left(figure: Figure, tmp_path: Path) -> None:
    (tmp_path / "map.png").mkdir()
    with pytest.raises(ViewError, match=r"cannot be written to .*map\.png"):
        save_figure(figure, tmp_path / "map.png")
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_an_old_file_stays_whole_if_writing_fails(
    figure: Figure, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_figure(figure, tmp_path / "map.png")
    old = path.read_bytes()

    def half(place: Path, **_: object) -> None:
        place.write_bytes(old[:100])
        raise error

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(ViewError if isinstance(error, OSError) else KeyboardInterrupt):
        save_figure(figure, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
