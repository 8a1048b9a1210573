"""All events of a run, though its event log may have expired: then its checkpoints tell what it has said."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.base.errors import Gone, NotFound
from app.base.offload import offload
from app.domain.events import Ended, Event, Failed, Interrupted, RunStarted, StepCommitted
from app.domain.lifecycle import LIVE
from app.engine.entries import ClaimedRun, created
from app.engine.structs import Run
from app.protocols.gateway import ProtocolGateway
from app.protocols.projection import whole_run
from app.security.access.structs import Principal
from app.security.idempotency.structs import ReplayedResponse

_encode = msgspec.json.Encoder().encode


async def run_of_accepted(
    gateway: ProtocolGateway, principal: Principal, accepted: ClaimedRun | ReplayedResponse
) -> Run:
    """Return the run that a request has started, now or when it was sent before.

    Raises ``Gone`` if it was deleted since.
    """
    if isinstance(accepted, ClaimedRun):
        return created(accepted)
    try:
        return await gateway.runs.by_id(principal, accepted.run_id)
    except NotFound:
        raise Gone("The run of this Idempotency-Key was deleted. Send another key to run it again.") from None


async def run_events(gateway: ProtocolGateway, principal: Principal, run: Run) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the events of a run until its end, in batches. Raises ``Unavailable`` if the server stops."""
    try:
        if run.status not in LIVE:
            await gateway.runs.check_log(principal, run.thread_id, run.run_id)
    except Gone:
        yield await ended_events(gateway, principal, run)
        return
    async with contextlib.aclosing(whole_run(gateway.runs, principal, run.run_id)) as batches:
        async for events in batches:
            yield events


async def ended_events(gateway: ProtocolGateway, principal: Principal, run: Run) -> Sequence[Event]:
    """Return what an ended run has said: the messages that its last state has and the one before it had not."""
    ended = await gateway.runs.ended(principal, run.run_id)
    known = {message.get("id") for message in await messages_at(gateway, principal, run.thread_id, ended.first)}
    last = await messages_at(gateway, principal, run.thread_id, ended.checkpoint_id)
    said = [one for one in last if one.get("id") not in known and one.get("type") in ("ai", "tool")]
    checkpoint_id = str(ended.checkpoint_id or "")
    update = msgspec.Raw(_encode({"agent": {"messages": said}}))
    events: list[Event] = [RunStarted(str(run.run_id), 1), StepCommitted(0, checkpoint_id, update, "agent")]
    if ended.interrupts:
        events.append(Interrupted(checkpoint_id, msgspec.Raw(_encode(ended.interrupts))))
    if ended.error is not None:
        events.append(Failed(error=ended.error["error"], message=ended.error["message"]))
    return [*events, Ended(str(run.run_id), run.status)]


async def messages_at(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, checkpoint_id: UUID | None
) -> list[dict[str, Any]]:
    """Return the messages of a thread at a checkpoint, none if it is no longer there."""
    if checkpoint_id is None:
        return []
    try:
        state = await gateway.threads.state_at(principal, thread_id, str(checkpoint_id))
    except NotFound:
        return []
    return await read_messages(state.values)


async def read_messages(values: msgspec.Raw) -> list[dict[str, Any]]:
    """Return the messages in a thread's values; many are read in a thread."""
    return await offload(len(values), messages_in, values)


def messages_in(values: msgspec.Raw) -> list[dict[str, Any]]:
    """Return the messages in a thread's values."""
    decoded = msgspec.json.decode(values)
    messages = decoded.get("messages") if isinstance(decoded, dict) else None
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
