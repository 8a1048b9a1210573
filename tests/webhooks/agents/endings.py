"""Function agents, one for each way to end."""

import asyncio

from app.agents.function import Context


async def fails(context: Context) -> str:
    """Raise."""
    raise RuntimeError(f"nothing came of {len(context.messages)} messages")


async def waits(context: Context) -> str:
    """Run until it is cancelled."""
    await asyncio.Event().wait()
    return str(len(context.messages))


async def asks(context: Context) -> str:
    """Ask a person."""
    return str(await context.interrupt("which?"))
