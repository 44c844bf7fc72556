"""The page in a real browser that has no network: what is drawn, what the controls do, and what cannot run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from negprobe.attention import Comparison, StatementAttention
from negprobe.views import write_page
from tests.support.browser_waits import wait_until
from tests.support.sample_comparisons import (
    CUE,
    HEADS,
    LAYERS,
    ORIGINAL,
    comparison_of,
    sweep_of,
    with_raw,
    with_zeroing,
)

SIDES = ("original", "counterfactual", "difference")
CANVASES = 3 * (HEADS + 1)

# How far each cell of a head's small map is from white, read at the middle of the cell; null while there is none.
CELLS = """([side, head, n]) => {
  const canvas = document.querySelectorAll(`#negprobe-${side} canvas`)[head];
  if (!canvas || !canvas.width) return null;
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const at = (row, column) => 4 * (Math.floor((row + .5) * height / n) * width + Math.floor((column + .5) * width / n));
  const range = [...Array(n).keys()];
  return range.map((q) => range.map((k) => [0, 1, 2].map((c) => data[at(q, k) + c])));
}"""


# Which part of the original's enlarged map is in colour, across: the map itself, for its labels are grey.
COLOURED = """() => {
  const canvas = [...document.querySelectorAll("#negprobe-original canvas")].at(-1);
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colour = (x, y) => Math.abs(data[4 * (y * width + x)] - data[4 * (y * width + x) + 2]) > 90;
  const rows = [...Array(height).keys()];
  return [...Array(width).keys()].filter((x) => rows.some((y) => colour(x, y))).length / width;
}"""


class OpenPage:
    """A page in the browser, with everything it asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.route("**/*", self._only_the_file)

    def _only_the_file(self, route: Any) -> None:
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    def choose(self, name: str, value: str) -> None:
        self.page.select_option(f"select[name={name}]", value)

    def wait_for_canvases(self, n: int) -> None:
        wait_until(self.page, f"() => document.querySelectorAll('canvas').length === {n}")

    def wait_for_cells(self, side: str, head: int, n: int, expected: Callable[[np.ndarray], bool]) -> None:
        """Wait until a head's colours, [query, key, rgb], are as expected: drawing follows a choice by some frames."""
        for _ in range(100):
            colours = self.page.evaluate(CELLS, [side, head, n])
            if colours is not None and expected(np.array(colours)):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{side}, head {head} shows {colours}")

    def tokens(self, side: str) -> list[str]:
        return self.page.locator(f"[data-side={side}] .negprobe-tokens bdi").all_text_contents()

    def token(self, side: str, number: int) -> Any:
        return self.page.locator(f"[data-side={side}] .negprobe-tokens button").nth(number)

    def chosen(self) -> dict[str, list[str]]:
        """The marked tokens of each strip."""
        found = {side: f"[data-side={side}] .negprobe-tokens .chosen" for side in SIDES}
        return {side: self.page.locator(found[side]).all_text_contents() for side in SIDES}

    def told(self) -> str:
        return self.page.inner_text("#negprobe-summary")

    def cell(self, layer: int, head: int) -> Any:
        return self.page.locator("#negprobe-overview tr").nth(layer + 1).locator("button").nth(head)

    def value(self, name: str) -> str:
        return self.page.input_value(f"select[name={name}]")

    def zoomed(self) -> list[str]:
        return [self.page.inner_text(f"#negprobe-{side} h3:has-text('Zoomed')") for side in SIDES]


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def opened(*comparisons: Comparison, sweeps: Sequence[xr.Dataset] = ()) -> Iterator[OpenPage]:
        path = write_page(comparisons, tmp_path / "page.html", title="Test", sweeps=sweeps)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        shown = OpenPage(page)
        page.goto(path.as_uri())
        page.wait_for_selector("#negprobe-difference canvas")
        yield shown
        page.close()

    return opened


def shifted(attention: StatementAttention) -> StatementAttention:
    """The query attends to one key: `layer + head` further on."""
    n = len(attention.statement)
    key = [[[(q + layer + head) % n for q in range(n)] for head in range(HEADS)] for layer in range(LAYERS)]
    return with_raw(attention, torch.nn.functional.one_hot(torch.tensor(key), n).float())


