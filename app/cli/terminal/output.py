"""Output on a terminal with the library ``rich``; plain text for pipes and where ``NO_COLOR`` is set.

``rich`` takes a tenth of a second to import. Plain output and help texts do without it, and so does ``dev``, whose
process forks the workers.
"""

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
GAP = 2
"""Spaces between columns."""


def coloured(out: TextIO) -> bool:
    """Return whether ``out`` is a terminal and ``NO_COLOR`` is not set."""
    if not out.isatty():
        return False
    from app.infra.settings.environment import coloured

    return coloured(out)


def styled(text: str, *codes: str) -> str:
    """Colour ``text`` for standard output with ANSI codes."""
    return f"\033[{';'.join(codes)}m{text}\033[0m" if coloured(sys.stdout) else text


def rich_console(out: TextIO) -> "Console":
    """Return a console that prints texts as they are: no markup, no highlighting."""
    from rich.console import Console

    return Console(file=out, markup=False, highlight=False, emoji=False)


def print_styled(*parts: tuple[str, str], out: TextIO | None = None) -> None:
    """Print a line of texts, each with its style (``bold red``; empty: none)."""
    out = out or sys.stdout
    if not coloured(out):
        print("".join(text for text, _ in parts), file=out, flush=True)
        return
    from rich.text import Text

    rich_console(out).print(Text.assemble(*parts), soft_wrap=True)


def print_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    out: TextIO | None = None,
) -> None:
    """Print a table. On a terminal long cells are folded, and the columns ``numbers`` are aligned right."""
    out, lines = out or sys.stdout, list(rows)
    if not coloured(out):
        print(_plain([header, *lines]), file=out)
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
    for name in header:
        table.add_column(name, overflow="fold", justify="right" if name in numbers else "left")
    for line in lines:
        table.add_row(*line)
    rich_console(out).print(table)


def _plain(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        (" " * GAP).join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
