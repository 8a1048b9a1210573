"""A scratch pad in the thread: its lines are part of the thread's values, committed with the step that wrote them."""

from app.tools.function import tool
from app.tools.port import ToolContext, ToolResult

CHANNEL = "notes"
MOST = 200
LONGEST = 2000


@tool(tool_class="transactional", timeout=5)
async def notes(context: ToolContext, add: str = "") -> ToolResult:
    """Keep notes for this conversation: add one, or list them all.

    add: the note to keep; leave it out to list the notes
    """
    kept = list(context.value(CHANNEL) or [])
    if not add:
        lines = [f"{number}. {text}" for number, text in enumerate(kept, 1)]
        return ToolResult(content="\n".join(lines) or "There are no notes yet.")
    if len(kept) >= MOST or len(add) > LONGEST:
        raise ValueError(f"at most {MOST} notes of {LONGEST} characters fit")
    return ToolResult(content=f"Noted: {add}", update={CHANNEL: [*kept, add]})