@pytest.fixture
def shifting(comparison: Comparison) -> Comparison:
    return replace(comparison, original=shifted(comparison.original), counterfactual=shifted(comparison.counterfactual))


def dark_at(keys: list[int]) -> Callable[[np.ndarray], bool]:
    expected = np.eye(len(keys), dtype=bool)[keys]
    return lambda colours: bool((((255 - colours).sum(-1) > 300) == expected).all())


def test_every_head_of_every_layer_is_drawn_on_both_sides(open_page: Any, shifting: Comparison) -> None:
    with open_page(shifting) as shown:
        for layer in range(LAYERS):
            shown.choose("layer", str(layer))
            for side in ("original", "counterfactual"):
                n = len(getattr(shifting, side).statement)
                for head in range(HEADS):
                    shown.wait_for_cells(side, head, n, dark_at([(q + layer + head) % n for q in range(n)]))
            shown.wait_for_canvases(CANVASES)


def test_the_page_asks_for_nothing_and_complains_of_nothing(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison, comparison) as shown:
        for name, value in (("layer", "1"), ("measure", "norm"), ("pair", "1"), ("head", "0"), ("head", "all")):
            shown.choose(name, value)
        shown.wait_for_canvases(CANVASES)
        assert shown.complaints == []
        assert [url for url in shown.requests if not url.startswith("file:")] == []
        assert len(shown.requests) == 1


@pytest.mark.slow
def test_the_difference_is_red_for_more_blue_for_less_and_white_for_none(
    open_page: Any, comparison: Comparison
) -> None:
    n = len(ORIGINAL)
    before, after = (torch.zeros_like(side.raw) for side in (comparison.original, comparison.counterfactual))
    before[..., 1, 2] = 0.5
    after[..., CUE + 1, CUE + 1] = 0.5  # "open", which stands before the cue in the original
    after[..., CUE, 0] = 0.9  # the cue itself has no partner
    changed = replace(
        comparison,
        original=with_raw(comparison.original, before),
        counterfactual=with_raw(comparison.counterfactual, after),
    )

    def expected(colours: np.ndarray) -> bool:
        red, blue = colours[..., 0] - colours[..., 2] > 90, colours[..., 2] - colours[..., 0] > 90
        return np.argwhere(red).tolist() == [[CUE, CUE]] and np.argwhere(blue).tolist() == [[1, 2]]

    with open_page(changed) as shown:
        shown.wait_for_cells("difference", 0, n, expected)


@pytest.mark.slow
def test_the_measure_can_be_chosen(open_page: Any, comparison: Comparison) -> None:
    n = len(ORIGINAL)
    with open_page(comparison) as shown:
        shown.choose("measure", "similarity")
        # A head's output is like itself: the diagonal is the red end of the scale.
        shown.wait_for_cells("original", 0, n, lambda colours: np.abs(np.diagonal(colours).T - [178, 24, 43]).max() < 8)
        scale = shown.page.inner_text("[data-side=original] .negprobe-scale")
        assert [part.strip() for part in scale.split("\n") if part.strip()] == ["-1.00", "1.00", "cosine"]
        shown.choose("measure", "norm")
        largest = max(comparison.original.norm[0].max(), comparison.counterfactual.norm[0].max())
        assert f"{largest:.3g}" in shown.page.inner_text("[data-side=counterfactual] .negprobe-scale")


def test_the_pair_can_be_chosen_and_its_cue_and_lone_tokens_are_marked(open_page: Any, comparison: Comparison) -> None:
    other = comparison_of(("[CLS]", "birds", "fly", "[SEP]"), cue="never", at=2)
    lone = replace(other, alignment=replace(other.alignment, original=(0, 1, 3), counterfactual=(0, 1, 4)))
    with open_page(comparison, lone) as shown:
        assert shown.tokens("counterfactual") == [*ORIGINAL[:CUE], "not", *ORIGINAL[CUE:]]
        shown.choose("pair", "1")
        assert shown.tokens("original") == ["[CLS]", "birds", "fly", "[SEP]"]
        assert shown.tokens("counterfactual") == ["[CLS]", "birds", "never", "fly", "[SEP]"]
        assert shown.tokens("difference") == ["[CLS]", "birds", "[SEP]"]
        assert shown.page.locator("button.cue").all_text_contents() == ["never"]
        assert shown.page.locator("button.unmatched").all_text_contents() == ["fly", "fly"]


