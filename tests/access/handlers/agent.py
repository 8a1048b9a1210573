"""Agents that report their user and what they may read for it."""

import json

from app.agents.function import Context


async def whoami(context: Context) -> str:
    """Return the entries of ``configurable`` about the user."""
    found = {name: value for name, value in context.run.configurable.items() if name.startswith("langgraph_auth")}
    return json.dumps(found, sort_keys=True)


async def look_up(context: Context) -> str:
    """Search for the last message, by every API of the store."""
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
    """Store the last message, by every API of the store."""
    text = str(context.messages[-1].content)
    await context.store.put(["messages"], "by agent", {"text": text})
    await context.tools.call("memory", action="remember", text=text)
