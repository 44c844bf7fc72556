"""Figures are files that hold what was drawn, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from negprobe.errors import ViewError
from negprobe.views import layer_head_map, save_figure
from negprobe.views.drawing import symmetric, wrapped

BEGINNINGS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def figure() -> Figure:
    return layer_head_map(np.arange(4.0).reshape(2, 2), label="effect (bits)")


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_figure_is_written_as_what_its_name_says_and_always_alike(kind: str, tmp_path: Path) -> None:
    first, again = (save_figure(figure(), tmp_path / f"{name}.{kind}") for name in ("first", "again"))
    assert first.read_bytes().startswith(BEGINNINGS[kind])
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"again.{kind}", f"first.{kind}"]


def test_vectors_keep_text_as_text_and_pictures_have_300_dots_an_inch(tmp_path: Path) -> None:
    assert "effect (bits)" in save_figure(figure(), tmp_path / "map.svg").read_text(encoding="utf-8")
    drawn = figure()
    png = save_figure(drawn, tmp_path / "map.png").read_bytes()
    width, height = (int.from_bytes(png[at : at + 4]) for at in (16, 20))
    assert (width, height) == tuple(int(inches * 300) for inches in drawn.get_size_inches())


def test_an_ending_or_a_place_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ViewError, match=r"'map.jpeg'; let it end with .png, .pdf or .svg"):
        save_figure(figure(), tmp_path / "map.jpeg")
    with pytest.raises(ViewError, match="cannot be written"):
        save_figure(figure(), tmp_path / "nowhere" / "map.png")


def test_what_was_there_stays_if_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_figure(figure(), tmp_path / "map.png")
    before = path.read_bytes()

    def broken(self: Figure, place: Path, **options: object) -> None:
        Path(place).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(ViewError, match="no space left"):
        save_figure(figure(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_diverging_scale_has_zero_in_its_middle_whatever_is_on_it() -> None:
    assert symmetric(np.array([-0.2, np.nan, 0.7])) == (-0.7, 0.7)
    assert symmetric(np.array([np.nan])) == symmetric(np.zeros(3)) == (-1.0, 1.0)


def test_lines_are_broken_between_words_and_stay_apart() -> None:
    assert wrapped("one two three four\nfive", 40.0, 8.0) == "one two\nthree\nfour\nfive"
    assert wrapped("x" * 50, 40.0, 8.0) == "x" * 50
