"""A research agent: several searches at once, with progress, and one summary."""

import asyncio

from app.agents.function import Context

SIDES = ("history", "trade", "brewing")


async def run(context: Context) -> str:
    """Search all sides of the topic."""
    topic = context.messages[-1].content
    found = await asyncio.gather(*(study(context, f"{topic} {side}") for side in SIDES))
    context.state["sources"] = sum(map(len, found))
    return await context.model.text("\n".join(fact for facts in found for fact in facts))


async def study(context: Context, query: str) -> list[str]:
    """Search one side: a branch that runs concurrently with the others."""
    facts = await context.tools.call("search", list[str], query=query)
    context.emit({"found": query, "facts": len(facts)})
    return facts
