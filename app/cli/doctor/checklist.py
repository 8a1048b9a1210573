"""The checklist: its rows, how checks fill them in, and how they are printed."""

import contextlib
import http.client
import sys
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from app.base.errors import AgentServiceError
from app.cli.terminal.output import coloured, print_styled, rich_console

if TYPE_CHECKING:
    from rich.table import Table

PASS, FAIL, SKIPPED, NOT_ASKED = "pass", "fail", "skipped", "not asked"
COLOURS = {PASS: "green", FAIL: "red", SKIPPED: "red", NOT_ASKED: "dim"}
MAX_DETAIL_LENGTH = 300
MIN_WIDTH = 72
"""Columns of a terminal below which rows are not printed as a grid."""

CheckFunction = Callable[[], tuple[bool, str]]
"""Returns whether the check holds, and what was seen.

Raises ``CheckUnavailable`` if it cannot be evaluated, ``OSError`` if something does not answer.
"""


class CheckUnavailable(Exception):
    """The check cannot be evaluated; the message says why. It does not count as held."""


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; ``status`` is ``pass``, ``fail``, ``skipped`` (could not be evaluated) or ``not asked``."""

    area: str
    check: str
    status: str
    command: str = ""
    expected: str = ""
    seen: str = ""


class Checklist:
    """Run checks and collect their rows.

    ``skip``: names of checks and areas to omit; ``on_check`` is called with the name of each check before it runs,
    ``on_row`` with each row.
    """

    def __init__(
        self,
        skip: Collection[str] = (),
        on_row: Callable[[CheckRow], None] = lambda _: None,
        on_check: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.rows: list[CheckRow] = []
        self.unused = set(skip)
        self._skip = frozenset(skip)
        self._on_row = on_row
        self._on_check = on_check

    def check(self, area: str, check: str, command: str, expected: str, evaluate: CheckFunction) -> bool:
        """Run a check, add its row and return whether it holds."""
        if check in self._skip or area in self._skip:
            self.omit(area, check, "--skip")
            return False
        self._on_check(f"{area}: {check}")
        try:
            holds, seen = evaluate()
            status = PASS if holds else FAIL
        except CheckUnavailable as error:
            status, seen = SKIPPED, str(error)
        except (OSError, http.client.HTTPException, AgentServiceError) as error:
            status, seen = FAIL, str(error) or type(error).__name__
        seen = " ".join(seen.split())[:MAX_DETAIL_LENGTH]
        self._add(CheckRow(area=area, check=check, status=status, command=command, expected=expected, seen=seen))
        return status == PASS

    def omit(self, area: str, check: str, reason: str) -> None:
        """Add a row for a check that does not apply or is not wanted."""
        self._add(CheckRow(area=area, check=check, status=NOT_ASKED, seen=reason))

    def _add(self, row: CheckRow) -> None:
        self.unused -= {row.area, row.check}
        self.rows.append(row)
        self._on_row(row)

    @property
    def holds(self) -> bool:
        """Whether all checks hold, except the omitted ones."""
        return all(row.status in {PASS, NOT_ASKED} for row in self.rows)

    def counts(self) -> dict[str, int]:
        """Count the rows by status."""
        return {status: sum(row.status == status for row in self.rows) for status in (PASS, FAIL, SKIPPED, NOT_ASKED)}

    def document(self) -> dict[str, Any]:
        """Return the JSON document, a stable format for programs."""
        rows = [msgspec.to_builtins(row) for row in self.rows]
        return {"version": 1, "holds": self.holds, "counts": self.counts(), "rows": rows}


@contextlib.contextmanager
def printed(skip: Collection[str]) -> Iterator[Checklist]:
    """Print the rows of a checklist as they come, and its counts at the end; on a terminal also what is running."""
    if not coloured(sys.stdout):
        checklist = Checklist(skip, lambda row: print(_plain(row), flush=True))
        yield checklist
    else:
        console = rich_console(sys.stdout)
        with console.status("", spinner_style="cyan") as status:
            checklist = Checklist(
                skip,
                lambda row: console.print(_grid(row) if console.width >= MIN_WIDTH else _plain(row)),
                status.update,
            )
            yield checklist
    holds, counts = checklist.holds, checklist.counts()
    verdict = ("all checks hold", "bold green") if holds else ("not all checks hold", "bold red")
    print_styled(("\n  ", ""), verdict, (f": {', '.join(f'{count} {status}' for status, count in counts.items())}", ""))


def _plain(row: CheckRow) -> str:
    """Format a row: the check and what was seen, then what was expected and the command to see it."""
    line = f"  {row.status.ljust(9)}  {row.area.ljust(9)}  {row.check.ljust(28)}  {row.seen}"
    return "\n".join([line.rstrip(), *(f"{'':24}{name.ljust(8)}  {text}" for name, text in _details(row))])


def _grid(row: CheckRow) -> "Table":
    """Format a row for a terminal: the same, with long texts folded in their column."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(width=11, style=COLOURS[row.status])
    grid.add_column(width=9)
    grid.add_column(width=20)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row(
        f"  {row.status}", row.area, row.check, row.seen, style="bold" if row.status in {FAIL, SKIPPED} else ""
    )
    for name, text in _details(row):
        grid.add_row("", "", name, text, style="dim")
    return grid


def _details(row: CheckRow) -> tuple[tuple[str, str], ...]:
    return () if row.status == NOT_ASKED else (("expected", row.expected), ("command", row.command))
