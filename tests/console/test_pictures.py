"""Every page, in both colour schemes: axe finds nothing, and the documentation shows it. SHOTS=1 makes its pictures."""

import os

import httpx
import pytest
from playwright.sync_api import Browser

from tests.console.conftest import assert_accessible, watching
from tests.console.pictures import FOLDER, MAX_BYTES, PAGES, ROOT, SIZE, fill, kinds, picture, show
from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(240)


def test_every_page_is_accessible_in_light_and_dark_and_has_its_picture(browser: Browser, console: Served) -> None:
    with httpx.Client(base_url=console.base, timeout=60) as http:
        ids = fill(http)
    with watching(browser, console) as watched:
        watched.page.set_viewport_size(SIZE)  # type: ignore[arg-type]
        for name in PAGES:
            watched.page.emulate_media(color_scheme="light", reduced_motion="reduce")
            show(watched.page, watched.url, name, ids)
            if os.environ.get("SHOTS"):
                (FOLDER / f"{name}.webp").write_bytes(picture(watched.page))
            assert_accessible(watched.page)
            watched.page.emulate_media(color_scheme="dark")
            watched.page.wait_for_selector("html[data-theme=dark]", state="attached")
            assert_accessible(watched.page, colours_alone=True)


def test_the_documentation_shows_every_page() -> None:
    assert {path.split("/")[0] for path, _ in PAGES.values()} == kinds()
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.webp" for name in PAGES}
    assert all(path.stat().st_size <= MAX_BYTES for path in FOLDER.iterdir())
    guide = (ROOT / "docs" / "how-to" / "console.md").read_text()
    assert [name for name in PAGES if f"](../assets/console/{name}.webp)" not in guide] == []
