"""The notebook of one study runs from top to bottom, and what stands in it is what running it shows."""

import re
from pathlib import Path

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel runs notebooks")
nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel runs notebooks")

_NUMBER = r"-?\d+\.\d*(?:e[-+]?\d+)?"
NOTEBOOK = Path(__file__).parents[1] / "scripts" / "one_study.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(output):
    """What an output is shown as; the notebook's own front end takes the first that it can."""
    return sorted(output.get("data", {}))


@pytest.fixture(scope="module")
def saved():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def ran(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    fresh = nbformat.from_dict(saved)
    for cell in code_cells(fresh):
        cell.outputs = []
    client = nbclient.NotebookClient(fresh, timeout=240, resources={"metadata": {"path": str(folder)}})
    return client.execute(), folder


def test_it_has_ten_cells_with_their_outputs_shown(saved):
    assert len(code_cells(saved)) == 10
    assert all(len(cell.outputs) == 1 for cell in code_cells(saved))


def test_running_it_gives_what_is_shown(saved, ran):
    def told(cell):
        (output,) = [output for output in cell.outputs if output.output_type == "execute_result"]
        # Where an object lies in memory is another in every run.
        text = re.sub(r"0x[0-9a-f]+", "", output["data"]["text/plain"])
        numbers = [float(number) for number in re.findall(_NUMBER, text)]
        return re.sub(r"\s+", " ", re.sub(_NUMBER, "", text)), kinds(output), numbers

    for before, after in zip(code_cells(saved), code_cells(ran[0]), strict=True):
        (*expected, numbers), (*found, found_numbers) = told(before), told(after)
        assert found == expected, before.source
        # Another machine rounds otherwise.
        np.testing.assert_allclose(found_numbers, numbers, rtol=0.02, atol=0.011, err_msg=before.source)


def test_a_figure_is_printed_once(ran):
    figures = [cell for cell in code_cells(ran[0]) if cell.source.endswith(")") and "patching_map(" in cell.source]
    assert len(figures) == 2
    for cell in figures:
        assert [kinds(output) for output in cell.outputs] == [["image/png", "text/plain"]]


def test_the_page_it_ends_with_is_written(ran):
    assert "negprobe-views" in (ran[1] / "one-pair.html").read_text(encoding="utf-8")