@pytest.mark.slow
def test_a_head_clicked_in_one_view_is_enlarged_in_all_and_stays_so(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        assert shown.zoomed() == ["Head 0 Zoomed"] * 3
        shown.page.locator("#negprobe-original h4").nth(2).click()
        shown.page.mouse.move(5, 5)
        shown.page.wait_for_timeout(200)
        assert shown.zoomed() == ["Head 2 Zoomed"] * 3
        shown.choose("layer", "1")
        shown.page.wait_for_timeout(200)
        assert shown.zoomed() == ["Head 2 Zoomed"] * 3


@pytest.mark.slow
def test_a_head_pointed_at_in_one_view_is_enlarged_in_all_until_the_pointer_leaves(
    open_page: Any, comparison: Comparison
) -> None:
    with open_page(comparison) as shown:
        shown.page.locator("#negprobe-counterfactual h4").nth(3).hover()
        shown.page.wait_for_timeout(200)
        assert shown.zoomed() == ["Head 3 Zoomed"] * 3
        shown.page.mouse.move(5, 5)
        shown.page.wait_for_timeout(200)
        assert shown.zoomed() == ["Head 0 Zoomed"] * 3


@pytest.mark.slow
def test_one_head_can_be_shown_alone(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.choose("head", "1")
        shown.wait_for_canvases(3)
        shown.choose("head", "all")
        shown.wait_for_canvases(CANVASES)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "canvases"), [(2, CANVASES), (30, CANVASES), (128, 3)])
def test_short_and_long_statements_are_drawn(open_page: Any, n: int, canvases: int) -> None:
    tokens = ("[CLS]", *(f"w{i}" for i in range(n - 2)), "[SEP]")
    with open_page(comparison_of(tokens, at=1, layers=1)) as shown:
        shown.wait_for_canvases(canvases)
        shown.choose("measure", "similarity")
        shown.page.wait_for_timeout(500)
        widths = shown.page.evaluate("[...document.querySelectorAll('canvas')].map((canvas) => canvas.clientWidth)")
        assert min(widths) > 40
        assert 200 < max(widths) <= shown.page.evaluate("document.querySelector('.negprobe-view').clientWidth")
        assert shown.complaints == []


HOSTILE = (
    "[CLS]",
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<!--",
    "\"'`&amp;${window.pwned=1}",
    "😀",
    "\u202eשלום",
    "x" * 200,
    "[SEP]",
)


@pytest.mark.slow
def test_hostile_tokens_are_text_and_do_not_run(open_page: Any) -> None:
    with open_page(comparison_of(HOSTILE)) as shown:
        shown.wait_for_canvases(CANVASES)
        assert shown.tokens("original") == list(HOSTILE)
        assert shown.page.evaluate("window.pwned") is None
        assert shown.page.locator("#negprobe-views :is(script, img)").count() == 0
        assert shown.complaints == []
        # A long word neither widens the page nor squeezes the map.
        shown.choose("measure", "similarity")
        shown.page.wait_for_timeout(200)
        assert shown.page.evaluate(COLOURED) > 0.6
        assert shown.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
