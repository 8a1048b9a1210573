"""A plain function agent."""

from app.agents.function import Context


async def run(context: Context) -> str:
    """Greet the person, using what this thread remembers."""
    met = await context.memory.get("met", int, 0) + 1
    await context.memory.set("met", met)
    name = context.messages[-1].content
    return await context.model.text(f"Greet {name}, whom you meet for time {met}.")
