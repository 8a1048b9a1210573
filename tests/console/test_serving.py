"""The console's addresses: who gets the page, how it is cached, and what it may load."""

import gzip
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from app.console.assets import FIRST, assets
from app.console.controller import ConsoleController, ContentsController, names_html
from tests.web.serving import application, serving

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MAX_COMPRESSED = 250_000
PERFORMANCE = Path(__file__).parents[2] / "docs/explanation/performance.md"


@pytest.mark.parametrize(
    "accept, named",
    [
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("text/html", True),
        ("TEXT/HTML;q=0.2, */*", True),
        ("application/json, text/html;q=0", False),
        ("text/html;q=0.0", False),
        (BROWSER["accept"], True),
    ],
)
def test_html_is_for_clients_that_name_it(accept: str, named: bool) -> None:
    assert names_html(accept) is named


async def test_browsers_get_the_page_and_others_the_table_of_contents() -> None:
    async with serving(ConsoleController) as client:
        page = await client.get("/", headers=BROWSER)
        contents = await client.get("/", headers={"accept": "*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == contents.headers["vary"] == "Accept"
    assert page.headers["cache-control"] == "no-cache"
    assert contents.json()["console"] == "console/"
    assert contents.json()["api"] == "api/v1"
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|style=", page.text)


async def test_a_server_without_the_console_has_its_table_of_contents() -> None:
    async with serving(ContentsController) as client:
        contents = await client.get("/", headers=BROWSER)
        assert "console" not in contents.json()
        assert contents.json()["docs"] == "docs"
        assert (await client.get("/console", headers=BROWSER)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/console", "/console/", "/console/inbox", "/console/threads/x/history"])
async def test_every_address_finds_its_files_under_any_prefix(path: str) -> None:
    async with serving(ConsoleController) as client:
        page = await client.get(path, headers=BROWSER)
        files: list[str] = []
        for prefix in ("", "/agents"):
            address = f"http://host{prefix}{path}"
            root = re.search(r'data-root="([^"]*)"', page.text)
            assert root is not None
            assert urljoin(address, root[1]) == f"http://host{prefix}/"
            files = [urljoin(address, one) for one in re.findall(r'(?:href|src)="([^"]*assets[^"]*)"', page.text)]
            assert len(files) > 10
            base = f"http://host{prefix}/console/assets/"
            assert all(file.startswith(base) for file in files)
        for file in files[:3]:
            assert (await client.get(file.removeprefix("http://host/agents"))).status_code == 200


async def test_files_are_cached_for_ever_and_the_page_is_revalidated() -> None:
    version = assets().version
    async with serving(ConsoleController) as client:
        file = await client.get(f"/console/assets/{version}/js/app.js", headers={"accept-encoding": "gzip"})
        plain = await client.get(f"/console/assets/{version}/js/app.js", headers={"accept-encoding": "identity"})
        other = await client.get("/console/assets/0123456789abcdef/js/app.js")
        page = await client.get("/", headers=BROWSER)
        again = await client.get("/", headers={**BROWSER, "if-none-match": page.headers["etag"]})
        missing = await client.get(f"/console/assets/{version}/js/none.js")
        outside = await client.get(f"/console/assets/{version}/..%2F..%2Fcontroller.py")
    assert file.headers["content-encoding"] == "gzip"
    assert file.content == plain.content == assets().files["js/app.js"].content
    assert "content-encoding" not in plain.headers
    assert file.headers["vary"] == "Accept-Encoding"
    assert "immutable" in file.headers["cache-control"]
    assert file.headers["content-type"].startswith("text/javascript")
    assert other.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert missing.status_code == outside.status_code == 404


def test_the_console_is_as_small_as_the_documentation_says() -> None:
    found = assets()
    sizes = {name: len(file.compressed) for name, file in found.files.items() if not name.endswith(".txt")}
    page = len(gzip.compress(found.page.encode()))
    first = page + sum(size for name, size in sizes.items() if name.startswith(FIRST) or "/" not in name)
    stated = re.search(r"All files take (\d+) kB compressed; a first visit loads (\d+) kB", PERFORMANCE.read_text())
    assert stated is not None
    assert [int(size) for size in stated.groups()] == pytest.approx(
        [(page + sum(sizes.values())) / 1000, first / 1000], abs=3
    )
    assert page + sum(sizes.values()) <= MAX_COMPRESSED


def test_the_routes_are_not_part_of_the_api_document() -> None:
    schema = application(ConsoleController).openapi_schema.to_schema()
    assert not schema.get("paths")
