"""An agent that says what it knows of who asks."""

import json

from app.agents.function import Context


async def whoami(context: Context) -> str:
    """The entries of ``configurable`` about the person."""
    found = {name: value for name, value in context.run.configurable.items() if name.startswith("langgraph_auth")}
    return json.dumps(found, sort_keys=True)
