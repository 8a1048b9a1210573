"""An agent that takes an input of its own, and asks questions with a type."""

import msgspec

from app.agents.function import Context


class Request(msgspec.Struct):
    """What to ask about."""

    topic: str


class Opinion(msgspec.Struct):
    """What a person thinks."""

    stars: int
    why: str = ""


async def run(context: Context, request: Request) -> str:
    """Ask twice."""
    if not await context.interrupt({"question": f"Do you know {request.topic}?"}, bool):
        return "A pity."
    opinion = await context.interrupt({"question": "How good is it?"}, Opinion)
    return f"{request.topic}: {opinion.stars} stars, {opinion.why}."
