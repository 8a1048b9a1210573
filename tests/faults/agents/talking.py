"""Function agents that emit many words or a large state."""

import asyncio

from app.agents.function import Context
from app.domain.messages import text_of


async def run(context: Context) -> str:
    """Emit as many words as the last message says, of 100 bytes each."""
    for number in range(int(text_of(context.messages[-1].content))):
        context.emit({"word": number, "rest": "." * 100})
        await asyncio.sleep(0.005)
    return "That is all."


async def hoard(context: Context) -> str:
    """Return as many bytes as the last message says."""
    return "x" * int(text_of(context.messages[-1].content))
