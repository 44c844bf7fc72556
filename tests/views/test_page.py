"""The page's text: what it holds, what it allows, and what it refuses to show."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from negprobe import HookedEncoder, builtin_pairs
from negprobe.attention import METRICS, AttentionProbe, Comparison
from negprobe.attention.affordable import compared_for_page
from negprobe.attention.contribution_maps import contribution_work
from negprobe.base.errors import NegprobeWarning, ViewError
from negprobe.statements import Alignment, StatementPair
from negprobe.views import comparison_page, page_parts, write_page
from negprobe.views.page.packing import map_bytes
from negprobe.views.page.page import write_pairs_page
from tests.support.sample_comparisons import CUE, HEADS, LAYERS, ORIGINAL, comparison_of, sweep_of, with_zeroing


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


def index_of(page: str) -> dict:
    (text,) = [text for attrs, text in Elements(page).of("script") if attrs.get("id") == "negprobe-index"]
    return json.loads(text)


def packed_pairs(page: str) -> list[str]:
    return [text for attrs, text in Elements(page).of("script") if attrs.get("type") == "text/plain"]


def code(page: str) -> list[str]:
    return [text for attrs, text in Elements(page).of("script") if "type" not in attrs]


def test_the_index_tells_the_tokens_the_alignment_and_every_metric(comparison: Comparison) -> None:
    index = index_of(comparison_page([comparison], title="t"))
    (pair,) = index["pairs"]
    assert (index["layers"], index["heads"]) == (LAYERS, HEADS)
    for side in ("original", "counterfactual"):
        assert pair[side] == list(getattr(comparison, side).statement.tokens)
    assert pair["cue"] == [CUE]
    assert pair["aligned"] == [list(comparison.alignment.original), list(comparison.alignment.counterfactual)]
    assert index["metrics"] == [name for name in METRICS if name in comparison.metrics]
    for name in index["metrics"]:
        expected = comparison.metrics[name].transpose("layer", "head").values.ravel()
        assert pair["metrics"][name] == pytest.approx(expected, rel=1e-3)


def test_a_metric_that_is_undefined_is_null(comparison: Comparison) -> None:
    metrics = comparison.metrics.assign(max_attention_diff=comparison.metrics["max_attention_diff"] * float("nan"))
    (pair,) = index_of(comparison_page([replace(comparison, metrics=metrics)], title="t"))["pairs"]
    assert pair["metrics"]["max_attention_diff"] == [None] * LAYERS * HEADS


def test_the_bundle_is_there_once_whatever_the_number_of_pairs(comparison: Comparison) -> None:
    page = comparison_page([comparison] * 3, title="t")
    assert len(packed_pairs(page)) == 3
    assert [script.count("CircuitsVis=") for script in code(page)] == [1, 0]


def test_a_page_of_fifty_pairs_of_a_model_of_twelve_layers_and_heads_stays_small() -> None:
    tokens = ("[CLS]", *(f"word{i}" for i in range(14)), "[SEP]")
    # Attention of random numbers is as hard to compress as any.
    large = comparison_of(tokens, layers=12, heads=12)
    assert len(comparison_page([large] * 50, title="t").encode()) < 15e6


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


def test_a_sweep_is_told_as_effects_by_layer_and_token(comparison: Comparison) -> None:
    (sweep,) = index_of(comparison_page([comparison], title="t", sweeps=[sweep_of(ORIGINAL)]))["sweeps"]
    assert sweep["tokens"] == list(ORIGINAL)
    assert sweep["layers"] == [f"before layer {layer}" for layer in range(LAYERS)]
    expected = (np.linspace(-1, 3, LAYERS * len(ORIGINAL)) + 1) / 2
    told = [value for row in sweep["effects"] for value in row]
    assert told.pop(1) is None
    assert told == pytest.approx(np.delete(expected, 1), rel=1e-3)


def test_a_sweep_by_role_is_an_error_that_says_what_to_do(comparison: Comparison) -> None:
    by_role = sweep_of(ORIGINAL).rename(position="role").drop_vars("token")
    with pytest.raises(ViewError, match=r'but this sweep has pair, layer, role; .* by="position"'):
        comparison_page([comparison], title="t", sweeps=[by_role])


def test_hostile_text_stays_text() -> None:
    hostile = ("[CLS]", "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", "\"'&$title")
    page = comparison_page([comparison_of(hostile, at=1)], title="</title><script>window.pwned=1</script> & $body")
    elements = Elements(page)
    assert len(code(page)) == 2
    assert not elements.of("img")
    assert elements.of("title")[0][1].strip() == "</title><script>window.pwned=1</script> & $body"
    assert index_of(page)["pairs"][0]["original"] == list(hostile)


def test_a_page_can_be_written(comparison: Comparison, tmp_path: Path) -> None:
    path = write_page([comparison], tmp_path / "page.html", title="Door")
    assert path.read_text(encoding="utf-8") == comparison_page([comparison], title="Door")
    assert [kept.name for kept in tmp_path.iterdir()] == ["page.html"]


def test_a_place_that_takes_no_page_is_an_error(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(ViewError, match="cannot be written"):
        write_page([comparison], tmp_path / "no folder" / "page.html", title="Door")


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


def test_statements_without_aligned_tokens_are_an_error(comparison: Comparison) -> None:
    with pytest.raises(ViewError, match="aligned"):
        comparison_page([replace(comparison, alignment=Alignment((), (), (), ()))], title="t")


def notes_of(page: str) -> list[str]:
    return [text for attrs, text in Elements(page).of("p") if attrs.get("class") == "negprobe-note"][1:]


def test_what_does_not_fit_on_a_page_is_left_out_and_named(comparison: Comparison) -> None:
    long = comparison_of(("[CLS]", *("<i>" for _ in range(60)), "[SEP]"))
    three, room = [comparison, long, comparison], 3 * map_bytes([7, 8], LAYERS, HEADS)
    page = comparison_page(three, title="t", max_bytes=room, left_out=["Another & was."])
    assert len(packed_pairs(page)) == len(index_of(page)["pairs"]) == 2
    assert sum(map(len, packed_pairs(page))) <= room
    another, left_out, zeroing = notes_of(page)
    assert another == "Another & was."
    assert re.match(
        r"1 of 3 pairs are left out, .* 0\.0134 MB before compression: pair 2 '.*<i>.*'…? \(0\.\d+ MB\)", left_out
    )
    assert zeroing == "Value zeroing was not computed for 2 of 2 pairs."
    assert len(packed_pairs(comparison_page(three, title="t"))) == 3
    assert not notes_of(comparison_page([with_zeroing(comparison)], title="t"))


def test_a_page_that_not_even_one_pair_fits_on_is_an_error(comparison: Comparison) -> None:
    with pytest.raises(
        ViewError, match=r"maps of the smallest pair need up to 0\.\d+ MB, but max_bytes allows 0\.001 MB"
    ):
        comparison_page([comparison], title="t", max_bytes=1000)


def test_pairs_that_do_not_fit_are_not_run_and_value_zeroing_stays_in_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = AttentionProbe(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    pairs = [builtin_pairs()[0], StatementPair("a " * 50, "not " + "a " * 50), *builtin_pairs()[1:4]]
    cfg, lengths = probe.model.cfg, probe.lengths(pairs)
    assert lengths[0] == tuple(
        len(probe.model.tokenizer(text)["input_ids"]) for text in (pairs[0].original, pairs[0].counterfactual)
    )
    sizes = [map_bytes(both, cfg.n_layers, cfg.n_heads) for both in lengths]
    work = [sum(contribution_work(cfg, n) for n in both) for both in lengths]
    monkeypatch.setattr("negprobe.attention.affordable._ZEROING_WORK", {"cpu": work[0] + work[2], "other": 0})
    ran: list[str] = []
    run = AttentionProbe._activations
    monkeypatch.setattr(
        AttentionProbe, "_activations", lambda self, some: ran.extend(one.text for one in some) or run(self, some)
    )
    page, left_out, not_zeroed = write_pairs_page(probe, pairs, tmp_path / "p.html", max_bytes=sum(sizes) - sizes[1])
    text = page.read_text(encoding="utf-8")
    assert pairs[1].counterfactual not in ran and set(ran) == {
        side for pair in (pairs[0], *pairs[2:]) for side in (pair.original, pair.counterfactual)
    }
    assert [pair["zeroing"] for pair in index_of(text)["pairs"]] == [True, True, False, False]
    assert left_out[0].startswith("1 of 5 pairs are left out") and "pair 2 'not a a" in left_out[0]
    assert not_zeroed == ["Value zeroing was not computed for 2 of 4 pairs."]
    assert notes_of(text) == [*left_out, *not_zeroed]
    zeroed = probe.compare(pairs[0], zeroing=True).original.zeroing
    assert torch.equal(compared_for_page(probe, pairs[:1])[0].original.zeroing, zeroed)


def test_a_page_of_pairs_with_and_without_value_zeroing_warns_once_of_unknown_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = AttentionProbe(HookedEncoder.from_pretrained("tiny-negation", device="cpu"))
    pairs = [StatementPair(f"The {word} is open.", f"The {word} is not open.") for word in ("zebra", "gnu")]
    work = sum(contribution_work(probe.model.cfg, n) for n in probe.lengths(pairs)[0])
    monkeypatch.setattr("negprobe.attention.affordable._ZEROING_WORK", {"cpu": work, "other": 0})
    with pytest.warns(NegprobeWarning) as found:
        _, _, not_zeroed = write_pairs_page(probe, pairs, tmp_path / "p.html")
    assert not_zeroed and len(found) == 1
    assert "gnu, zebra" in str(found[0].message)
