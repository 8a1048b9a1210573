"""A thread's history and its runs on one stream, for clients that open a conversation again."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.base.errors import Gone, Invalid, NotFound
from app.base.offload import offload
from app.domain.lifecycle import FAILED, RunStatus
from app.domain.state import MESSAGES
from app.engine.structs import Run
from app.features.threads.structs import Thread
from app.protocols.ag_ui.messages import shown
from app.protocols.ag_ui.projection import (
    EVENT_ID,
    RunOnWire,
    frame,
    outcome_of,
    run_error,
    run_finished,
    run_started,
)
from app.protocols.ag_ui.starting import follow, found_run, on_wire
from app.protocols.ag_ui.structs import RunAgentInput
from app.protocols.gateway import ProtocolGateway
from app.protocols.questions import client_call_id
from app.protocols.threads import thread_id_of
from app.security.access.structs import Principal

LAST_NUMBER = 10**14
"""Number of the event that ends the history: a client that has it has all of that run."""

Event = dict[str, Any]


class Connection(NamedTuple):
    """Where a stream begins: with the events of the ``history``, then with the run number ``ordinal`` of the thread.

    ``seen``: that run, if the client has its events up to number ``number``. ``stays``: the stream waits for later
    runs, too.
    """

    thread_id: UUID
    thread: str
    legacy: bool
    stays: bool
    history: tuple[bytes, ...] = ()
    ordinal: int | None = None
    seen: UUID | None = None
    number: int = -1


async def connect(gateway: ProtocolGateway, principal: Principal, data: RunAgentInput) -> Connection:
    """Return where the stream of a thread begins for a client. Raises ``Invalid`` for an id that is no event's."""
    thread_id = thread_id_of(principal, data.thread_id)
    found = Connection(thread_id, data.thread_id, data.is_legacy, data.option("follow") is True)
    try:
        if data.last_seen_event_id:
            return await _after(gateway, principal, found, data.last_seen_event_id)
    except (Gone, NotFound):
        pass  # its log is gone, it was deleted, or the thread had no run yet: the thread has its values
    try:
        current = await gateway.runs.current(principal, thread_id)
        if current is not None and current.is_live:  # it begins with the history
            return found._replace(ordinal=current.ordinal)
        history = await _history(gateway, principal, found, data, None if current is None else current.run)
    except NotFound:
        return found
    return found._replace(history=history, ordinal=0 if current is None else current.ordinal + 1)


async def _after(gateway: ProtocolGateway, principal: Principal, found: Connection, event_id: str) -> Connection:
    match = EVENT_ID.fullmatch(event_id)
    if match is None:
        raise Invalid("Invalid lastSeenEventId: send the id of an event.", (("/lastSeenEventId", "is no event's id"),))
    run_id = UUID(match[1])
    await gateway.runs.check_log(principal, found.thread_id, run_id)
    ordinal = await gateway.runs.position(principal, found.thread_id, run_id)
    return found._replace(ordinal=ordinal, seen=run_id, number=int(match[2]))


async def _history(
    gateway: ProtocolGateway, principal: Principal, found: Connection, data: RunAgentInput, last: Run | None
) -> tuple[bytes, ...]:
    """Return the ``last`` run, which has ended, as the thread's values show it."""
    thread = await gateway.threads.get(principal, found.thread_id)
    if last is not None:
        run = await on_wire(last, found.thread, legacy=found.legacy)
    else:
        run = RunOnWire(found.thread_id, found.thread, data.run_id, legacy=found.legacy)
    return await offload(len(thread.values), _frames, run, last, thread)


def _frames(run: RunOnWire, last: Run | None, thread: Thread) -> tuple[bytes, ...]:
    events = [run_started(run), *_snapshots(thread), _end(run, last, thread)]
    first = LAST_NUMBER - len(events) + 1
    return tuple(frame(run.run_id, first + at, event) for at, event in enumerate(events))


def _snapshots(thread: Thread) -> list[Event]:
    values = msgspec.json.decode(thread.values) or {}
    messages = values.pop(MESSAGES, None)
    return [
        {"type": "STATE_SNAPSHOT", "snapshot": values},
        {"type": "MESSAGES_SNAPSHOT", "messages": shown(messages if isinstance(messages, list) else ())},
    ]


def _end(run: RunOnWire, last: Run | None, thread: Thread) -> Event:
    """Return the event that ended the ``last`` run."""
    if last is not None and last.status in FAILED:
        error = thread.error if isinstance(thread.error, dict) else {}
        return run_error(str(error.get("message") or "The run failed."), str(error.get("error") or last.status))
    waiting = thread.interrupts if isinstance(thread.interrupts, dict) else {}
    if questions := [question for asked in waiting.values() for question in asked]:
        called = [client_call_id(question.get("value")) for question in questions]
        return run_finished(run, outcome_of(questions, [one for one in called if one], run))
    cancelled = last is not None and last.status == RunStatus.INTERRUPTED
    return run_finished(run, {"type": "cancelled" if cancelled else "success"})


async def stream(gateway: ProtocolGateway, principal: Principal, connection: Connection) -> AsyncGenerator[bytes, None]:
    """Yield chunks of the history and of the thread's runs, one after the other.

    It ends when no run is in progress, unless it ``stays``: front ends take an open stream for a run.
    """
    for chunk in connection.history:
        yield chunk
    if connection.ordinal is None:
        return
    thread_id, started = connection.thread_id, connection.ordinal
    async with contextlib.aclosing(
        gateway.runs.started_runs(principal, thread_id, started, stays=connection.stays)
    ) as runs:
        async for _, run_id in runs:
            run = await found_run(gateway, principal, (thread_id, run_id), connection.thread, legacy=connection.legacy)
            chunks = follow(gateway, principal, run, connection.number if run_id == connection.seen else -1)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    yield chunk
                    del chunk  # hold no frames while waiting
