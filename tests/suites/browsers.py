"""A browser for suites that drive front ends."""

import contextlib
from collections.abc import Iterator

from playwright.sync_api import Browser, Page, expect

from tests.console.conftest import chromium

__all__ = ["chromium", "opened"]

TIMEOUT = 30_000
"""Milliseconds for what a page shows."""


@contextlib.contextmanager
def opened(browser: Browser) -> Iterator[Page]:
    """Open a page, and check at the end that no error has been thrown in it."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        yield page
        assert errors == []
    finally:
        context.close()
