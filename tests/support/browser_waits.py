"""Waiting for a page whose policy forbids eval, which the older versions of Playwright's wait_for_function need."""

from typing import Any


def wait_until(page: Any, condition: str) -> None:
    """Wait until a function of the page's is true."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"after 30 seconds there is not: {condition}")
