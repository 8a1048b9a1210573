"""Build the documentation site from the pages in ``docs/``, with their links checked: `make docs`.

Usage: python -m docs.site ZENSICAL

The pages are copied to ``build/docs/pages/``, with links that suit the site; Zensical renders them, and stops at a
link that leads nowhere. The site in ``build/docs/site/`` needs no server and no other host: `index.html` opens from
the folder, search included. It also has the Markdown of every page, and ``llms.txt``, their plain index for coding
assistants (https://llmstxt.org).
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUT = ROOT / "build" / "docs"
CONFIG = DOCS / "zensical.toml"
ASSETS = ("assets/iframe-worker.js", "assets/site.css")
PROJECT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages in the folder of the project; the site has them in ``project/``."""

_LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def sources() -> dict[Path, str]:
    """Return every page and its address in the site, relative to the site's root."""
    pages = {page: page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))}
    pages |= {ROOT / name: f"project/{name.lower()}" for name in PROJECT_PAGES}
    return {page: address.replace("README.md", "index.md") for page, address in pages.items()}


def configuration() -> str:
    """Return the configuration, with the pages that its patterns match."""

    def pages(match: re.Match[str]) -> str:
        found = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.glob(match[2]))
        return "".join(f'{match[1]}"{page}",\n' for page in found)

    return re.sub(r'^( +)"([^"]*\*[^"]*)",\n', pages, CONFIG.read_text(encoding="utf-8"), flags=re.MULTILINE)


def navigation(entries: Sequence[Any], section: str = "") -> Iterator[tuple[str, str]]:
    """Yield the uppermost section and the address of each page, in order."""
    for entry in entries:
        if isinstance(entry, str):
            yield section, entry
        else:
            for name, below in entry.items():
                yield from navigation([below] if isinstance(below, str) else below, section or name)


def with_links_of_the_site(text: str, page: Path, pages: dict[Path, str], files: set[Path]) -> str:
    """Return a page's text with relative links that are valid in the site; add linked other files to ``files``."""
    here = Path(pages[page]).parent

    def link(match: re.Match[str]) -> str:
        if ":" in match[2] or match[2].startswith("/"):
            return match[0]
        target = (page.parent / match[2]).resolve()
        target = target / "README.md" if target.is_dir() else target
        if target == ROOT / "README.md":
            target = DOCS / "README.md"
        if target not in pages:
            files.add(target)
        address = pages.get(target) or f"files/{target.relative_to(ROOT).as_posix()}"
        return f"{match[1]}{os.path.relpath(address, here)}{match[3] or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def heading_and_summary(text: str) -> tuple[str, str]:
    """Return a page's title and the first sentence of its first paragraph, without formatting."""
    body = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    title = re.search(r"^# (.+)$", body, re.MULTILINE)
    assert title, text[:80]
    paragraphs = (" ".join(part.split()) for part in body[title.end() :].split("\n\n"))
    first = next((part for part in paragraphs if re.match(r"[\w`*\[]", part)), "")
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", first).replace("**", "")
    return title[1].replace("`", ""), re.split(r"(?<=[.:!?]) ", plain, maxsplit=1)[0].rstrip(":")


def index_of_pages(config: dict[str, Any], pages: dict[Path, str]) -> str:
    """Return ``llms.txt``: each page in the order of the navigation, with a sentence about it."""
    at = {address: page for page, address in pages.items()}
    lines = [f"# {config['project']['site_name']}", "", f"> {config['project']['site_description']}", ""]
    last = "Home"
    for section, address in navigation(config["project"]["nav"]):
        if section != last:
            lines += ["", f"## {section}", ""]
            last = section
        title, summary = heading_and_summary(at[address].read_text(encoding="utf-8"))
        lines.append(f"- [{title}]({address})" + (f": {summary}" if summary else ""))
    return "\n".join(lines) + "\n"


def write_pages(out: Path) -> None:
    """Write what Zensical builds the site from, to ``out``."""
    pages, files = sources(), set[Path]()
    for page, address in pages.items():
        copy = out / "pages" / address
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(with_links_of_the_site(page.read_text(encoding="utf-8"), page, pages, files), encoding="utf-8")
    for file in sorted(files) + [DOCS / name for name in ASSETS] + sorted(DOCS.rglob("*.svg")):
        inside = file.is_relative_to(DOCS) and file not in files
        copy = out / "pages" / (file.relative_to(DOCS) if inside else Path("files") / file.relative_to(ROOT))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    (out / CONFIG.name).write_text(configuration(), encoding="utf-8")


class Links(HTMLParser):
    """The links, resources and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.resources: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record what the tag names."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") not in {"prev", "next", "canonical"}:
            self.resources.add(given.get("href", ""))
        elif "src" in given:
            self.resources.add(given["src"])


def faults(site: Path) -> list[str]:
    """Return every link and resource of a built site that leads nowhere, and every resource on another host."""
    pages = {page.resolve(): Links(page.read_text(encoding="utf-8")) for page in sorted(site.rglob("*.html"))}
    found = []
    for page, on in pages.items():
        name = page.relative_to(site.resolve())
        found += [f"{name}: another host: {one}" for one in sorted(on.resources) if re.match(r"(https?:)?//", one)]
        for link in sorted(on.links | on.resources):
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            base = site if path.startswith("/") else page.parent
            target = (base / path.lstrip("/")).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                found.append(f"{name}: leads nowhere: {link}")
    return found


def main(zensical: str) -> int:
    """Build the site; the exit code is 1 if a link leads nowhere or a page needs another host."""
    shutil.rmtree(OUT, ignore_errors=True)
    write_pages(OUT)
    command = [str(Path(zensical).absolute()), "build", "--strict"]
    built = subprocess.run(command, cwd=OUT, capture_output=True, text=True, check=False)
    if built.returncode:
        print(built.stdout, built.stderr, sep="\n", file=sys.stderr)
        return 1
    site = OUT / "site"
    config = tomllib.loads(configuration())
    for address in sources().values():
        shutil.copyfile(OUT / "pages" / address, site / address)
    (site / "llms.txt").write_text(index_of_pages(config, sources()), encoding="utf-8")
    found = faults(site)
    print("\n".join(found) or f"{site.relative_to(ROOT)}/index.html", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
