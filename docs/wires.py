"""Writes docs/reference/wires.md from the table in app/protocols/meanings.py: `make docs-wires`."""

from pathlib import Path

from app.protocols.meanings import WIRES, Meaning, Piece
from app.protocols.states import RunState

PAGE = Path(__file__).parent / "reference" / "wires.md"

_HEAD = """\
<!-- Generated from app/protocols/meanings.py by `make docs-wires`: change it there. -->
# One run on every wire

What each protocol sends when a run reaches a state, and for each piece of the run's output.
[Clients](../how-to/clients.md) describes how to use them; the stream modes of the LangGraph API are in [runs](runs.md).

An approval that is given by one protocol counts for all of them, once. A cell without an event has the reason.
"""


def render() -> str:
    """Return the page."""
    states = [(f"`{state.value}`", [wire.states[state] for wire in WIRES.values()]) for state in RunState]
    pieces = [(piece.value, [wire.pieces[piece] for wire in WIRES.values()]) for piece in Piece]
    lines = [_HEAD, "## States", "", *_table("state", states), "", "## Pieces", "", *_table("piece", pieces), ""]
    return "\n".join(lines)


def _table(title: str, rows: list[tuple[str, list[Meaning]]]) -> list[str]:
    lines = [f"| {title} | {' | '.join(wire.title for wire in WIRES.values())} |", "|---" * (len(WIRES) + 1) + "|"]
    return [*lines, *(f"| {name} | {' | '.join(map(_cell, cells))} |" for name, cells in rows)]


def _cell(meaning: Meaning) -> str:
    return ", ".join(f"`{kind}`" for kind in meaning.sends) or f"– ({meaning.why})"


if __name__ == "__main__":
    PAGE.write_text(render())
