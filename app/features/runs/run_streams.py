"""A run's stream from any place on: what the log holds, then what the live feed says, without gap or repeat."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Hashable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import Interrupt
from app.base.errors import NotFound, Unavailable
from app.base.offload import offload
from app.domain.event_id import EventId
from app.domain.events import Ended, Event, Failed, InputApplied, Interrupted, Retracted, StepCommitted
from app.domain.lifecycle import TERMINAL, RunStatus
from app.domain.state import NO_VALUES, Values
from app.engine.checkpoints.codec import unpack
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.execution.execution import REMOVED, first_message_id, interrupts_json
from app.engine.streams.feed import AnyFrame, DeferredFrame, Feed, FeedTruncated
from app.engine.streams.feed_registry import TrackedRun
from app.engine.streams.frames import FrameRenderer, with_last_member
from app.engine.streams.send_budget import SMALL, Result, SendBudget
from app.engine.structs import RunRequest
from app.engine.supervisor import Supervisor
from app.features.runs import queries
from app.infra.db.engine import Database
from app.infra.db.session import Reader

YIELD_EVERY = 16
"""Events of a replay between two yields to the event loop."""

RETRY = b"retry: 1000\r\n\r\n"
"""Ends a stream of a draining process: the client comes back in a second, to whoever serves then."""

READ_SECONDS = 5.0
"""How long one read of the log may take at first: a connection that is dead without knowing it is given up then."""

MAX_READ_SECONDS = 60.0

PAUSE_SECONDS = 0.5
"""Between two tries to read the log while the database is away."""

_events = msgspec.json.Decoder(list[Event])


class RunStreams:
    """Follows runs for readers."""

    def __init__(self, database: Database, supervisor: Supervisor) -> None:
        self._database = database
        self._supervisor = supervisor
        self.outflow = SendBudget()

    async def follow(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: EventId,
        modes: Collection[str] | None,
        holder: Hashable = None,
    ) -> AsyncGenerator[bytes, None]:
        """Chunks of frames after ``after`` until the run ends; ``modes`` narrows them (None: all the run's).

        ``holder``: whose share of the memory for large chunks they take.
        A reader that has had something waits until the database is back; any other gets ``Unavailable``.
        """
        place, failures = after, 0
        feeds = self._supervisor.feeds
        with feeds.follow(tenant_id, run_id) as followed:
            while True:
                feed = followed.feed
                # all that owners before this one have committed is in the log when it is read now, but not what
                # owners before one that comes meanwhile will have
                owned = feed.epoch
                with contextlib.suppress(FeedTruncated):
                    while _covers(feed, place):
                        await feed.encode_next(place, modes)
                        if (fresh := feed.take(place, modes)) is not None:
                            place, chunk = fresh
                            if chunk:
                                yield chunk
                            del fresh, chunk  # a reader that waits holds on to nothing
                        elif feed.finished:
                            return
                        elif feed.closed:
                            break
                        else:
                            await feeds.changed(followed, feed)
                if self._supervisor.closing:
                    yield RETRY
                    return
                try:
                    ended, chunks = await self._replay(tenant_id, run_id, LogReplay(place, modes, holder), failures)
                    async with contextlib.aclosing(chunks):
                        async for reached, chunk in chunks:
                            place = max(place, reached)  # a reader may know more of an unfinished step than the log
                            if chunk:
                                yield chunk
                            del chunk
                except Unavailable:
                    if place == after:
                        raise
                    failures += 1
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                failures = 0
                if ended:
                    return
                if owned > place.epoch:
                    place = EventId(owned, 0)
                else:
                    await self._wait_for_owner(followed, feed, place)

    async def _wait_for_owner(self, followed: TrackedRun, feed: Feed, place: EventId) -> None:
        """Wait for an owner whose frames may follow ``place``, or for other news of the run."""
        if not feed.epoch and not feed.closed:
            await self._supervisor.feeds.changed(followed, feed)
        while feed.epoch < place.epoch and not feed.closed:
            await self._supervisor.feeds.changed(followed, feed)

    async def result(self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID) -> bytes:
        """What ``outcome`` gives, as one text."""
        found = await self.outcome(tenant_id, thread_id, run_id)
        found.release()
        return b"".join(found.pieces)

    async def outcome(self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID, holder: Hashable = None) -> Result:
        """What ``wait`` and ``join`` answer, once the run has ended: its values, or its error, as JSON.

        A large one waits until there is room for it in the share of ``holder``.
        Raises ``Unavailable`` if the database is away at first; who has waited waits until it is back.
        """
        failures = 0
        waited = False
        with self._supervisor.feeds.follow(tenant_id, run_id) as followed:
            while True:
                live = self._supervisor.live(run_id)
                if live is not None and live.claimed.tenant_id == tenant_id:
                    live.awaited = waited = True
                    pieces = await asyncio.shield(live.done)
                    if pieces is not None and (result := self.outflow.take(holder, pieces)) is not None:
                        return result
                    del pieces
                del live  # and with it what it holds of the run, while this waits
                feed = followed.feed  # one that closes while the database is asked has news
                try:
                    result = await self._read_result(tenant_id, thread_id, run_id, holder, failures)
                except Unavailable:
                    if not waited or self._supervisor.closing:
                        raise
                    failures += 1
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
                failures = 0
                if result is not None:
                    return result
                if self._supervisor.closing:
                    raise Unavailable("The server is stopping; join the run again.", retry_after=1)
                while not feed.closed and self._supervisor.live(run_id) is None:
                    waited = True
                    await self._supervisor.feeds.changed(followed, feed)

    async def _read_result(
        self, tenant_id: UUID, thread_id: UUID | None, run_id: UUID, holder: Hashable, failures: int
    ) -> Result | None:
        """The result of a run that has ended, from the database; None while it has not. Raises ``NotFound``."""
        room = self.outflow.room(holder)
        await room.__aenter__()
        try:
            while True:
                async with self._reading(tenant_id, failures) as session:
                    row = await queries.ending(session, tenant_id, thread_id, run_id)
                if row is None:
                    raise NotFound("The run was deleted.")
                if RunStatus(row.status) not in TERMINAL:
                    room.close()
                    return None
                size = size_of(row) if row.head is not None else 0
                if room.fits(size):
                    break
                del row
                await room.wait()
            pieces = await offload(size, _result, row)
            room.made(sum(map(len, pieces)))
        except BaseException:
            room.close()
            raise
        return Result(pieces, room.close)

    async def ended(self, tenant_id: UUID, thread_id: UUID, run_id: UUID) -> None:
        """Return once the run has ended, or is gone."""
        with contextlib.suppress(NotFound):
            (await self.outcome(tenant_id, thread_id, run_id)).release()

    async def _replay(
        self, tenant_id: UUID, run_id: UUID, replay: "LogReplay", failures: int
    ) -> tuple[bool, AsyncGenerator[tuple[EventId, bytes], None]]:
        async with self._reading(tenant_id, failures) as session:
            run = await queries.standing(session, tenant_id, run_id)
            if run is None:
                return True, _removed(run_id, replay.after)
            rows = await queries.logged(session, tenant_id, run_id, EventId(replay.after.epoch, 0))
        ended = RunStatus(run.status) in TERMINAL
        return ended, self._rendered(tenant_id, run, deque(rows), replay)

    @contextlib.asynccontextmanager
    async def _reading(self, tenant_id: UUID, failures: int = 0) -> AsyncIterator[Reader]:
        """A transaction that reads, in a time that grows with the ``failures`` before it. Raises ``Unavailable``."""
        try:
            async with asyncio.timeout(min(READ_SECONDS * 2**failures, MAX_READ_SECONDS)):
                async with self._database.reading(tenant_id) as session:
                    yield session
        except TimeoutError as error:
            raise Unavailable("The database did not answer in time.", retry_after=2) from error

    async def _rendered(
        self, tenant_id: UUID, run: Row[Any], rows: deque[Row[Any]], replay: "LogReplay"
    ) -> AsyncGenerator[tuple[EventId, bytes], None]:
        request = msgspec.json.decode(run.request, type=RunRequest)
        renderer = FrameRenderer(request.stream_mode, 0)
        ended = False
        epoch = seq = 0
        while rows:
            more = queries.has_more(rows)
            while rows:
                row = rows.popleft()
                epoch, seq, body = row.epoch, row.seq, unpack(row.body)
                if epoch != renderer.epoch:
                    renderer = FrameRenderer(request.stream_mode, epoch)
                renderer.seq = seq - 1
                events = deque(_events.decode(body))
                size = len(body)
                del row, body  # a reader that waits holds on to little
                while events:
                    event = events.popleft()
                    ended = isinstance(event, Ended)
                    values = _values_of(event) if renderer.needs_values(event) else NO_VALUES
                    frames = replay.chosen(renderer, event, values)
                    if frames and (size > SMALL or any(isinstance(frame, DeferredFrame) for frame in frames)):
                        async with self.outflow.room(replay.holder) as room:
                            stored = await self._read_values(tenant_id, run, frames)
                            if not room.fits(max(size, 0, *(one.size for one in stored))):
                                _put_away(stored)
                                await room.wait()
                                stored = await self._read_values(tenant_id, run, frames)
                            chunk = _joined(frames)
                            _put_away(stored)
                            room.made(len(chunk) + (size if size > SMALL else 0))
                            del event, frames
                            yield EventId(epoch, renderer.seq), chunk
                            del chunk
                    else:
                        yield EventId(epoch, renderer.seq), _joined(frames)
                    if len(events) % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
            if more:
                async with self._reading(tenant_id) as session:
                    rows.extend(await queries.logged(session, tenant_id, run.ended_run, EventId(epoch, seq)))
        if RunStatus(run.status) in TERMINAL and not ended:
            async with self._reading(tenant_id) as session:
                step = await queries.last_step(session, tenant_id, run.thread_id, run.ended_run)
            reached, frames = _closing(run, request, step)
            yield reached, _joined(replay.narrowed(reached.epoch, 0, frames))

    async def _read_values(self, tenant_id: UUID, run: Row[Any], frames: Sequence[AnyFrame]) -> "list[StoredValues]":
        """Read the values that are not read yet and that ``frames`` hold, each once."""
        deferred = [frame.values for frame in frames if isinstance(frame, DeferredFrame)]
        found = list(dict.fromkeys(values for values in deferred if isinstance(values, StoredValues)))
        for values in found:
            async with self._reading(tenant_id) as session:
                row = await queries.checkpoint(session, tenant_id, run.thread_id, values.checkpoint_id)
            size, held = (0, []) if row is None else (size_of(row), [row])
            del row
            values.put(await offload(size, _json_of, held) if held else b"{}")
        return found


class StoredValues:
    """The values at a checkpoint (``app.domain.state.Values``), which a replay reads only where its reader wants them.

    Views keep them for later events, so what was read is put away as soon as it is sent.
    """

    __slots__ = ("_json", "checkpoint_id", "size")

    def __init__(self, checkpoint_id: UUID) -> None:
        self.checkpoint_id = checkpoint_id
        self.put(b"")

    def put(self, json: bytes) -> None:
        """Hold ``json`` from now on."""
        self._json, self.size = json, len(json)

    def json(self) -> bytes:
        """As ``Values.json``, once they are read."""
        return self._json


def _values_of(event: Event) -> StoredValues:
    assert isinstance(event, InputApplied | StepCommitted | Interrupted)
    return StoredValues(UUID(event.checkpoint_id))


def _json_of(held: list[Row[Any]]) -> bytes:
    """The values in the row that is taken out of ``held``: it goes before they are put together."""
    state = read(held.pop(), 0).state
    return state.json()


def _put_away(values: Sequence[StoredValues]) -> None:
    for one in values:
        one.put(b"")


class LogReplay(NamedTuple):
    """What of a run's log a reader wants: what follows ``after`` in ``modes``; ``holder`` as in ``follow``."""

    after: EventId
    modes: Collection[str] | None
    holder: Hashable

    def chosen(self, renderer: FrameRenderer, event: Event, values: Values) -> list[AnyFrame]:
        """The frames of ``event`` that are wanted."""
        start = renderer.seq
        return self.narrowed(renderer.epoch, start, renderer.render(event, values))

    def narrowed(self, epoch: int, start: int, frames: Sequence[AnyFrame]) -> list[AnyFrame]:
        """Those of ``frames`` that are wanted; they follow number ``start`` of ``epoch``."""
        return [
            frame
            for seq, frame in enumerate(frames, start + 1)
            if (epoch, seq) > self.after and (self.modes is None or not frame.mode or frame.mode in self.modes)
        ]


def _joined(frames: Sequence[AnyFrame]) -> bytes:
    return b"".join([frame.data for frame in frames])


def _covers(feed: Feed, place: EventId) -> bool:
    return feed.epoch > 0 and (place.epoch == feed.epoch or (place.epoch == 0 and feed.epoch == 1))


def _closing(run: Row[Any], request: RunRequest, step: int | None) -> tuple[EventId, list[AnyFrame]]:
    """The last frames of a run that ended without an owner to say so, under the epoch of the next one.

    ``step`` is the last that was committed (None: no step was). What its owners said after it is withdrawn.
    """
    renderer = FrameRenderer(request.stream_mode, run.last_epoch + 1)
    frames: list[AnyFrame] = []
    if run.last_epoch:
        began = (
            [] if step is None else [first_message_id(run.ended_run, n + 1, step + 1) for n in range(run.last_epoch)]
        )
        frames += renderer.render(Retracted(message_ids=began, step=0 if step is None else step + 1))
    if run.error is not None:
        frames += renderer.render(Failed(error=run.error["error"], message=run.error["message"]))
    frames += renderer.render(Ended(run_id=str(run.ended_run), status=run.status))
    return EventId(run.last_epoch + 1, renderer.seq), frames


async def _removed(run_id: UUID, after: EventId) -> AsyncGenerator[tuple[EventId, bytes], None]:
    """The last frames of a run that is gone with its log, for a reader that saw no end of it."""
    renderer = FrameRenderer((), after.epoch + 1)
    frames = [*renderer.render(REMOVED), *renderer.render(Ended(run_id=str(run_id), status=RunStatus.INTERRUPTED))]
    yield EventId(after.epoch + 1, renderer.seq), _joined(frames)


def _result(row: Row[Any]) -> list[bytes]:
    if row.error is not None:
        return [msgspec.json.encode({"__error__": row.error})]
    pieces = [b"{", b"}"] if row.head is None else read(row, row.last_number).state.pieces()
    if not row.interrupts:
        return pieces
    asked = interrupts_json([Interrupt(one["id"], one["value"]) for one in row.interrupts])
    return with_last_member(pieces, "__interrupt__", asked)
