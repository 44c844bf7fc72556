"""The page of supported models names every type, and is what its script writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from negprobe.models.families import FAMILY_OF
from tests.support import ROOT


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| `") and not line.startswith("| `model_type`")]


def test_the_page_has_every_model_type_with_three_heads() -> None:
    page = rows((ROOT / "docs" / "models.md").read_text(encoding="utf-8"))
    for model_type in FAMILY_OF:
        assert sum(row.startswith(f"| `{model_type}` |") for row in page) == 4, model_type


@pytest.mark.slow
def test_the_script_measures_what_the_page_says(tmp_path: Path) -> None:
    out = tmp_path / "models.md"
    script = [sys.executable, str(ROOT / "scripts" / "support_table.py"), "--type", "mpnet", "--out", str(out)]
    subprocess.run(script, check=True, capture_output=True, timeout=300)
    written, page = (
        rows(out.read_text(encoding="utf-8")),
        rows((ROOT / "docs" / "models.md").read_text(encoding="utf-8")),
    )
    assert len(written) == 4
    for row in written:
        cells = row.split(" | ")
        if len(cells) == 5:
            assert row in page
            continue
        [of_page] = [other.split(" | ") for other in page if other.startswith(" | ".join(cells[:2]) + " |")][-1:]
        # The differences are of rounding, so they vary between machines.
        assert [cells[5], *cells[8:]] == [of_page[5], *of_page[8:]]
        assert float(cells[2]) <= 1e-5 and float(cells[4]) < 1e-10 and float(cells[6]) < 1e-10
