"""Notes in the thread's values, committed with the step that wrote them."""

from typing import Literal

from app.agents.tools.function_tool import tool
from app.agents.tools.port import ToolContext, ToolResult

CHANNEL = "notes"
MAX_NOTES = 200
MAX_NOTE_LENGTH = 2000


@tool(tool_class="transactional", timeout=5)
async def notes(context: ToolContext, action: Literal["add", "list"], text: str = "") -> ToolResult:
    """Keep notes for this conversation: add one, or list them all.

    Args:
        action: add a note, or list all notes
        text: the note to add
    """
    found = context.value(CHANNEL)  # clients may have stored any JSON
    notes_before = [str(note) for note in found] if isinstance(found, list) else []
    if action == "list":
        lines = [f"{number}. {note}" for number, note in enumerate(notes_before, 1)]
        return ToolResult(content="\n".join(lines) or "There are no notes yet.")
    if not text.strip():
        raise ValueError("give the text of the note to add")
    if len(notes_before) >= MAX_NOTES or len(text) > MAX_NOTE_LENGTH:
        raise ValueError(f"at most {MAX_NOTES} notes of {MAX_NOTE_LENGTH} characters fit")
    return ToolResult(content=f"Noted: {text}", update={CHANNEL: [*notes_before, text]})
