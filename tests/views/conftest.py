"""A comparison to draw, and a browser to look at pages with."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from sample_comparisons import ORIGINAL, comparison_of

from negprobe.attention import Comparison


@pytest.fixture
def comparison() -> Comparison:
    return comparison_of(ORIGINAL)


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
