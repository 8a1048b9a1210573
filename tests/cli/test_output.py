"""Output of commands: styled on a terminal, plain text for pipes and with ``NO_COLOR``."""

import argparse
import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.base.errors import AgentServiceError, StartError
from app.cli import store
from app.cli.doctor.checklist import printed
from app.cli.terminal.output import print_styled, print_table
from app.cli.terminal.progress import ProgressLine

HEADER, ROWS = ("NAME", "TOKENS"), [("support", "7"), ("a-name-that-is-longer-than-its-column", "1000")]
PLAIN = """\
NAME                                   TOKENS
support                                7
a-name-that-is-longer-than-its-column  1000
"""
ESCAPE = "\033["


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_a_table_is_plain_in_a_pipe_and_where_colour_is_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = io.StringIO()
    print_table(HEADER, ROWS, numbers=["TOKENS"], out=pipe)
    assert pipe.getvalue() == PLAIN
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(HEADER, ROWS, numbers=["TOKENS"], out=terminal)
    assert terminal.getvalue() == PLAIN


def test_a_table_fits_its_terminal_and_loses_nothing(terminal: Terminal) -> None:
    print_table(HEADER, ROWS, numbers=["TOKENS"], out=terminal)
    lines = [line for line in _plain(terminal).splitlines() if line]
    assert ESCAPE in terminal.getvalue()
    assert max(map(len, lines)) <= 40
    assert "".join(line.split()[0] for line in lines[-2:]) == "a-name-that-is-longer-than-its-column"
    assert [line.rstrip().endswith(("TOKENS", "     7", "  1000")) for line in lines[::2]] == [True, True, False]


def test_text_is_printed_as_it_is(terminal: Terminal) -> None:
    text = "[bold]not markup[/bold] :smile: 1234 http://localhost and far beyond the width of the terminal"
    print_styled(("ok", "green"), (f"  {text}", ""), out=terminal)
    assert terminal.getvalue() == f"{ESCAPE}32mok{ESCAPE}0m  {text}\n"
    pipe = io.StringIO()
    print_styled(("ok", "green"), (f"  {text}", ""), out=pipe)
    assert pipe.getvalue() == f"ok  {text}\n"


@pytest.mark.parametrize("columns", ["40", "100"])
def test_a_checklist_shows_what_is_running_and_counts_in_the_end(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", terminal)
    with printed([]) as checklist:
        checklist.check("server", "health", "curl", "200", lambda: (True, "200 [green]"))
        checklist.omit("redis", "reachable", "REDIS_URL is not set")
    assert "server: health" in terminal.getvalue()
    shown = " ".join(_plain(terminal).split())
    assert "pass server health 200 [green]" in shown
    assert "not asked redis reachable" in shown
    assert shown.endswith("all checks hold: 1 pass, 0 fail, 0 skipped, 1 not asked")
    with contextlib.suppress(AgentServiceError), printed([]) as checklist:
        raise AgentServiceError("stopped")
    assert terminal.getvalue().endswith(f"{ESCAPE}2K")


def test_progress_shows_count_rate_and_share_and_leaves_no_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.terminal.progress.EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = ProgressLine("items")
    progress.show(10, None)
    progress.show(1500, 0.25)
    progress.clear()
    assert terminal.getvalue().endswith(f"{ESCAPE}2K")
    print("between", file=terminal)
    progress.show(3000, 0.5)
    progress.clear()
    shown = _plain(terminal)
    assert "10 items" in shown
    assert "25% 1,500 items" in shown
    assert "50% 3,000 items" in shown.partition("between")[2]


def test_a_failed_export_gives_the_cursor_back(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fail(_: argparse.Namespace, __: Any, ___: Any, on_progress: Callable[[int, int], None]) -> int:
        on_progress(10, 100)
        raise StartError("the database lacks migrations")

    monkeypatch.setattr("app.cli.terminal.progress.EVERY_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(store, "_save", fail)
    with pytest.raises(StartError):
        store._export(argparse.Namespace(file=str(tmp_path / "items.jsonl"), tenant="default"), None)
    assert terminal.getvalue().rfind(f"{ESCAPE}?25h") > terminal.getvalue().rfind(f"{ESCAPE}?25l") >= 0


def test_progress_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    progress = ProgressLine("items")
    progress.show(10, 0.5)
    progress.clear()
    assert pipe.getvalue() == ""


def _plain(terminal: Terminal) -> str:
    """Return what was written without escape sequences."""
    from rich.text import Text

    return Text.from_ansi(terminal.getvalue().replace("\r", "\n")).plain
