"""No text that negprobe writes into a CSV file can run as a formula when a spreadsheet opens it."""

import ast
import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from negprobe.base.files import write_csv
from negprobe.cli import app
from tests.support import ROOT

FORMULAS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\r",
    "\n1",
    "  =1",
    "\u00a0-x",
    "\u200b=1",
    "\ufeff=1",
    "\uff1d1",
)
HARMLESS = ("x\r=1", "now", "a=b", "[MASK]", "##-", "'=1", "", "1,2", '"', "x\ny", "\u2212\u2212")


def cells_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


def runs(cell: str) -> bool:
    return (cell[:1] in "\t\r\n" and cell != "") or cell.lstrip()[:1] in ("=", "+", "-", "@")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_begins_a_formula_gets_an_apostrophe_as_a_cell_and_as_a_name(tmp_path: Path, text: str) -> None:
    write_csv(pd.DataFrame({text: [text], "token": [text]}), tmp_path / "out.csv")
    assert cells_of(tmp_path / "out.csv") == [[f"'{text}", "token"], [f"'{text}", f"'{text}"]]


def test_other_texts_and_numbers_are_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": HARMLESS, "effect": [-0.1] * len(HARMLESS), "n": -1, "none": None, "yes": True})
    mixed = pd.DataFrame({"mixed": pd.Series([-1, -0.5, None], dtype=object)})
    write_csv(table.astype({"effect": "float32"}), tmp_path / "out.csv")
    write_csv(mixed, tmp_path / "mixed.csv")
    names, *rows = cells_of(tmp_path / "out.csv")
    assert names == list(table.columns)
    assert rows == [[text, "-0.1", "-1", "", "True"] for text in HARMLESS]
    assert cells_of(tmp_path / "mixed.csv") == [["mixed"], ["-1"], ["-0.5"], [""]]


@given(st.lists(st.text(max_size=6), min_size=1, max_size=4))
@settings(max_examples=100)
def test_whatever_a_text_holds_no_cell_runs(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_csv(pd.DataFrame({"text": texts, "category": pd.Categorical(texts)}), path)
    assert not [cell for row in cells_of(path) for cell in row if runs(cell)]


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_csv(pd.DataFrame(columns=["site", "=x"]), tmp_path / "out.csv")
    assert cells_of(tmp_path / "out.csv") == [["site", "'=x"]]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def broken(self: pd.DataFrame, to: Path, **options: object) -> None:
        Path(to).write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(OSError, match="no space"):
        write_csv(pd.DataFrame({"a": [1]}), path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.slow
def test_what_the_commands_write_runs_nothing(tmp_path: Path) -> None:
    formula = "=1+1"
    pairs = [f"{formula} The door is open, so it is [MASK].", f"{formula} The door is not open, so it is [MASK]."]
    answers = ["--target", "open", "--foil", "closed"]
    for command, options, name in (("compare", [], "metrics.csv"), ("patch", answers, "patching.csv")):
        done = CliRunner().invoke(app, [command, *pairs, *options, "--out", str(tmp_path)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert not [cell for row in cells_of(tmp_path / name) for cell in row if runs_as_text(cell)]
    data = tmp_path / f"{formula}.csv"
    data.write_text(f'original,counterfactual,target,foil\n"{pairs[0]}","{pairs[1]}",open,closed\n')
    done = CliRunner().invoke(app, ["evaluate", str(data), "--out", str(tmp_path / "scores.csv")])
    assert done.exit_code == 0, done.output
    written = cells_of(tmp_path / "scores.csv")
    assert written[1][0] == f"'{formula}"
    assert not [cell for row in written for cell in row if runs_as_text(cell)]


def runs_as_text(cell: str) -> bool:
    """Negative numbers are what they are."""
    try:
        float(cell)
    except ValueError:
        return runs(cell)
    return False


def test_nothing_else_writes_csv() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*(ROOT / "negprobe").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (node.attr == "to_csv" or (getattr(node.value, "id", "") == "csv" and "riter" in node.attr))
    ]
    assert [place.split(":")[0] for place in found] == ["negprobe/base/files.py"]
