"""A browser for suites that drive front ends."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.console.conftest import ARGUMENTS, NAMES

TIMEOUT = 30_000
"""Milliseconds for what a page shows."""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run an installed Chromium; CHROMIUM names another one. Skips the test without any.

    Playwright keeps an event loop in this thread: servers start before it and stop after it.
    """
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("NOT RUN: install chromium, or name its program in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


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
