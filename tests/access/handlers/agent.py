"""Agents that say what they know of who asks, and what they may look at for that person."""

import json

from app.agents.function import Context


async def whoami(context: Context) -> str:
    """The entries of ``configurable`` about the person."""
    found = {name: value for name, value in context.run.configurable.items() if name.startswith("langgraph_auth")}
    return json.dumps(found, sort_keys=True)


async def look_up(context: Context) -> str:
    """Everything that can be looked up for the last message, in each of the ways that there are."""
    asked = str(context.messages[-1].content)
    passages = await context.documents.search(asked, limit=20)
    items = await context.store.search([], asked)
    return json.dumps(
        {
            "tool": str(await context.tools.call("knowledge", query=asked, limit=20)),
            "documents": [passage.text for passage in passages],
            "store": [item.value["text"] for item in items],
            "memory": str(await context.tools.call("memory", action="recall", text=asked)),
        }
    )


async def remember(context: Context) -> None:
    """Store the last message, in each of the ways that there are."""
    told = str(context.messages[-1].content)
    await context.store.put(["told"], "by agent", {"text": told})
    await context.tools.call("memory", action="remember", text=told)
