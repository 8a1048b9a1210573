"""A library that needs no network."""

import asyncio

from app.tools import ToolContext, tool

LIBRARY = {
    "tea history": ["Tea was drunk in Yunnan before it was written about."],
    "tea trade": ["Clippers raced each year's first tea to London.", "Auctions by the candle ended in 1998."],
    "tea brewing": ["Green tea wants water that does not boil."],
}


@tool(tool_class="read_only", timeout=10)
async def search(context: ToolContext, query: str) -> list[str]:
    """Find what the library has on something.

    Args:
        query: what to look for
    """
    context.emit({"searching": query})
    await asyncio.sleep(0.05)  # as long as a quick search engine takes
    return LIBRARY.get(query, [])
