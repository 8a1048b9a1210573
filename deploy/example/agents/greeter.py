"""An agent that is a function. What it keeps in ``memory`` belongs to the thread."""

from app.agents.function import Context


async def run(context: Context) -> str:
    """Greet the user by the name in the last message, and count the meetings."""
    met = await context.memory.get("met", int, 0) + 1
    await context.memory.set("met", met)
    return f"Hello, {context.messages[-1].content}. We have met {met} times."
