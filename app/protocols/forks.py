"""Where a branch of a thread begins: at the checkpoint with the input of a run, or at the one before it."""

from typing import Any
from uuid import UUID

import msgspec

from app.base.errors import NotFound
from app.base.offload import offload
from app.engine.structs import Run
from app.features.threads.structs import HistoryQuery
from app.protocols.gateway import ProtocolGateway
from app.security.access.structs import Principal

RUNS_PAGE = 100


class _Request(msgspec.Struct):
    """What a run was asked for, without the rest of its request."""

    input: Any = None


def input_of(run: Run) -> Any:
    """Return the input of a run; None if it had none."""
    return msgspec.json.decode(run.kwargs, type=_Request).input


async def input_checkpoint(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, run_id: UUID, *, before: bool
) -> UUID:
    """Return the checkpoint with the input of a run, or the one ``before``. Raises ``NotFound``."""
    metadata = {"run_id": str(run_id), "source": "input"}
    states, _ = await gateway.threads.history(principal, thread_id, HistoryQuery(limit=1, metadata=metadata))
    found = states[0] if states else None
    checkpoint_id = None if found is None else found.parent_checkpoint_id if before else found.checkpoint_id
    if checkpoint_id is None:
        raise NotFound("The checkpoint before that message is no longer kept: send it as a new message.")
    return checkpoint_id


async def run_that_brought(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, message_id: str
) -> Run | None:
    """Return the last run whose input has a message with this id; None if there is none. Raises ``NotFound``."""
    offset = 0
    while True:
        runs, _ = await gateway.runs.list(principal, thread_id, status=None, limit=RUNS_PAGE, offset=offset)
        found = await offload(sum(len(run.kwargs) for run in runs), _first_with, runs, message_id)
        if found is not None or not runs:
            return found
        offset += len(runs)


def _first_with(runs: list[Run], message_id: str) -> Run | None:
    return next((run for run in runs if message_id in _message_ids(input_of(run))), None)


def _message_ids(run_input: Any) -> set[Any]:
    messages = run_input.get("messages") if isinstance(run_input, dict) else None
    return {one.get("id") for one in messages if isinstance(one, dict)} if isinstance(messages, list) else set()
