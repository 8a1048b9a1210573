"""The table of files in CONTRIBUTING, which a newcomer finds from that page alone."""

import re

import pytest

from tests.test_pages import ROOT, anchors

PAGE = ROOT / "CONTRIBUTING.md"
TEXT = PAGE.read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table whose head begins so, by their first cell."""
    table = TEXT.partition(heading)[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return {re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", first): rest for first, *rest in cells}


FILES = rows("| a … | read first |")


def test_the_table_has_a_row_for_everything_that_may_be_added() -> None:
    assert list(FILES) == list(rows("| a … | done when |"))
    assert len(FILES) == 12


@pytest.mark.parametrize("row", FILES)
def test_the_files_of_a_row_exist(row: str) -> None:
    cells = [re.findall(r"`([^`]+)`", cell) for cell in FILES[row]]
    assert all(cells)
    assert [name for cell in cells for name in cell if not (ROOT / name).exists()] == []
    assert all(name.startswith("tests/") for name in cells[2])


@pytest.mark.parametrize("row", FILES)
def test_every_row_has_a_worked_example(row: str) -> None:
    article = "An" if row.startswith("MCP") else "A"
    assert f"{article} {row}".lower().replace(" ", "-") in anchors(PAGE)
    example = TEXT.partition(f"### {article} {row}\n")[2].partition("\n### ")[0]
    assert "Example: " in example
    assert len(re.findall(r"^\d\. ", example, re.MULTILINE)) >= 3