def test_a_script_that_gets_in_does_not_run(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.pwned = 1";
              document.body.append(script);
              document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.pwned=1'>");
            }"""
        )
        shown.page.wait_for_timeout(200)
        assert shown.page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in complaint for complaint in shown.complaints)
        assert len(shown.requests) == 1


def everywhere(*tokens: str) -> dict[str, list[str]]:
    return {side: list(tokens) for side in SIDES}


OPEN = {"original": 4, "counterfactual": 5}  # where "open" stands


@pytest.mark.slow
def test_pointing_at_a_token_marks_its_partner_and_tells_what_it_reads(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.choose("layer", "1")
        shown.choose("head", "2")
        shown.wait_for_canvases(3)
        shown.token("counterfactual", OPEN["counterfactual"]).hover()
        assert shown.chosen() == everywhere("open")
        for side in ("original", "counterfactual"):
            attention = getattr(comparison, side)
            row = attention.raw[1, 2, OPEN[side]]
            most = int(row.argmax())
            assert f"{side}: {attention.statement.tokens[most]} {row[most]:.3f}" in shown.told()
        shown.page.mouse.move(5, 5)
        assert shown.chosen() == everywhere()
        assert shown.told() == ""


@pytest.mark.slow
def test_tokens_are_coloured_by_what_the_pointed_one_reads(open_page: Any, shifting: Comparison) -> None:
    with open_page(shifting) as shown:
        shown.choose("head", "1")
        shown.wait_for_canvases(3)
        shown.token("original", 2).hover()
        shares = shown.page.evaluate(
            """() => [...document.querySelectorAll("[data-side=original] .negprobe-tokens button")]
                .map((button) => button.style.getPropertyValue("--share"))"""
        )
        assert shares == ["100%" if i == 3 else "0%" for i in range(len(ORIGINAL))]


@pytest.mark.slow
def test_a_token_without_a_partner_is_marked_alone_and_told_so(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.token("counterfactual", CUE).hover()
        assert shown.chosen() == {"original": [], "counterfactual": ["not"], "difference": []}
        assert "“not”, which has no aligned partner" in shown.told()


@pytest.mark.slow
def test_a_clicked_token_stays_until_escape(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.token("original", OPEN["original"]).click()
        shown.page.mouse.move(5, 5)
        shown.page.evaluate("document.activeElement.blur()")
        assert shown.chosen() == everywhere("open")
        shown.choose("layer", "2")
        shown.page.wait_for_timeout(200)
        assert shown.chosen() == everywhere("open")
        assert "layer 2" in shown.told()
        shown.page.keyboard.press("Escape")
        assert shown.chosen() == everywhere()


@pytest.mark.slow
def test_another_pair_forgets_the_token_that_was_kept(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison, comparison_of(("[CLS]", "birds", "fly", "[SEP]"), at=2)) as shown:
        shown.token("original", 6).click()
        shown.choose("pair", "1")
        shown.wait_for_canvases(CANVASES)
        assert shown.chosen() == everywhere()
        assert shown.complaints == []


@pytest.mark.slow
def test_the_keyboard_reaches_tokens_and_heads(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        shown.token("original", 0).focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            shown.page.keyboard.press(key)
        assert shown.chosen()["original"] == [ORIGINAL[1]]
        shown.page.keyboard.press("Enter")
        shown.page.evaluate("document.activeElement.blur()")
        assert shown.chosen()["counterfactual"] == [ORIGINAL[1]]
        shown.cell(0, 0).focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
            shown.page.keyboard.press(key)
        shown.wait_for_canvases(3)
        assert (shown.value("layer"), shown.value("head")) == ("1", "2")


@pytest.mark.slow
def test_a_cell_of_the_overview_opens_its_head_and_tells_its_metric(open_page: Any, comparison: Comparison) -> None:
    table = comparison.metrics.to_dataframe()
    with open_page(comparison) as shown:
        assert shown.cell(2, 3).get_attribute("title").endswith(f"{table.loc[(2, 3), 'max_attention_diff']:.3g}")
        shown.choose("metric", "value_output_correlation")
        value = float(shown.cell(2, 3).get_attribute("title").split()[-1])
        assert value == pytest.approx(table.loc[(2, 3), "value_output_correlation"], rel=1e-2)
        shown.cell(2, 3).click()
        shown.wait_for_canvases(3)
        assert (shown.value("layer"), shown.value("head")) == ("2", "3")
        assert shown.page.locator("#negprobe-overview [aria-current=true]").count() == 1
        assert shown.cell(2, 3).get_attribute("aria-current") == "true"


@pytest.mark.slow
def test_zeroing_is_one_map_of_all_heads_where_there_is_one(open_page: Any, comparison: Comparison) -> None:
    with open_page(with_zeroing(comparison), comparison) as shown:
        shown.choose("measure", "zeroing")
        shown.wait_for_canvases(3)
        assert shown.page.locator("select[name=head]").is_disabled()
        shown.token("original", 1).hover()
        row = comparison.original.raw[0].mean(dim=0)[1]
        most = int(row.argmax())
        assert f"all heads, change of the output, 1 − cos. original: {ORIGINAL[most]} {row[most]:.3f}" in shown.told()
        shown.choose("pair", "1")
        shown.wait_for_canvases(CANVASES)
        assert shown.value("measure") == "raw"
        # Not is_disabled(), which some versions of Playwright answer for the option's select.
        assert shown.page.locator("option[value=zeroing]:disabled").count() == 1


@pytest.mark.slow
def test_pairs_are_listed_with_their_metrics_sorted_and_chosen(open_page: Any, comparison: Comparison) -> None:
    metrics = comparison.metrics
    small, large = (
        replace(
            comparison_of(ORIGINAL, cue=cue),
            metrics=metrics.assign(max_attention_diff=xr.full_like(metrics["max_attention_diff"], value)),
        )
        for cue, value in (("never", 0.01), ("hardly", 0.99))
    )
    with open_page(comparison, small, large) as shown:
        shown.page.click("#negprobe-list summary")
        rows = shown.page.locator("#negprobe-list tbody tr")
        assert "0.0100" in rows.nth(1).inner_text()
        shown.page.click("#negprobe-list th[scope=col] button:has-text('largest attention difference')")
        assert "hardly" in rows.nth(0).inner_text() and "never" in rows.nth(2).inner_text()
        assert shown.page.locator("[aria-sort=descending]").count() == 1
        shown.page.click("#negprobe-list th[scope=col] button:has-text('largest attention difference')")
        assert "never" in rows.nth(0).inner_text()
        rows.nth(0).locator("button").click()
        shown.wait_for_canvases(CANVASES)
        assert shown.value("pair") == "1"
        assert shown.tokens("counterfactual")[CUE] == "never"
        assert rows.nth(0).get_attribute("aria-current") == "true"


@pytest.mark.slow
def test_effects_of_patching_are_shown_on_the_tokens_layer_by_layer(open_page: Any, comparison: Comparison) -> None:
    other = sweep_of(ORIGINAL[:3]).assign_attrs(site="mlp_out", direction="noising")
    with open_page(comparison, sweeps=[sweep_of(ORIGINAL), other]) as shown:
        lines = shown.page.locator("#negprobe-patching .negprobe-lines > div")
        assert lines.count() == LAYERS
        assert [lines.nth(i).locator("h4").inner_text() for i in range(LAYERS)] == [
            "before layer 0",
            "before layer 1",
            "before layer 2",
        ]
        assert "".join(lines.nth(1).inner_text().split()).endswith("".join(ORIGINAL))
        background = """(name) => [...document.querySelectorAll(`#negprobe-patched-2 *`)]
            .filter((one) => one.children.length === 0 && one.textContent.trim() === name)
            .map((one) => getComputedStyle(one.closest("[style*=background]") ?? one).backgroundColor)"""
        # The last token of the last layer has the largest effect, 2 of 2: the red end of the scale.
        assert shown.page.evaluate(background, "[SEP]") == ["rgb(178, 24, 43)"]
        shown.choose("sweep", "1")
        assert lines.nth(0).locator("h4").inner_text() == "layer 0"
        assert "door" in lines.nth(0).inner_text() and "open" not in lines.nth(0).inner_text()
        assert shown.complaints == []


@pytest.mark.slow
def test_without_sweeps_there_is_no_place_for_them(open_page: Any, comparison: Comparison) -> None:
    with open_page(comparison) as shown:
        assert not shown.page.locator("#negprobe-patching").is_visible()
        assert not shown.page.locator("#negprobe-list").is_visible()
