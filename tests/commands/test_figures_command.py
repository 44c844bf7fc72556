"""`negprobe figures` draws the figures of a finished study again, the same as the study drew them."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from negprobe.cli import app
from negprobe.study.figure_data import figure_data, read_figure_data
from negprobe.study.figure_file import FIGURE_FILE
from negprobe.study.tables import write_numbers
from negprobe.views import draw_figures, write_study
from negprobe.views.report.report import study_figures

NOT_SAVED_BEFORE = {
    "attention-distance",
    "heatmaps",
    "before-and-after-values",
    "circuit",
    "positions-resid_pre-noising",
    "positions-resid_pre-denoising",
}


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(study_with_circuit, tmp_path):
    """The folder of a study, without its figures and its report."""
    write_numbers(study_with_circuit, tmp_path, "negprobe study")
    return tmp_path


@pytest.mark.slow
def test_figures_drawn_from_the_folder_are_those_of_the_study_to_the_byte(study_with_circuit, tmp_path):
    report = write_study(study_with_circuit, tmp_path, "negprobe study")
    drawn = {path: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert {path.stem for path in drawn} == set(study_figures(figure_data(study_with_circuit)))
    assert report.read_text(encoding="utf-8").count("<figcaption>") == len(drawn)
    for path in drawn:
        path.unlink()
    written, not_saved = draw_figures(tmp_path, ["png"])
    assert {path: path.read_bytes() for path in written} == drawn
    assert not_saved == ()


def test_what_figures_are_drawn_from_is_the_same_from_the_folder(study_with_circuit, folder):
    data, read = figure_data(study_with_circuit), read_figure_data(folder)
    np.testing.assert_array_equal(read.attention_to_cue, data.attention_to_cue)
    np.testing.assert_array_equal(read.mean_knock_out, data.mean_knock_out)
    np.testing.assert_array_equal(read.cue_shares, data.cue_shares)
    np.testing.assert_array_equal(read.readings["change"], data.readings["change"])
    for name in ("attention_distance", "norm_distance", "uniform_distance", "output_change_by_role"):
        np.testing.assert_array_equal(read.metrics[name], data.metrics[name])
    assert read.mean_effects.keys() == data.mean_effects.keys()
    assert read.position_effects.keys() == data.position_effects.keys()
    for name in ("mean_effects", "position_effects", "replications"):
        for key, expected in getattr(data, name).items():
            found = getattr(read, name)[key]
            arrays = expected.data_vars if name == "replications" else {None: expected}
            for variable in arrays:
                ours = found if variable is None else found[variable]
                np.testing.assert_array_equal(ours, arrays[variable], err_msg=f"{key} {variable}")
    assert study_figures(read).keys() == study_figures(data).keys()


def test_the_command_writes_each_format(folder, monkeypatch):
    # Two figures stand for all.
    two = lambda data: {name: study_figures(data)[name] for name in ("metrics", "faithfulness")}  # noqa: E731
    monkeypatch.setattr("negprobe.views.report.write.study_figures", two)
    result = run("figures", folder, "--format", "svg", "--format", "pdf")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"metrics.svg", "metrics.pdf", "faithfulness.svg", "faithfulness.pdf"}
    assert "4 figures: " in result.output and "Not drawn" not in result.output


def test_a_study_of_an_earlier_version_names_the_figures_that_are_not_drawn(folder, study_with_circuit):
    (folder / FIGURE_FILE).unlink()
    read = read_figure_data(folder)
    assert set(read.not_saved) == NOT_SAVED_BEFORE
    assert set(study_figures(read)) == set(study_figures(figure_data(study_with_circuit))) - NOT_SAVED_BEFORE


def test_the_command_prints_which_figures_are_not_drawn(folder, monkeypatch):
    monkeypatch.setattr("negprobe.views.report.write.study_figures", lambda data: {})
    (folder / FIGURE_FILE).unlink()
    result = run("figures", folder, "--format", "pdf")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Not drawn: attention-distance, heatmaps" in said and "earlier version" in said


def _newer(path: Path) -> None:
    with np.load(path) as arrays:
        meta = json.loads(str(arrays["meta"])) | {"format": 2}
        np.savez(path, **{name: arrays[name] for name in arrays if name != "meta"}, meta=np.array(json.dumps(meta)))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(("change", "message"), [(_newer, "has format version 2"), (_cut, "is damaged")])
def test_a_damaged_or_newer_file_is_one_line(folder, change, message):
    change(folder / FIGURE_FILE)
    result = run("figures", folder, "--format", "pdf")
    assert result.exit_code == 1
    assert message in " ".join(result.output.split()) and "Traceback" not in result.output


def test_a_folder_without_a_study_is_one_line(tmp_path):
    result = run("figures", tmp_path, "--format", "pdf")
    assert result.exit_code == 1
    assert "is not the folder of a study" in " ".join(result.output.split())
    assert run("figures", tmp_path, "--format", "gif").exit_code == 2
