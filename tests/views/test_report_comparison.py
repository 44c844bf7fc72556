"""The page of two studies tells their numbers, shows every text as text, and asks for nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from negprobe.base.errors import ViewError
from negprobe.study import read_summary
from negprobe.study.comparison import StudyComparison, compare_studies
from negprobe.study.saved import read_study
from negprobe.views.report import comparison as report_comparison
from negprobe.views.report.comparison import comparison_report, write_comparison
from negprobe.views.report.comparison_findings import answer

HOSTILE = "<script>alert(1)</script>"
MANIFEST = {"command": f"negprobe report a {HOSTILE}", "seed": 3}


@pytest.fixture(scope="module")
def compared(two_studies: tuple[Path, Path]) -> StudyComparison:
    return compare_studies(*map(read_study, two_studies))


@pytest.fixture(scope="module")
def page(compared: StudyComparison) -> str:
    return comparison_report(compared, MANIFEST)


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
        "How it was made",
        "What cannot be concluded",
    ]
    text = page.replace("&#x27;", "'").replace("&lt;", "<").replace("&amp;", "&")
    for sentence in answer(compared.summary):
        assert sentence in text


def test_the_answer_tells_the_numbers_of_the_comparison(compared: StudyComparison) -> None:
    answered, carrying, heads, stream, responding, circuits = answer(compared.summary)
    row = compared.answers.query("cue == 'all' and statement == 'both'").iloc[0]
    for name in "AB":
        assert f"{row[name] * 8:.0f} of 8 pairs, {row[name]:.0%} [" in answered
    assert answered.endswith(f"{points(row)}.")
    by_head = compared.swaps.query("site == 'z' and direction == 'denoising'")
    for name in "AB":
        top = by_head.loc[by_head[name].idxmax()]
        assert f"{top['layer']:.0f}.{top['part']} in {name}, {effect(top, name)}" in carrying
    by_role = compared.swaps.query("site == 'resid_pre' and direction == 'denoising'")
    for rows, sentence in ((by_head, heads), (by_role, stream)):
        apart = sum(row.low > 0 or row.high < 0 for row in rows.itertuples())
        top = rows.loc[rows["difference"].abs().idxmax()]
        assert f": {apart} of {len(rows)} swaps restore more or less" in sentence
        assert sentence.endswith(f"{effect(top, 'A')} in A and {effect(top, 'B')} in B, {points(top)}.")
    for name, tests in zip("AB", compared.tests, strict=True):
        n_heads = (tests["q"] <= 0.05).any("metric").sum().item()
        of_any_size = "some difference, of any size, between the negation and a neutral word of the same length"
        assert f"In {name}, {of_any_size} is significant in {n_heads} of 16 heads" in responding
    by_q, by_max_t = ((compared.change[name] <= 0.05).any("metric").sum().item() for name in ("q", "p_max_t"))
    assert (
        f"differs between the two in {by_q} of 16 heads (corrected in the same way; {by_max_t} by max-T)" in responding
    )
    assert circuits == "Neither study searched for a circuit."


def test_each_models_share_is_its_own(compared: StudyComparison) -> None:
    wrong = compared.b.answers.assign(counterfactual=[1.0, *[-1.0] * (len(compared.b.answers) - 1)])
    answered = answer(compare_studies(compared.a, replace(compared.b, answers=wrong)).summary)[0]
    assert answered.startswith(
        "A gives the right answer both without and with the negation on 8 of 8 pairs, 100% [68%, 100%], and B on 7 of 8"
    )
    assert ": −12 percentage points [" in answered


def effect(row: pd.Series, name: str) -> str:
    return f"{row[name]:.0%} [{row[name + '_low']:.0%}, {row[name + '_high']:.0%}]".replace("-0%", "0%")


def points(row: pd.Series) -> str:
    value, low, high = (f"{100 * row[name]:+.0f}" for name in ("difference", "low", "high"))
    written = [{"+0": "0", "-0": "0"}.get(text, text.replace("-", "−")) for text in (value, low, high)]
    return f"{written[0]} percentage points [{written[1]}, {written[2]}]"


def test_two_models_that_do_the_same_are_said_to_do_the_same(compared: StudyComparison) -> None:
    sentences = " ".join(answer(compare_studies(compared.a, compared.a).summary))
    assert "0 percentage points [0, 0]" in sentences
    assert "Replacing one head's output has the same effect in both models." in sentences
    assert "In no head does the effect of negation itself differ" in sentences


def test_too_few_pairs_to_test_are_said_to_be_too_few(compared: StudyComparison) -> None:
    few = replace(compared.a, pairs=compared.a.pairs.head(3))
    sentences = " ".join(answer(compare_studies(few, compared.b).summary))
    assert "cannot be tested. With 2 pairs" in sentences and "respond differently" not in sentences


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
        # The other figures show no cue.
        swaps=compared.swaps.iloc[:0],
        tests=(None, None),
        change=None,
    )
    page = comparison_report(hostile, MANIFEST)
    assert HOSTILE not in page and "&lt;script&gt;" in page


@pytest.mark.slow
def test_shapes_that_differ_and_answers_that_cannot_be_compared_still_make_a_page(compared: StudyComparison) -> None:
    model = compared.b.manifest["model"] | {"heads": 5, "head": "none"}
    other = compare_studies(compared.a, replace(compared.b, manifest=compared.b.manifest | {"model": model}))
    page = comparison_report(other, MANIFEST)
    assert "The answers cannot be compared: one model gives answers, the other embeddings." in page
    assert "single heads cannot be compared" in page and ">nan<" not in page


def test_the_page_is_written_whole_or_not_at_all(
    compared: StudyComparison, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_comparison, "comparison_report", lambda compared, manifest: page)
    path = write_comparison(compared, tmp_path / "ab.html")
    assert path.read_text(encoding="utf-8") == page
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "ab.summary.parquet"]
    pd.testing.assert_frame_equal(read_summary(tmp_path / "ab.summary.parquet").table, compared.summary.table)
    with pytest.raises(ViewError, match="cannot be written"):
        write_comparison(compared, tmp_path / "nowhere" / "ab.html")


def test_the_prompts_are_shown_if_a_study_has_one(compared: StudyComparison, page: str) -> None:
    assert ">prompt</th>" not in page
    model = compared.b.manifest["model"]
    prompted = replace(compared.b, manifest=compared.b.manifest | {"model": model | {"prompt": "query: "}})
    # The manifests of earlier versions have no prompt.
    earlier = {key: value for key, value in model.items() if key != "prompt"}
    without = replace(compared.a, manifest=compared.a.manifest | {"model": earlier})
    shown = comparison_report(replace(compared, a=without, b=prompted), MANIFEST)
    assert ">prompt</th>" in shown and ">&#x27;query: &#x27;</td>" in shown and ">none</td>" in shown
