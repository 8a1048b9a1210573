"""Stream all runs of a thread, one run after the other, without gaps or duplicates.

An event id is the run's ordinal in the thread in front of the frame's id: ``n.epoch-seq``. The ``end`` event of a run
becomes ``metadata`` with ``run_done``, because the stream continues.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Hashable
from typing import NamedTuple
from uuid import UUID

import msgspec

from app.base.errors import Invalid
from app.domain.event_id import FROM_THE_START, START, EventId
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.features.runs.run_streams import RunStreams
from app.features.runs.run_views import OPENED, RETRY
from app.infra.db.engine import Database
from app.security.access.structs import MetadataFilter

THREAD_MODES = ("run_modes", "lifecycle", "state_update")

_STATES = frozenset({"values", "updates", "checkpoints"})
_CURSOR = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})-([0-9]{1,9})")
_END = re.compile(rb"event: end\r\ndata: [^\r\n]*\r\nid: ([0-9]+-[0-9]+)\r\n\r\n$")

encode = msgspec.json.Encoder().encode


class ThreadCursor(NamedTuple):
    """A position in a thread's stream: after the frame ``event`` of the run number ``ordinal``."""

    ordinal: int
    event: EventId


def parse_cursor(text: str) -> ThreadCursor:
    """Parse a ``Last-Event-ID`` of a thread's stream. Raises ``Invalid``."""
    if text in FROM_THE_START:
        return ThreadCursor(0, START)
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise Invalid("Invalid Last-Event-ID: send an id of this stream (n.epoch-seq), or -1 for all of it.")
    return ThreadCursor(int(match[1]), EventId(int(match[2]), int(match[3])))


class ThreadStreams:
    """Streams of threads, for subscribers in this process."""

    def __init__(self, database: Database, supervisor: Supervisor, runs: RunStreams) -> None:
        self._database = database
        self._supervisor = supervisor
        self._runs = runs

    async def from_now(self, tenant_id: UUID, thread_id: UUID, owned: MetadataFilter = None) -> ThreadCursor | None:
        """Return the cursor before the first open run, or after the newest one; None for an unknown thread."""
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.run_counts(session, tenant_id, thread_id)
        return None if row is None else ThreadCursor(row.open or row.runs + 1, START)

    async def follow(
        self, tenant_id: UUID, thread_id: UUID, after: ThreadCursor, modes: Collection[str], *, holder: Hashable = None
    ) -> AsyncIterator[bytes]:
        """Yield chunks of frames after ``after`` until the thread is deleted.

        ``run_modes`` selects every frame, ``state_update`` those of states, ``lifecycle`` only starts and ends.
        """
        run_modes = None if "run_modes" in modes else _STATES if "state_update" in modes else frozenset[str]()
        yield OPENED
        async with contextlib.aclosing(self.started_runs(tenant_id, thread_id, after.ordinal)) as runs:
            async for ordinal, run_id in runs:
                started = after.event if ordinal == after.ordinal else START
                chunks = self._runs.follow(tenant_id, run_id, after=started, modes=run_modes, holder=holder)
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        if chunk == RETRY:
                            break
                        numbered = _renumbered(chunk, ordinal, run_id)
                        del chunk  # hold no frames while waiting
                        yield numbered
                        del numbered
        if self._supervisor.closing:
            yield RETRY

    async def started_runs(
        self, tenant_id: UUID, thread_id: UUID, ordinal: int, *, stays: bool = True
    ) -> AsyncGenerator[tuple[int, UUID], None]:
        """Yield ordinal and id of each run from ``ordinal`` on, once it has started.

        Ends when the thread is deleted or this process stops; unless it ``stays``, also when no run is in progress or
        waits for its turn. Take the next one when the last one has ended.
        """
        while not self._supervisor.closing:
            with self._supervisor.feeds.watching((tenant_id, thread_id), ordinal) as changed:
                following = await self._next_run(tenant_id, thread_id, ordinal)
                if following is None:
                    return
                found, run_id, is_idle = following
                if run_id is None:
                    if is_idle and not stays:
                        return
                    await changed
                    continue
            yield found, run_id
            ordinal = found + 1

    async def answered(self, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> UUID | None:
        """Wait for a run that answers questions of ``run_id``; return the newest one.

        None if the thread is deleted, or the process stops.
        """
        while not self._supervisor.closing:
            async with self._database.reading(tenant_id) as session:
                thread = await queries.run_counts(session, tenant_id, thread_id)
            if thread is None:
                return None
            with self._supervisor.feeds.watching((tenant_id, thread_id), thread.runs + 1) as changed:
                newest = await self._newest(tenant_id, thread_id, run_id)
                if newest != run_id:
                    return newest
                await changed
        return None

    async def _newest(self, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> UUID | None:
        """Return the newest run that answers questions of ``run_id``, or itself; None if it is deleted."""
        async with self._database.reading(tenant_id) as session:
            row = await queries.continued(session, tenant_id, thread_id, run_id)
        return None if row is None else row.run_id

    async def _next_run(self, tenant_id: UUID, thread_id: UUID, ordinal: int) -> tuple[int, UUID | None, bool] | None:
        """Return the first started run from ``ordinal`` on, or no run id if none has; None if the thread is deleted.

        With it: whether no run is in progress or waits for its turn.
        A method of its own, so that a waiting stream holds neither rows nor a connection.
        """
        async with self._database.reading(tenant_id) as session:
            thread = await queries.run_counts(session, tenant_id, thread_id)
            run = await queries.first_started(session, tenant_id, thread_id, ordinal)
        if thread is None:
            return None
        is_idle = thread.open is None
        return (ordinal, None, is_idle) if run is None else (run.ordinal, run.run_id, is_idle)


def _renumbered(chunk: bytes, ordinal: int, run_id: UUID) -> bytes:
    """Prefix each id in ``chunk`` with the run's ordinal. Data is one line, so a line break always ends a field."""
    done = b"event: metadata\r\ndata: %b\r\nid: \\1\r\n\r\n" % encode({"status": "run_done", "run_id": run_id})
    return _END.sub(done, chunk).replace(b"\r\nid: ", b"\r\nid: %d." % ordinal)
