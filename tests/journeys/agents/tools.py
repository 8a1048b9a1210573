"""Tools with the names that the demonstration model knows."""

import asyncio

from app.tools import ToolContext

asked: list[str] = []


async def notes(action: str, context: ToolContext, text: str = "") -> str:
    """Note something, once a person has said where and when."""
    where = context.interrupt({"question": "where?", "text": text})
    when = context.interrupt({"question": "when?", "text": text})
    asked.append(context.thread_id)
    return f"{action} {text} {where} {when} ({asked.count(context.thread_id)} times)"


async def clock() -> str:
    """Run until it is cancelled."""
    await asyncio.Event().wait()
    return "late"
