"""An agent that asks what its message says, as JSON, and repeats the answer."""

import msgspec

from app.agents.function import Context


async def run(context: Context) -> str:
    answer = await context.interrupt(msgspec.json.decode(str(context.messages[-1].content)))
    return msgspec.json.encode(answer).decode()
