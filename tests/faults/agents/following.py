"""A function agent that follows the program in the last message."""

import json

from app.agents.function import Context
from app.domain.messages import text_of


async def run(context: Context) -> str:
    """One call a line."""
    program = json.loads(text_of(context.messages[-1].content))
    for name, n in program["ops"]:
        await context.tools.call(name, n=n)
    return f"done {program['id']}"
