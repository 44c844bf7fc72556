"""The page's text: what it holds, what it allows, and what it refuses to show."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from sample_comparisons import CUE, HEADS, LAYERS, ORIGINAL, comparison_of, tokenized

from negprobe.attention import Comparison
from negprobe.errors import ViewError
from negprobe.statements import Alignment
from negprobe.views import comparison_page, page_parts, write_page


class Elements(HTMLParser):
    """Every element with its attributes and the text directly in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            tag, attrs, text = self.found.pop()
            self.found.append((tag, attrs, text + data))

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, text) for name, attrs, text in self.found if name == tag]


def pair_data(page: str) -> list[dict]:
    return [json.loads(text) for attrs, text in Elements(page).of("script") if "type" in attrs]


def code(page: str) -> list[str]:
    return [text for attrs, text in Elements(page).of("script") if "type" not in attrs]


def test_the_page_holds_every_map_to_four_decimals(comparison: Comparison) -> None:
    (data,) = pair_data(comparison_page([comparison], title="t"))
    for side in ("original", "counterfactual"):
        attention = getattr(comparison, side)
        assert data[side]["tokens"] == list(attention.statement.tokens)
        for measure in ("raw", "norm", "similarity"):
            shown = torch.tensor(data[side][measure])
            torch.testing.assert_close(shown, getattr(attention, measure), atol=5.1e-5, rtol=0)
            assert len(str(data[side][measure][0][0][0][0])) <= len("-0.1234")
    assert data["counterfactual"]["cue"] == [CUE]
    assert data["aligned"] == [list(comparison.alignment.original), list(comparison.alignment.counterfactual)]


def test_the_bundle_is_there_once_whatever_the_number_of_pairs(comparison: Comparison) -> None:
    page = comparison_page([comparison] * 3, title="t")
    assert len(pair_data(page)) == 3
    assert [script.count("CircuitsVis=") for script in code(page)] == [1, 0]


def test_the_policy_allows_the_pages_own_scripts_and_no_network(comparison: Comparison) -> None:
    page = comparison_page([comparison], title="t")
    (policy,) = [attrs["content"] for attrs, _ in Elements(page).of("meta") if "http-equiv" in attrs]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in code(page)]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert rules["img-src"] == "data:"
    assert "connect-src" not in rules


def test_the_page_links_to_nothing(comparison: Comparison) -> None:
    page = comparison_page([comparison], title="t")
    assert not [attrs for _, attrs, _ in Elements(page).found if {"src", "href"} & attrs.keys()]
    assert "sourceMappingURL" not in page


def test_every_pair_layer_and_head_can_be_chosen(comparison: Comparison) -> None:
    body = page_parts([comparison, comparison_of(ORIGINAL, cue="never")]).body
    options = [(attrs["value"], text) for attrs, text in Elements(body).of("option")]
    names = [text for _, text in options]
    assert names[0].endswith("is not open . [SEP]") and names[1].endswith("is never open . [SEP]")
    numbers = [*map(str, range(LAYERS)), "all", *map(str, range(HEADS))]
    assert [text for value, text in options if value == text] == numbers


def test_hostile_text_stays_text() -> None:
    hostile = ("[CLS]", "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", "\"'&$title")
    page = comparison_page([comparison_of(hostile, at=1)], title="</title><script>window.pwned=1</script> & $body")
    elements = Elements(page)
    assert len(code(page)) == 2
    assert not elements.of("img")
    assert elements.of("title")[0][1].strip() == "</title><script>window.pwned=1</script> & $body"
    assert pair_data(page)[0]["original"]["tokens"] == list(hostile)


def test_a_page_can_be_written(comparison: Comparison, tmp_path: Path) -> None:
    path = write_page([comparison], tmp_path / "page.html", title="Door")
    assert path.read_text(encoding="utf-8") == comparison_page([comparison], title="Door")


def test_the_parts_can_stand_in_another_page(comparison: Comparison) -> None:
    parts = page_parts([comparison])
    page = comparison_page([comparison], title="t")
    assert page.count(parts.head) == page.count(parts.body) == 1
    assert not re.search(
        r"</?(html|body|head)\b", parts.head + re.sub(r"<script.*?</script>", "", parts.body, flags=re.S)
    )


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ViewError, match="at least one"):
        comparison_page([], title="t")


def test_two_models_on_a_page_are_an_error(comparison: Comparison) -> None:
    with pytest.raises(ViewError, match="one model"):
        comparison_page([comparison, comparison_of(ORIGINAL, heads=HEADS + 1)], title="t")


def test_tokens_that_do_not_fit_the_map_are_an_error(comparison: Comparison) -> None:
    cut = replace(comparison.original, statement=tokenized(ORIGINAL[:5]))
    with pytest.raises(ViewError, match=r"raw map .* 5 tokens"):
        comparison_page([replace(comparison, original=cut)], title="t")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_a_number_is_an_error_that_says_where(comparison: Comparison, value: float) -> None:
    norm = comparison.counterfactual.norm.clone()
    norm[2, 1, 0, 3] = value
    broken = replace(comparison, counterfactual=replace(comparison.counterfactual, norm=norm))
    with pytest.raises(ViewError, match=r"norm map .* layer 2, head 1"):
        comparison_page([broken], title="t")


def test_statements_without_aligned_tokens_are_an_error(comparison: Comparison) -> None:
    with pytest.raises(ViewError, match="aligned"):
        comparison_page([replace(comparison, alignment=Alignment((), (), (), ()))], title="t")
