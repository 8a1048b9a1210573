"""The rows of the checklist: what is asked, how a person would ask it, what should be seen, and what is."""

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
"""Whether it holds, and what was seen. Raises ``CheckUnavailable``, or ``OSError`` for something that does not
answer."""


class CheckUnavailable(Exception):
    """A row that was asked for and could not be looked at: its words say why. It does not count as held."""


class CheckRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; ``status`` is ``pass``, ``fail``, ``skipped`` (nobody could tell) or ``not asked``."""

    area: str
    check: str
    status: str
    command: str = ""
    expected: str = ""
    seen: str = ""


class Checklist:
    """The checklist while it is filled in. ``skip`` names checks that are not asked for; ``on_row`` hears of each
    row.
    """

    def __init__(self, skip: Collection[str] = (), on_row: Callable[[CheckRow], None] = lambda _: None) -> None:
        self.rows: list[CheckRow] = []
        self.unused = set(skip)
        self._skip = frozenset(skip)
        self._on_row = on_row

    def ask(self, area: str, check: str, command: str, expected: str, look: CheckFunction) -> bool:
        """Look, and write down what was seen; whether it holds."""
        if check in self._skip or area in self._skip:
            self.leave(area, check, "--skip")
            return False
        try:
            holds, seen = look()
            status = PASS if holds else FAIL
        except CheckUnavailable as error:
            status, seen = SKIPPED, str(error)
        except (OSError, http.client.HTTPException, AgentServiceError) as error:
            status, seen = FAIL, str(error) or type(error).__name__
        seen = " ".join(seen.split())[:MAX_DETAIL_LENGTH]
        self._add(CheckRow(area=area, check=check, status=status, command=command, expected=expected, seen=seen))
        return status == PASS

    def leave(self, area: str, check: str, reason: str) -> None:
        """A row that does not apply, or that nobody wants to know."""
        self._add(CheckRow(area=area, check=check, status=NOT_ASKED, seen=reason))

    def _add(self, row: CheckRow) -> None:
        self.unused -= {row.area, row.check}
        self.rows.append(row)
        self._on_row(row)

    @property
    def holds(self) -> bool:
        """Whether everything that was asked for holds."""
        return all(row.status in {PASS, NOT_ASKED} for row in self.rows)

    def counts(self) -> dict[str, int]:
        """How many rows of each status."""
        return {status: sum(row.status == status for row in self.rows) for status in (PASS, FAIL, SKIPPED, NOT_ASKED)}

    def document(self) -> dict[str, Any]:
        """For programs: this form is kept."""
        rows = [msgspec.to_builtins(row) for row in self.rows]
        return {"version": 1, "holds": self.holds, "counts": self.counts(), "rows": rows}


def shown(row: CheckRow) -> str:
    """A row for a person: the check and what was seen on one line, how to see it oneself below."""
    status = styled(row.status.ljust(9), COLOURS[row.status])
    line = f"  {status}  {row.area.ljust(9)}  {row.check.ljust(28)}  {row.seen}"
    if row.status == NOT_ASKED:
        return line.rstrip()
    below = [f"{'':24}{styled(name.ljust(8), DIM)}  {text}" for name, text in _ways(row)]
    return "\n".join([line.rstrip(), *below])


def _ways(row: CheckRow) -> tuple[tuple[str, str], ...]:
    return ("expected", row.expected), ("command", row.command)


def summary(sheet: Checklist) -> str:
    """The last line."""
    counts = ", ".join(f"{count} {status}" for status, count in sheet.counts().items())
    word = styled("all that was asked for holds", BOLD, GREEN) if sheet.holds else styled("not all holds", BOLD, RED)
    return f"\n  {word}: {counts}"
