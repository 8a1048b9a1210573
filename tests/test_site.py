"""The documentation site: every page has its place, links are rewritten, and a broken link or a foreign host fails it.

`make docs` builds all of it, in an environment of its own.
"""

import tomllib
from pathlib import Path

from docs import site

CONFIG = tomllib.loads(site.configuration())
PAGE = site.DOCS / "how-to" / "agents.md"


def test_links_lead_to_pages_of_the_site_and_to_copies_of_files() -> None:
    files: set[Path] = set()
    text = (
        "[a](people.md#x) [b](../../CONTRIBUTING.md) [c](../../Makefile) [d](https://x.org/y.md)\n```\n[e](f.md)\n```\n"
    )
    assert site.with_links_of_the_site(text, PAGE, site.sources(), files) == (
        "[a](people.md#x) [b](../project/contributing.md) [c](../files/Makefile) [d](https://x.org/y.md)\n"
        "```\n[e](f.md)\n```\n"
    )
    assert files == {site.ROOT / "Makefile"}


def test_the_index_for_assistants_names_every_page_with_a_sentence() -> None:
    lines = site.index_of_pages(CONFIG, site.sources()).splitlines()
    assert len([line for line in lines if line.startswith("- [")]) == len(site.sources())
    assert lines[lines.index("## How-to") + 2].startswith("- [Agents and tools](how-to/agents.md): ")
    assert [line for line in lines if line.startswith("- [") and "): " not in line] == []


def test_a_broken_link_and_a_foreign_host_are_faults(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<link rel="stylesheet" href="https://fonts.example/x.css"><h1 id="top"></h1>'
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a><a href="https://x.org">4</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p><script src="gone.js"></script><a href="a.html#top">1</a>')
    assert site.faults(tmp_path) == [
        "a.html: another host: https://fonts.example/x.css",
        "a.html: leads nowhere: b.html#gone",
        "a.html: leads nowhere: c.html",
        "b.html: leads nowhere: gone.js",
    ]
