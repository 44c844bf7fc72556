"""The notebook of one study runs from top to bottom, and shows what stands in it."""

import pytest

from tests.support import ROOT

nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel runs notebooks")
nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel runs notebooks")

NOTEBOOK = ROOT / "scripts" / "one_study.ipynb"


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


@pytest.mark.slow
def test_running_it_shows_the_same_kinds_of_output(saved, ran):
    for before, after in zip(code_cells(saved), code_cells(ran[0]), strict=True):
        # What libraries warn of goes to stderr, and is none of what is shown.
        found, expected = (
            [kinds(output) for output in cell.outputs if output.output_type == "execute_result"]
            for cell in (after, before)
        )
        assert found == expected, before.source


@pytest.mark.slow
def test_a_figure_is_printed_once(ran):
    figures = [cell for cell in code_cells(ran[0]) if cell.source.endswith(")") and "patching_map(" in cell.source]
    assert len(figures) == 2
    for cell in figures:
        assert [kinds(output) for output in cell.outputs] == [["image/png", "text/plain"]]


@pytest.mark.slow
def test_the_page_it_ends_with_is_written(ran):
    assert "negprobe-views" in (ran[1] / "one-pair.html").read_text(encoding="utf-8")
