"""The Markdown pages: their links and anchors resolve, and their sources stay readable in a terminal."""

import functools
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import site

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
WIDTH = 120
ROOTS = "app|bench|deploy|docs|migrations|requirements|tests"
MADE_BY_COMMANDS = {"bench/results/", "build/audit/"}
NAMED_PAGE = re.compile(r"(?<![\w/.-])(docs/(?:decisions/\d{4}(?![\w-])|[\w./-]+\.md))(?:#([\w-]+))?")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Enforced by"]
EXAMPLES = ("mistral", "dice", "crew")
"""Parts of the names of files that do not exist, in the examples of CONTRIBUTING."""


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines outside of fenced code."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


@functools.cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    found: set[str] = set()
    for _, line in prose(page):
        if heading := re.match(r"#+ (.+)", line):
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            names = itertools.chain([slug], (f"{slug}-{n}" for n in itertools.count(1)))
            found.add(next(name for name in names if name not in found))
    return found


@EVERY_PAGE
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", "\n".join(line for _, line in prose(page))):
        if "://" in target or target.startswith(("/", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


@EVERY_PAGE
def test_every_path_in_the_text_exists(page: Path) -> None:
    """Except in the changelog, which names files of former versions."""
    named = re.findall(rf"`((?:{ROOTS})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    missing = {name for name in named if not (ROOT / name).exists() and not any(part in name for part in EXAMPLES)}
    assert missing <= MADE_BY_COMMANDS or page.name == "CHANGELOG.md"


def test_every_page_that_the_code_names_exists() -> None:
    """In docstrings and in messages. An anchor after it names a heading."""
    missing = []
    for source in sorted((ROOT / "app").rglob("*.py")):
        for name, anchor in NAMED_PAGE.findall(source.read_text(encoding="utf-8")):
            pages = [ROOT / name] if name.endswith(".md") else list(ROOT.glob(f"{name}-*.md"))
            if not (pages and pages[0].exists()) or (anchor and anchor not in anchors(pages[0])):
                missing.append(f"{source.relative_to(ROOT)}: {name}#{anchor}")
    assert missing == []


@EVERY_PAGE
def test_no_line_is_wider_than_120_columns(page: Path) -> None:
    """Tables, long code and addresses aside, which cannot be wrapped, and the history of releases."""
    wide = [
        number
        for number, line in prose(page)
        if not line.startswith("|") and len(re.sub(r"`[^`]{60,}`", "", line)) > WIDTH and " " in line.strip()
    ]
    assert wide == [] or page.name == "CHANGELOG.md"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: str(page.stem))
def test_a_decision_has_the_five_sections_and_is_in_the_index(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert text.startswith(f"# {page.stem[:4]}: ")
    assert f"({page.name})" in page.with_name("README.md").read_text(encoding="utf-8")


def test_the_index_names_every_page_of_its_sections() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [
        f"{section}/{page.name}"
        for section in ("tutorial", "how-to", "reference", "explanation", "operations")
        for page in sorted((ROOT / "docs" / section).glob("*.md"))
    ]
    assert [page for page in pages if f"]({page})" not in index] == []


def test_the_navigation_of_the_site_has_every_page_once() -> None:
    """Add a new page to docs/zensical.toml."""
    listed = [address for _, address in site.navigation(tomllib.loads(site.configuration())["project"]["nav"])]
    assert sorted(listed) == sorted(site.sources().values())
