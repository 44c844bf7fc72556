"""Reports in a real browser without a network: nothing is asked for, and on a phone nothing is wider than the page."""

from pathlib import Path
from typing import Any

import pytest

from negprobe import HookedEncoder, builtin_pairs
from negprobe.study import run_study
from negprobe.study.comparison import compare_studies
from negprobe.study.saved import read_study
from negprobe.views import write_study
from negprobe.views.report.comparison import write_comparison
from tests.support.browser_waits import wait_until


@pytest.fixture(scope="module")
def pages(two_studies: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    model = HookedEncoder.from_pretrained("tiny-negation", device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        # The page holds PNGs alone.
        patch.setattr("negprobe.views.report.write.save_figure", lambda figure, path: path)
        report = write_study(run_study(model, builtin_pairs()[::28], patch_pairs=4), folder, "negprobe study")
    comparison = write_comparison(compare_studies(*map(read_study, two_studies)), folder / "ab.html")
    return {"report": report, "comparison": comparison}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_on_a_phone_and_a_desk_without_requests_or_complaints(
    browser: Any, pages: dict[str, Path], name: str, scheme: str
) -> None:
    for width in (390, 1300):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message, to=complaints: to.append(message.text))
        page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        page.on("request", lambda request, to=requests: to.append(request.url))
        page.goto(pages[name].as_uri())
        if name == "report":
            page.locator("#negprobe-views").scroll_into_view_if_needed()
            wait_until(page, "() => document.querySelectorAll('canvas').length > 3 * 4")
        page.evaluate(
            "() => document.querySelectorAll('main > section > details').forEach((one) => { one.open = true; })"
        )
        # While the maps are drawn for the first time they may be wider for a moment.
        wait_until(page, "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert not complaints
        assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    """Contrast of at least 4.5, the WCAG's level AA."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(pages[name].as_uri())
    for element in ("h1", "p", "figcaption", "td", "a"):
        colour, ground = page.evaluate(
            """(name) => {
              const element = document.querySelector(name);
              let at = element, ground = "rgba(0, 0, 0, 0)";
              while (at && ground === "rgba(0, 0, 0, 0)") {
                ground = getComputedStyle(at).backgroundColor;
                at = at.parentElement;
              }
              return [getComputedStyle(element).color, ground];
            }""",
            element,
        )
        assert contrast(colour, ground) >= 4.5, (element, colour, ground)
    page.close()


def contrast(*colours: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05), of relative luminances."""
    lights = sorted(luminance(colour) for colour in colours)
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
