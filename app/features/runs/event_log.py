"""The event log of a run, as a replay reads it: events in pages, then the end if the run's owner did not log it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import Interrupt
from app.base.errors import Unavailable
from app.domain.event_id import START, EventId
from app.domain.events import (
    CheckpointPosition,
    Ended,
    Event,
    Failed,
    InputApplied,
    Interrupted,
    Retracted,
    RunStarted,
    StepCommitted,
)
from app.domain.lifecycle import TERMINAL, RunStatus
from app.engine.checkpoints.codec import unpack
from app.engine.execution.ending import REMOVED, interrupts_json
from app.engine.execution.execution import first_message_id
from app.features.runs import queries
from app.infra.db.engine import Database
from app.infra.db.session import Reader

READ_TIMEOUT = 5.0
"""Timeout of a first read, in seconds: detects dead connections. Doubled after each failure."""

MAX_READ_TIMEOUT = 60.0

_events = msgspec.json.Decoder(list[Event])
encode = msgspec.json.Encoder().encode


class LoggedEvents(NamedTuple):
    """Consecutive events of one owner; ``seq`` is the number of their first frame, ``size`` their bytes as JSON."""

    epoch: int
    seq: int
    events: deque[Event]
    size: int


class EventLog:
    """Reads event logs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextlib.asynccontextmanager
    async def reading(self, tenant_id: UUID, failures: int = 0) -> AsyncIterator[Reader]:
        """Open a reading transaction with a timeout that grows with ``failures``. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(min(READ_TIMEOUT * 2**failures, MAX_READ_TIMEOUT)):
                async with self._database.reading(tenant_id) as session:
                    yield session
        except TimeoutError as error:
            raise Unavailable("The database did not answer in time.", retry_after=2) from error

    async def open(self, tenant_id: UUID, run_id: UUID, after: EventId, failures: int = 0) -> "LoggedRun":
        """Read the first page of a run's log from the owner of ``after`` on. Raises ``Unavailable``."""
        async with self.reading(tenant_id, failures) as session:
            run = await queries.status(session, tenant_id, run_id)
            rows = [] if run is None else await queries.log_page(session, tenant_id, run_id, EventId(after.epoch, 0))
        return LoggedRun(self, tenant_id, run_id, run, rows, after)


class LoggedRun:
    """A run and its log. ``ended``: whether it has ended, or was deleted with its log.

    ``modes``: its stream modes, none if it was deleted.
    """

    def __init__(
        self,
        log: EventLog,
        tenant_id: UUID,
        run_id: UUID,
        run: Row[Any] | None,
        rows: Sequence[Row[Any]],
        after: EventId,
    ) -> None:
        self._log = log
        self._rows = deque(rows)
        self._run = run
        self._run_id = run_id
        self._after = after
        self.tenant_id = tenant_id
        self.ended = run is None or RunStatus(run.status) in TERMINAL
        self.modes = () if run is None else msgspec.json.decode(run.stream_mode, type=list[str])

    @property
    def thread_id(self) -> UUID:
        """The run's thread."""
        assert self._run is not None
        thread_id: UUID = self._run.thread_id
        return thread_id

    def reading(self) -> contextlib.AbstractAsyncContextManager[Reader]:
        """Open a reading transaction of the run's tenant."""
        return self._log.reading(self.tenant_id)

    async def events(self) -> AsyncGenerator[LoggedEvents, None]:
        """Yield the logged events; at last those of an end that no owner logged, under the next epoch.

        The consumer takes the events out of the batches, so that little is held while it waits.
        """
        if self._run is None:
            ending: list[Event] = [REMOVED, Ended(run_id=str(self._run_id), status=RunStatus.INTERRUPTED)]
            yield LoggedEvents(self._after.epoch + 1, 1, deque(ending), 0)
            return
        rows, run = self._rows, self._run
        if self.ended and not rows and self._after == START and (shown := await self._from_steps(run)):
            yield LoggedEvents(1, 1, deque(shown), 0)
            return
        complete = False
        epoch = seq = 0
        while rows:
            more = queries.has_more(rows)
            while rows:
                row = rows.popleft()
                epoch, seq, body = row.epoch, row.seq, unpack(row.body)
                events, size = deque(_events.decode(body)), len(body)
                complete = isinstance(events[-1], Ended) if events else complete
                del row, body  # hold little while waiting
                yield LoggedEvents(epoch, seq, events, size)
                del events
            if more:
                async with self.reading() as session:
                    rows.extend(await queries.log_page(session, self.tenant_id, run.ended_run, EventId(epoch, seq)))
        if self.ended and not complete:
            async with self.reading() as session:
                step = await queries.last_step(session, self.tenant_id, run.thread_id, run.ended_run)
            yield LoggedEvents(run.last_epoch + 1, 1, deque(_closing(run, step)), 0)

    async def _from_steps(self, run: Row[Any]) -> list[Event]:
        """Return the events of a run whose log has expired, from its steps and checkpoints; nothing without any."""
        async with self.reading() as session:
            rows = await queries.run_steps(session, self.tenant_id, run.thread_id, run.ended_run)
            end = await queries.ended(session, self.tenant_id, run.thread_id, run.ended_run)
        if not rows:
            return []
        position = CheckpointPosition()
        events: list[Event] = [RunStarted(run_id=str(run.ended_run), attempt=1, thread_id=str(run.thread_id))]
        for row in rows:
            checkpoint_id, following = str(row.checkpoint_id), tuple(row.next)
            position = CheckpointPosition(
                parent_id=str(row.parent_id or ""),
                step=row.step,
                source=row.source,
                next=following,
                starts=following,
                at=row.created_at.isoformat(),
            )
            if row.source == "input":
                events.append(InputApplied(checkpoint_id, position))
            else:
                node = row.node or ""
                updates = msgspec.Raw(encode({one: {} for one in node.split(", ") if one}))
                events.append(StepCommitted(row.step, checkpoint_id, updates, node, position))
        if end is not None and end.interrupts:
            asked = [Interrupt(one["id"], one["value"]) for one in end.interrupts]
            events.append(Interrupted(str(rows[-1].checkpoint_id), msgspec.Raw(interrupts_json(asked)), position))
        return [*events, *_end_of(run)]


def _closing(run: Row[Any], step: int | None) -> list[Event]:
    """Return the last events of a run whose owner did not end it.

    ``step`` is the last committed step, or None. Messages that owners began to stream after it are retracted.
    """
    events: list[Event] = []
    if run.last_epoch:
        uncommitted = (
            [] if step is None else [first_message_id(run.ended_run, n + 1, step + 1) for n in range(run.last_epoch)]
        )
        epoch = run.last_epoch + 1
        events.append(Retracted(message_ids=uncommitted, step=0 if step is None else step + 1, epoch=epoch))
    return [*events, *_end_of(run)]


def _end_of(run: Row[Any]) -> list[Event]:
    failed = [] if run.error is None else [Failed(error=run.error["error"], message=run.error["message"])]
    return [*failed, Ended(run_id=str(run.ended_run), status=run.status)]
