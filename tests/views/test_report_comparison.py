"""The page of two studies tells their numbers, shows every text as text, and asks for nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from negprobe.errors import ViewError
from negprobe.saved_study import read_study
from negprobe.study_comparison import StudyComparison, compare_studies
from negprobe.views import report_comparison
from negprobe.views.report_comparison import answer, comparison_report, write_comparison

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def compared(two_studies: tuple[Path, Path]) -> StudyComparison:
    return compare_studies(*map(read_study, two_studies))


@pytest.fixture(scope="module")
def page(compared: StudyComparison) -> str:
    return comparison_report(compared)


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_has_its_parts_in_order_and_every_sentence_of_the_answer(compared: StudyComparison, page: str) -> None:
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", page)
    assert headings == [
        "The models and the data",
        "The answer",
        "The figures",
        "Every number",
        "How they were made",
        "What cannot be concluded",
    ]
    text = page.replace("&#x27;", "'").replace("&lt;", "<").replace("&amp;", "&")
    for sentence in answer(compared):
        assert sentence in text


def test_the_answer_tells_the_numbers_of_the_comparison(compared: StudyComparison) -> None:
    first, swapped, responding, circuits = answer(compared)
    row = compared.answers.query("cue == 'all' and statement == 'both'").iloc[0]
    assert f"right on {row['A']:.0%} of 8 pairs and B on {row['B']:.0%}" in first
    heads = compared.swaps.query("site == 'z' and direction == 'denoising'")
    top = heads.loc[heads["A"].idxmax()]
    assert f"{top['layer']:.0f}.{top['part']} in A ({top['A']:.0%})" in swapped
    assert "heads of A (8 pairs)" in responding
    assert circuits == "Neither study searched a circuit."


def test_every_figure_has_a_text_in_its_place_and_nothing_runs_or_is_fetched(page: str) -> None:
    elements = Elements(page).found
    images = [attributes for tag, attributes in elements if tag == "img"]
    assert len(images) >= 10 and all(image["alt"] for image in images)
    assert not [tag for tag, _ in elements if tag in ("script", "link", "iframe")]
    assert all(
        value.startswith("data:") for _, attributes in elements for name, value in attributes.items() if name == "src"
    )
    (policy,) = [attributes["content"] for tag, attributes in elements if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'") and "script-src" not in policy


def test_hostile_names_and_cues_are_text(compared: StudyComparison) -> None:
    manifest = compared.b.manifest | {"model": compared.b.manifest["model"] | {"name": HOSTILE}, "command": HOSTILE}
    hostile = replace(
        compared,
        b=replace(compared.b, manifest=manifest),
        answers=compared.answers.assign(cue=compared.answers["cue"].replace({"not": HOSTILE})),
    )
    page = comparison_report(hostile)
    assert HOSTILE not in page and "&lt;script&gt;" in page


def test_shapes_that_differ_and_answers_that_cannot_be_compared_still_make_a_page(compared: StudyComparison) -> None:
    model = compared.b.manifest["model"] | {"heads": 5, "head": "none"}
    other = compare_studies(compared.a, replace(compared.b, manifest=compared.b.manifest | {"model": model}))
    page = comparison_report(other)
    assert "The answers cannot be compared: one model gives answers and the other embeddings." in page
    assert "no head has a partner" in page and ">nan<" not in page


def test_the_page_is_written_whole_or_not_at_all(
    compared: StudyComparison, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_comparison, "comparison_report", lambda compared: page)
    path = write_comparison(compared, tmp_path / "ab.html")
    assert path.read_text(encoding="utf-8") == page
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ViewError, match="cannot be written"):
        write_comparison(compared, tmp_path / "nowhere" / "ab.html")
