"""How a run begins: what its caller gives the thread, and which nodes it starts with."""

from typing import Any
from uuid import UUID

from msgspec import UNSET

from app.agents.port import END_NODE, RESUME_NODE, START_NODE, Agent
from app.runs.draft import Draft
from app.runs.structs import RunRequest, goto_nodes


def update_of(request: RunRequest, agent: Agent, run_id: UUID) -> dict[str, Any]:
    """What the input, or the command, changes in the thread's values. Raises ``Invalid``."""
    if request.command is not None:
        return {} if request.command.update is None else agent.read_update(request.command.update, run_id)
    return {} if request.input is None else agent.read_input(request.input, run_id)


def source_of(request: RunRequest, head: UUID | None) -> str:
    """The source of the checkpoint that this makes; none ("") for a run that just goes on."""
    if request.command is not None and request.command.update is not None:
        return "update"
    if head is None or (request.command is None and request.input is not None):
        return "input"
    return "" if request.checkpoint_id is None else "fork"


def nodes(request: RunRequest, source: str, agent: Agent, draft: Draft) -> tuple[str, ...]:
    """Where the caller sends the run, where its input leads, or where the thread stands."""
    command = request.command
    if command is not None and command.goto is not None:
        return tuple(node for node in goto_nodes(command.goto) if node != END_NODE)
    if source == "input":
        return agent.after(START_NODE, draft.state)
    if command is not None and not draft.next:
        only_answers = command.resume is not UNSET and command.update is None
        return agent.after(RESUME_NODE if only_answers else START_NODE, draft.state)
    return draft.next
