"""A tool that leaves a trace of each attempt, and ends when the test lets it."""

import asyncio
from pathlib import Path

from app.tools import ToolContext, tool


@tool(tool_class="idempotent", timeout=60)
async def pay(ledger: str, context: ToolContext) -> str:
    """Append the key of the call to the file at ``ledger``; wait until ``ledger`` with the suffix .open exists."""
    path = Path(ledger)
    with path.open("a", encoding="utf-8") as file:  # noqa: ASYNC230  one short line
        file.write(f"{context.idempotency_key}\n")
    while not path.with_suffix(".open").exists():  # noqa: ASYNC110  another process makes the file
        await asyncio.sleep(0.02)
    return "paid"
