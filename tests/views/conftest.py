"""A comparison to draw, what a figure writes, and a browser to look at pages with."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from negprobe.attention import Comparison
from tests.support.sample_comparisons import ORIGINAL, comparison_of


@pytest.fixture
def comparison() -> Comparison:
    return comparison_of(ORIGINAL)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Figure], list[Text]]]:
    """What a figure writes when it is drawn: the texts that are not empty, ticks outside the axes not among them."""
    draw = Text.draw

    def texts_of(figure: Figure) -> list[Text]:
        found: list[Text] = []

        def note(text: Text, renderer: object) -> None:
            if text.get_visible() and text.get_text().strip():
                found.append(text)
            draw(text, renderer)

        with monkeypatch.context() as patched:
            patched.setattr(Text, "draw", note)
            figure.draw_without_rendering()
        return found

    yield texts_of


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(names)} is installed")
    quiet = ["background-networking", "component-update", "sync", "gpu"]
    args = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()
