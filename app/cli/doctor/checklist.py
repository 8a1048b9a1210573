"""The checklist: its rows, how checks fill them in, and how they are printed."""

import http.client
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from app.base.errors import AgentServiceError
from app.cli.terminal.output import BOLD, DIM, GREEN, RED, styled

PASS, FAIL, SKIPPED, NOT_ASKED = "pass", "fail", "skipped", "not asked"
COLOURS = {PASS: GREEN, FAIL: RED, SKIPPED: RED, NOT_ASKED: DIM}
MAX_DETAIL_LENGTH = 300

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

    ``skip``: names of checks and areas to omit; ``on_row`` is called with each row.
    """

    def __init__(self, skip: Collection[str] = (), on_row: Callable[[CheckRow], None] = lambda _: None) -> None:
        self.rows: list[CheckRow] = []
        self.unused = set(skip)
        self._skip = frozenset(skip)
        self._on_row = on_row

    def check(self, area: str, check: str, command: str, expected: str, evaluate: CheckFunction) -> bool:
        """Run a check, add its row and return whether it holds."""
        if check in self._skip or area in self._skip:
            self.omit(area, check, "--skip")
            return False
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


def render_row(row: CheckRow) -> str:
    """Format a row: the check and what was seen, then what was expected and the command to see it."""
    status = styled(row.status.ljust(9), COLOURS[row.status])
    line = f"  {status}  {row.area.ljust(9)}  {row.check.ljust(28)}  {row.seen}"
    if row.status == NOT_ASKED:
        return line.rstrip()
    below = [f"{'':24}{styled(name.ljust(8), DIM)}  {text}" for name, text in _details(row)]
    return "\n".join([line.rstrip(), *below])


def _details(row: CheckRow) -> tuple[tuple[str, str], ...]:
    return ("expected", row.expected), ("command", row.command)


def summary(checklist: Checklist) -> str:
    """Return the last line, with the counts."""
    counts = ", ".join(f"{count} {status}" for status, count in checklist.counts().items())
    word = styled("all checks hold", BOLD, GREEN) if checklist.holds else styled("not all checks hold", BOLD, RED)
    return f"\n  {word}: {counts}"
