"""All runs of a thread as one stream: each run's own frames, one run after the other, without gap or repeat.

Ids are the run's place among the thread's runs in front of the frame's own id, ``n.epoch-seq``. The ``end`` of a run
becomes ``metadata`` with ``run_done``, because the stream goes on.
"""

import contextlib
import re
from collections.abc import AsyncIterator, Collection, Hashable
from typing import NamedTuple
from uuid import UUID

import msgspec

from app.base.errors import Invalid
from app.domain.event_id import FROM_THE_START, START, EventId
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.features.runs.run_streams import RETRY, RunStreams
from app.infra.db.engine import Database
from app.security.access.structs import MetadataFilter

THREAD_MODES = ("run_modes", "lifecycle", "state_update")

_STATES = frozenset({"values", "updates", "checkpoints"})
_PLACE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})-([0-9]{1,9})")
_END = re.compile(rb"event: end\r\ndata: [^\r\n]*\r\nid: ([0-9]+-[0-9]+)\r\n\r\n$")

encode = msgspec.json.Encoder().encode


class ThreadCursor(NamedTuple):
    """In the thread's run number ``ordinal``, after its frame ``event``."""

    ordinal: int
    event: EventId


def parse_cursor(text: str) -> ThreadCursor:
    """The place that a ``Last-Event-ID`` names. Raises ``Invalid``."""
    if text in FROM_THE_START:
        return ThreadCursor(0, START)
    match = _PLACE.fullmatch(text)
    if match is None:
        raise Invalid("Invalid Last-Event-ID: send an id of this stream (n.epoch-seq), or -1 for all of it.")
    return ThreadCursor(int(match[1]), EventId(int(match[2]), int(match[3])))


class ThreadStreams:
    """Follows threads for readers."""

    def __init__(self, database: Database, supervisor: Supervisor, runs: RunStreams) -> None:
        self._database = database
        self._supervisor = supervisor
        self._runs = runs

    async def from_now(self, tenant_id: UUID, thread_id: UUID, owned: MetadataFilter = None) -> ThreadCursor | None:
        """The place before the first run that has not ended, or after the newest one; None for an unknown thread."""
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.turn(session, tenant_id, thread_id)
        return None if row is None else ThreadCursor(row.open or row.runs + 1, START)

    async def follow(
        self, tenant_id: UUID, thread_id: UUID, after: ThreadCursor, modes: Collection[str], *, holder: Hashable = None
    ) -> AsyncIterator[bytes]:
        """Chunks of frames after ``after``, until the thread is deleted.

        ``run_modes`` gives every frame, ``state_update`` those of states, ``lifecycle`` the beginnings and ends alone.
        """
        shown = None if "run_modes" in modes else _STATES if "state_update" in modes else frozenset[str]()
        place = after
        while not self._supervisor.closing:
            with self._supervisor.feeds.watching((tenant_id, thread_id), place.ordinal) as news:
                turn = await self._turn(tenant_id, thread_id, place.ordinal)
                if turn is None:
                    return
                ordinal, run_id = turn
                if run_id is None:
                    await news
                    continue
            started = place.event if ordinal == place.ordinal else START
            chunks = self._runs.follow(tenant_id, run_id, after=started, modes=shown, holder=holder)
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    if chunk == RETRY:
                        break
                    numbered = _renumbered(chunk, ordinal, run_id)
                    del chunk  # a reader that waits holds on to nothing
                    yield numbered
                    del numbered
            place = ThreadCursor(ordinal + 1, START)
        yield RETRY

    async def _turn(self, tenant_id: UUID, thread_id: UUID, ordinal: int) -> tuple[int, UUID | None] | None:
        """The first run from number ``ordinal`` on, without a run when there is none yet; None: the thread is gone.

        A call of its own: a stream that waits must not hold on to rows, nor to the connection that they came by.
        """
        async with self._database.reading(tenant_id) as session:
            thread = await queries.turn(session, tenant_id, thread_id)
            run = await queries.turn_from(session, tenant_id, thread_id, ordinal)
        if thread is None:
            return None
        return (ordinal, None) if run is None else (run.ordinal, run.run_id)


def _renumbered(chunk: bytes, ordinal: int, run_id: UUID) -> bytes:
    """``chunk`` with the run's number in front of each id. Data is one line, so a line break always ends a field."""
    done = b"event: metadata\r\ndata: %b\r\nid: \\1\r\n\r\n" % encode({"status": "run_done", "run_id": run_id})
    return _END.sub(done, chunk).replace(b"\r\nid: ", b"\r\nid: %d." % ordinal)
