"""Irreversible effects: each appends a line to a file."""

import asyncio
from pathlib import Path

from app.agents.function import Context


async def notes(action: str, text: str = "") -> str:
    """Write a line to the file at ``text``: without a tool class, so unsafe to repeat."""
    await asyncio.to_thread(write, text, action)
    return "written"


def write(path: str, line: str) -> str:
    """Write a line to the file at ``path``."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")
    return line


async def confirming(context: Context) -> str:
    """Do something, ask whether to continue, do something else."""
    path = str(context.messages[-1].content)
    await context.step("before", write, path, "before")
    sure = await context.interrupt({"question": "sure?"}, bool)
    await context.step("after", write, path, f"after {sure}")
    return "done"
