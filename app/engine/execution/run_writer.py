"""Write a run under its lease: input, steps and end through the journal, its events to the feed and the event log."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import Step, ToolIntent
from app.base.crash_points import crash_point
from app.base.ids import task_id
from app.base.offload import BULK, offload
from app.base.tasks import Tasks, run_to_completion
from app.domain.events import CheckpointPosition, Event, MessageAdded, StepCommitted
from app.domain.lifecycle import RunStatus
from app.domain.state import NO_VALUES, State, shown
from app.engine.checkpoints.codec import pack
from app.engine.entries import ClaimedRun, EndEntry, JournalEntry
from app.engine.execution.ending import RunEnding, encode
from app.engine.execution.journal import Journal
from app.engine.execution.lease import Lease
from app.engine.execution.run_state import LoadedThread, PendingWrites
from app.engine.streams.feed import AnyFrame, Feed
from app.engine.streams.frames import FrameRenderer

NO_AMENDMENT: Mapping[str, Any] = {}

LARGE_UPDATE = 4 * 1024 * 1024
"""Bytes of a step's update above which the event log stores it only if the run's stream modes show updates."""


Rendered = tuple[Event, list[AnyFrame]]
"""An event and its frames."""


class EventPublisher:
    """Publishes the events of one run: renders them as frames for ``feed`` and collects them for the event log."""

    def __init__(self, modes: Sequence[str], epoch: int, state: State, feed: Feed) -> None:
        self.renderer = FrameRenderer(modes, epoch)
        self._state = state
        self._feed = feed
        self._events: list[Event] = []
        self._first_seq = 1

    @property
    def uncommitted(self) -> bool:
        """Whether subscribers were sent frames that the event log does not hold."""
        return self.renderer.seq >= self._first_seq

    def stream(self, event: Event) -> None:
        """Send ``event`` at once; it is provisional until the next commit."""
        self._events.append(event)
        values = self._state.view() if self.renderer.needs_values(event) else NO_VALUES
        self._feed.announce(event, self.renderer.render(event, values))

    def stage(self, events: Sequence[Event]) -> list[Rendered]:
        """Add ``events`` to the log; return what to announce once the commit is durable."""
        values = self._state.view() if any(map(self.renderer.needs_values, events)) else NO_VALUES
        self._events.extend(events)
        return [(event, self.renderer.render(event, values)) for event in events]

    def take_rows(self) -> list[tuple[int, bytes]]:
        """Return and clear the rows (sequence number, events) to store; events without a frame wait for the next."""
        if not self.uncommitted:
            return []
        row = (self._first_seq, pack(encode(self._events)))
        self._events, self._first_seq = [], self.renderer.seq + 1
        return [row]

    def savepoint(self) -> tuple[list[Event], int, int]:
        """Return the position to which ``restore`` goes back if a commit fails."""
        return list(self._events), self._first_seq, self.renderer.seq

    def restore(self, savepoint: tuple[list[Event], int, int]) -> None:
        """Keep the events that were streamed before ``savepoint`` for the next commit, and forget the staged ones."""
        self._events, self._first_seq, self.renderer.seq = savepoint

    def release(self, rendered: Sequence[Rendered]) -> None:
        """Announce the events of a durable commit."""
        for event, frames in rendered:
            self._feed.announce(event, frames)
        self._feed.stored(self.renderer.seq)


class RunWriter:
    """Commits what one run has done, then announces it. Every write raises ``LeaseLost`` without the lease.

    ``status`` is the committed one; ``queued``: runs that waited for the thread at the last commit.
    """

    def __init__(
        self, claimed: ClaimedRun, loaded: LoadedThread, lease: Lease, feed: Feed, journal: Journal, tasks: Tasks
    ) -> None:
        self._run_id = claimed.run_id
        self.lease = lease
        self._journal = journal
        self._tasks = tasks
        self.writes = PendingWrites(claimed, loaded)
        self.state = loaded.state
        self.events = EventPublisher(loaded.request.stream_mode, claimed.epoch, self.state, feed)
        self.status = RunStatus.RUNNING
        self.queued = 0
        self._deferred: list[Event] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._input_written: asyncio.Task[int] | None = None
        self._input_in_thread = False

    @property
    def ended(self) -> bool:
        """Whether the end of the run is committed."""
        return self.status is not RunStatus.RUNNING

    def emit(self, event: Event) -> None:
        """Send ``event`` at once; during a commit, right after it."""
        if self._deferred is not None:
            self._deferred.append(event)
        elif self.events.renderer.wants(event):
            self.events.stream(event)

    def drop_deferred(self) -> None:
        """Forget the events that wait for the commit in progress."""
        if self._deferred is not None:
            self._deferred.clear()

    def position(self, parent: UUID | None, source: str, starts: tuple[str, ...]) -> CheckpointPosition | None:
        """Return the position of the newest checkpoint; None unless the run's stream modes show steps."""
        if not self.events.renderer.moves:
            return None
        return CheckpointPosition(
            parent_id="" if parent is None else str(parent),
            step=self.writes.step - 1,
            source=source,
            next=self.writes.next,
            starts=starts,
            at=datetime.now(UTC).isoformat(),
        )

    def write_input_soon(self) -> None:
        """Make the input visible without waiting for the first step; a run that ends at once commits both together."""
        asyncio.get_running_loop().call_soon(self._commit_input)

    def _commit_input(self) -> None:
        if self.writes.pending and not self.ended and self._deferred is None:
            size = self.state.pending_size()
            self._input_in_thread = size >= BULK
            write = self._write_input(size) if self._input_in_thread else self._journal.write(self.writes.entry([]))
            self._input_written = self._tasks.start(write, name="input")

    async def _write_input(self, size: int) -> int:
        return await self._journal.write(await offload(size, self.writes.entry, []))

    async def _settle_input(self) -> None:
        if self._input_written is not None:
            await asyncio.wait([self._input_written])

    async def settle(self) -> None:
        """Wait until no write of this run is in progress."""
        await self._settle_input()
        if self._deferred is not None:
            self._settled = self._settled or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settled])  # a cancelled caller does not cancel the future for the others

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Commit that these calls, requested by an earlier step, may start now."""
        self.writes.intend(intents, self.writes.step - 1)
        await self.write(None)

    async def write(
        self,
        step: Step | None,
        end: EndEntry | None = None,
        ending: RunEnding = RunEnding(),
        amendment: Mapping[str, Any] = NO_AMENDMENT,
    ) -> None:
        """Commit ``amendment``, ``step`` and the run's ``end``, then announce them; a cancelled caller waits for it."""
        self.lease.check()
        self._deferred = []
        await run_to_completion(self._commit(step, end, ending, amendment))

    def _prepare(
        self, step: Step | None, end: EndEntry | None, ending: RunEnding, amendment: Mapping[str, Any]
    ) -> tuple[JournalEntry, list[Rendered]]:
        """Return the entry to write, and what to announce once it is written."""
        writes, announced = self.writes, list[Event]()
        if amendment:
            writes.amend(amendment)
        if step is not None:
            number, parent = writes.step, writes.head
            checkpoint_id = writes.take(step)
            updates: tuple[msgspec.Raw, ...] = ()  # large ones are stored once, with the state, unless modes show them
            if self.events.renderer.shows_updates or self.state.pending_size() <= LARGE_UPDATE:
                updates = step.outputs if step.outputs is not None else (_update_of(step),)
            added = [MessageAdded(step.node, number, message) for message in step.added]
            announced += filter(self.events.renderer.wants, added)
            move = self.position(parent, "loop", step.next if end is None else ())
            first, *others = updates or (NO_UPDATE,)
            announced.append(StepCommitted(number, str(checkpoint_id), first, step.node, move, tuple(others)))
        if end is not None:
            announced += ending.final_events(self._run_id, writes.head, end.status, self.position(None, "", ()))
            if end.interrupts is not None:
                end = msgspec.structs.replace(end, task=_interrupted_task(writes))
        rendered = self.events.stage(announced)
        return writes.entry(self.events.take_rows(), end), rendered

    async def _commit(
        self, step: Step | None, end: EndEntry | None, ending: RunEnding, amendment: Mapping[str, Any]
    ) -> None:
        """Write ``step`` and ``end``, then announce them; on failure, keep streamed events for the next write."""
        savepoint = self.events.savepoint()
        try:
            if self._input_in_thread:
                await self._settle_input()
            size = self.state.pending_size() + self.state.effort(amendment if step is None else step.update)
            entry, rendered = await offload(size, self._prepare, step, end, ending, amendment)
            if self._input_written is not None:
                await self._input_written
                self._input_written = None
            crash_point("before_commit" if end is None else "before_end")
            self.queued = await self._journal.write(entry)
            del entry
            if end is not None:  # set here, where no cancellation of the caller can come in between
                self.status = end.status
            crash_point("after_commit" if end is None else "after_end")
        except BaseException:
            self.events.restore(savepoint)
            raise
        finally:
            deferred, self._deferred = self._deferred or [], None
            settled, self._settled = self._settled, None
            if settled is not None:
                settled.set_result(None)
        self.events.release(rendered)
        for event in deferred:
            self.emit(event)

    def rolled_back(self, queued: int, ending: RunEnding) -> None:
        """Announce that the run was rolled back and deleted in the database; ``queued`` runs wait for the thread."""
        self.queued, self.status = queued, RunStatus.INTERRUPTED
        for event in ending.final_events(self._run_id, None, self.status, None):
            self.events.stream(event)


NO_UPDATE = msgspec.Raw(b"{}")


def _update_of(step: Step) -> msgspec.Raw:
    return msgspec.Raw(encode({step.node: shown(step.update)}))


def _interrupted_task(writes: PendingWrites) -> str:
    """Return the id of the interrupted task: the first node that would follow the newest checkpoint."""
    assert writes.head is not None
    return str(task_id(writes.head, writes.next[0] if writes.next else ""))
