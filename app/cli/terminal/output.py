"""Terminal output: tables, and colour on a terminal."""

import sys
from collections.abc import Sequence

BOLD, DIM, GREEN, RED, CYAN = "1", "2", "32", "31", "36"


def styled(text: str, *codes: str) -> str:
    """Colour ``text`` if standard output is a terminal and ``NO_COLOR`` is not set."""
    if not sys.stdout.isatty():
        return text
    from app.infra.settings.environment import coloured

    if not coloured():
        return text
    return f"\033[{';'.join(codes)}m{text}\033[0m"


def painted(text: str, code: str) -> str:
    """Colour ``text`` if standard error is a terminal and ``NO_COLOR`` is not set."""
    from app.infra.settings.environment import coloured

    return f"\033[{code}m{text}\033[0m" if text and coloured(sys.stderr) else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table with aligned columns, two spaces apart."""
    lines = [header, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
