"""A scratch pad in the thread: its lines are part of the thread's values, committed with the step that wrote them."""

from typing import Literal

from app.tools.function import tool
from app.tools.port import ToolContext, ToolResult

CHANNEL = "notes"
MOST = 200
LONGEST = 2000


@tool(tool_class="transactional", timeout=5)
async def notes(context: ToolContext, action: Literal["add", "list"], text: str = "") -> ToolResult:
    """Keep notes for this conversation: add one, or list them all.

    Args:
        action: add a note, or list all notes
        text: the note to add
    """
    found = context.value(CHANNEL)  # whatever a client has put there
    kept = [str(note) for note in found] if isinstance(found, list) else []
    if action == "list":
        lines = [f"{number}. {note}" for number, note in enumerate(kept, 1)]
        return ToolResult(content="\n".join(lines) or "There are no notes yet.")
    if not text.strip():
        raise ValueError("give the text of the note to add")
    if len(kept) >= MOST or len(text) > LONGEST:
        raise ValueError(f"at most {MOST} notes of {LONGEST} characters fit")
    return ToolResult(content=f"Noted: {text}", update={CHANNEL: [*kept, text]})
