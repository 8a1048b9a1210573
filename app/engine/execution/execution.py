"""Execution of a run under one owner: its state, steps and end. Agents see it as ``RunContext``."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar
from uuid import UUID, uuid5

import msgspec

from app.agents.port import Agent, Interrupt, RunOutcome, Step, ToolIntent
from app.base.crash_points import crash_point
from app.base.errors import AgentServiceError, LeaseLost, RunTimeout
from app.base.ids import task_id
from app.base.offload import BULK, offload
from app.base.tasks import Tasks, run_to_completion
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
from app.domain.lifecycle import Reason, RunStatus, thread_status
from app.domain.messages import Usage
from app.domain.state import NO_VALUES, State, shown
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.state_cache import CachedState
from app.engine.entries import ClaimedRun, EndEntry, JournalEntry
from app.engine.execution import run_state
from app.engine.execution.journal import Journal
from app.engine.execution.lease import Lease
from app.engine.execution.questions import named, recorded
from app.engine.execution.run_state import LoadedThread, PendingWrites, settings_of
from app.engine.execution.run_trace import NullTrace
from app.engine.streams.feed import AnyFrame, Feed
from app.engine.streams.frames import FrameRenderer, with_last_member
from app.security.limits.budgets import RunAccount

encode = msgspec.json.Encoder().encode

ROLLED_BACK = Failed(error="RolledBack", message="The run was rolled back: the thread is as it was before.")
REMOVED = Failed(error="RunRemoved", message="The run was removed: rolled back, or deleted with its thread.")
OUT_OF_TIME = Failed(error=RunTimeout.__name__, message="The run took longer than its agent's limits.seconds.")


class RunEnding(NamedTuple):
    """How a run ended: its failure, its questions, or neither if it succeeded."""

    failed: Failed | None = None
    interrupts: Sequence[Interrupt] = ()

    def final_events(
        self, run_id: UUID, head: UUID | None, status: str, move: CheckpointPosition | None
    ) -> list[Event]:
        """Return the run's last events; ``move`` is the thread's position, for subscribers of its steps."""
        events: list[Event] = []
        if self.interrupts:
            events.append(
                Interrupted(
                    checkpoint_id=str(head), interrupts=msgspec.Raw(interrupts_json(self.interrupts)), move=move
                )
            )
        if self.failed is not None:
            events.append(msgspec.structs.replace(self.failed, move=move))
        return [*events, Ended(run_id=str(run_id), status=status)]

    def result(self, state: State) -> list[bytes]:
        """Return the response of ``wait`` and ``join``: the values of ``state``, or the error, as chunks of JSON."""
        if self.failed is not None:
            return [encode({"__error__": {"error": self.failed.error, "message": self.failed.message}})]
        pieces = state.pieces()
        return (
            with_last_member(pieces, "__interrupt__", interrupts_json(self.interrupts)) if self.interrupts else pieces
        )


def interrupts_json(interrupts: Sequence[Interrupt]) -> bytes:
    """Return ``interrupts`` as the JSON that clients read under ``__interrupt__``."""
    return encode([{"value": i.value, "id": i.id, "response_schema": i.expects} for i in interrupts])


def failure(error: BaseException) -> Failed:
    """Return what a client may see of ``error``: our own errors in full, others truncated to 2,000 characters."""
    try:
        text = str(error) if isinstance(error, AgentServiceError) else str(error)[:2000]
    except Exception:  # noqa: BLE001  the text of a foreign error is made by its own code
        text = ""
    # neither NUL nor lone surrogates can be stored
    storable = text.encode(errors="replace").decode().replace("\x00", "\ufffd")
    return Failed(error=type(error).__name__, message=storable or type(error).__name__)


def task_of(head: UUID | None, following: Sequence[str]) -> str:
    """Return the id of the interrupted task: the first node that would follow the newest checkpoint ``head``."""
    assert head is not None
    return str(task_id(head, following[0] if following else ""))


P = ParamSpec("P")
Value = TypeVar("Value")


LARGE_UPDATE = 4 * 1024 * 1024
"""Bytes of a step's update above which the event log stores it only if the run's stream modes show updates."""


class HandOver(Exception):
    """The process drains: the run stops at this step boundary and another owner resumes it."""


class RunPaused(Exception):
    """The run paused at this step boundary, as its caller requested; its thread waits to be continued."""


class Execution:
    """Drives one claimed run. Implements ``app.agents.port.RunContext``."""

    def __init__(
        self, lease: Lease, claimed: ClaimedRun, loaded: LoadedThread, journal: Journal, feed: Feed, tasks: Tasks
    ) -> None:
        self._lease = lease
        self.check_lease = lease.check
        self._tasks = tasks
        self.claimed = claimed
        self.tenant_id = claimed.tenant_id
        self.thread_id = claimed.thread_id
        self.run_id = claimed.run_id
        self.assistant_id = claimed.assistant_id
        self.request = loaded.request
        self.config, self.context = settings_of(claimed, self.request)
        earlier = claimed.answered if self.request.checkpoint_id is None else {}
        self.answers: dict[str, Any] = {**earlier, **loaded.past.answers}
        self._past = loaded.past
        self.draining = False
        self.usage = Usage()
        self.account: RunAccount | None = None
        self.status = RunStatus.RUNNING
        self.ended = False
        self.deleted = False
        self.on_step: Callable[[], None] | None = None
        self._sealed = False
        self._settled: asyncio.Future[None] | None = None
        self.queued = 0
        self._writes = PendingWrites(claimed, loaded)
        self.state = self._writes.state
        self.next = loaded.next
        self.unresolved_calls = loaded.past.unresolved_calls
        self._continues = loaded.run_id == claimed.run_id
        self._journal = journal
        self._feed = feed
        self._renderer = FrameRenderer(self.request.stream_mode, claimed.epoch)
        self._events: list[Event] = []
        self._message_count = (-1, 0)
        self._first_seq = 1
        self._deferred: list[Event] | None = None
        self._input_written: asyncio.Task[int] | None = None
        self._input_in_thread = False
        self._ending = RunEnding()
        self.trace = NullTrace()

    @property
    def step(self) -> int:
        """The number of the step that the agent is about to complete."""
        return self._writes.step

    @property
    def head(self) -> UUID | None:
        """The newest checkpoint."""
        return self._writes.head

    def cached_state(self, head: UUID) -> CachedState:
        """Return the state that the run ended with, for the cache."""
        return CachedState(head, self.step - 1, self._writes.next, self.state)

    def announce(self) -> None:
        """Announce to subscribers that the run has started."""
        attempt, run_id = self.claimed.attempt, str(self.run_id)
        if self._renderer.detailed:
            given = msgspec.Raw(encode(self.request.input))
            self._stream(RunStarted(run_id, attempt, str(self.thread_id), self.claimed.agent, given))
        else:
            self._stream(RunStarted(run_id, attempt))
        if self.claimed.crashed_mid_step:
            step = self.step if self._continues else self.step + 1  # the input is a step
            candidates = [first_message_id(self.run_id, epoch, step) for epoch in range(1, self.claimed.epoch)]
            self._stream(Retracted(message_ids=candidates, step=step))

    async def begin(self, agent: Agent) -> None:
        """Merge the run's input into the thread.

        Raises ``Invalid`` for an input that the agent rejects, ``RunPaused`` if the run shall pause before its first
        node.
        """
        self.trace.step_begins()
        if self._continues:
            return
        before = self.head
        source = run_state.source_of(self.request, self.head)
        self.next = following = await self._take_input(agent, source)
        if source:
            # A run that ends at once commits its input with its only step; any other soon awaits something, and then
            # the input becomes visible without waiting for the step.
            asyncio.get_running_loop().call_soon(self._commit_input)
        pauses = source == "input" and self.request.pauses((), following)
        if self.head is not None:
            applied = InputApplied(str(self.head), self._move(before, source, () if pauses else following))
            self._events.append(applied)
            self._feed.push(self._render(applied))
        if pauses:
            await self._pause()

    async def _take_input(self, agent: Agent, source: str) -> tuple[str, ...]:
        size = self.claimed.request_bytes
        update = await _shielded(size, run_state.update_of, self.request, agent, self.run_id)
        self.request.input = None  # may be large, and the update has all of it that matters
        return await _shielded(size + self.state.effort(update), self._merge_input, update, agent, source)

    def _merge_input(self, update: dict[str, Any], agent: Agent, source: str) -> tuple[str, ...]:
        self.state.apply(update)
        following = run_state.nodes(self.request, source, agent, self._writes)
        if source:
            self._writes.checkpoint(source, following)
        return following

    def _move(self, parent: UUID | None, source: str, starts: tuple[str, ...]) -> CheckpointPosition | None:
        """Return the position of the newest checkpoint; None unless the run's stream modes show steps."""
        if not self._renderer.moves:
            return None
        return CheckpointPosition(
            parent_id="" if parent is None else str(parent),
            step=self.step - 1,
            source=source,
            next=self._writes.next,
            starts=starts,
            at=datetime.now(UTC).isoformat(),
        )

    def _commit_input(self) -> None:
        if self._writes.pending and not self.ended and self._deferred is None:
            size = self.state.pending_size()
            self._input_in_thread = size >= BULK
            write = self._write_input(size) if self._input_in_thread else self._journal.write(self._writes.entry([]))
            self._input_written = self._tasks.start(write, name="input")

    async def _write_input(self, size: int) -> int:
        return await self._journal.write(await offload(size, self._writes.entry, []))

    def seal(self) -> None:
        """Reject further calls of the agent: its run ends without it, through the engine's calls."""
        self._sealed = True
        self.check_lease = self._check_sealed

    def _check_sealed(self) -> None:
        if self._sealed:
            raise LeaseLost("The run continued without this code, which did not stop in time.")

    def emit(self, event: Event) -> None:
        """Send ``event`` at once; during the commit of a step, right after it."""
        if self._sealed:
            return
        if self._deferred is not None:
            self._deferred.append(event)
        elif self._renderer.wants(event):
            self._stream(event)

    def message_id(self) -> str:
        """Return a new message id, derived from the epoch so that the next owner can retract it."""
        step, count = self._message_count
        self._message_count = (self.step, count + 1 if step == self.step else 0)
        return _message_id(self.run_id, self.claimed.epoch, *self._message_count)

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Make durable that these calls, requested by an earlier step, may start now."""
        self._check_sealed()
        if intents:
            self._writes.intend(intents, self.step - 1)
            await self._write(None, None)

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it. Raises ``HandOver`` or ``RunPaused`` to stop the agent here."""
        self._check_sealed()
        if self.request.pauses((step.node,), step.next):
            await self._pause(step)
        self._count(step)
        await self._write(step, None)
        if self.on_step is not None:
            self.on_step()
            self.on_step = None
        self.trace.step_begins()
        self.next = step.next
        if self.account is not None:
            await self.account.check()
        if self.draining:
            raise HandOver

    def _count(self, step: Step | None) -> None:
        if step is not None and step.usage is not None:
            self.usage = self.usage.plus(step.usage)
            if self.account is not None:
                self.account.spend_step(step.model, step.usage)

    async def _pause(self, step: Step | None = None) -> NoReturn:
        await self._finish(RunStatus.INTERRUPTED, Reason.PAUSED, RunEnding(), RunOutcome(step=step))
        raise RunPaused

    async def end(self, outcome: RunOutcome) -> None:
        """Commit the last step together with the end of the run."""
        if outcome.interrupts:
            asks = RunEnding(None, named(outcome.interrupts, self.run_id, self._past))
            reviewed = any(one.kind == "review" for one in outcome.interrupts)
            reason = Reason.REVIEW if reviewed else Reason.INPUT_REQUIRED
            await self._finish(RunStatus.INTERRUPTED, reason, asks, outcome)
        else:
            await self._finish(RunStatus.SUCCESS, Reason.DONE, RunEnding(), outcome)

    async def fail(self, error: BaseException) -> None:
        """End the run with ``error``."""
        await self._finish(RunStatus.ERROR, Reason.FAILED, RunEnding(failure(error)))

    async def time_out(self) -> None:
        """End the run because its time limit has passed."""
        await self._finish(RunStatus.TIMEOUT, Reason.DEADLINE, RunEnding(OUT_OF_TIME))

    async def cancelled(self, reason: Reason) -> None:
        """End the run because a client cancelled it; committed steps stay."""
        await self._finish(RunStatus.INTERRUPTED, reason, RunEnding())

    @property
    def streamed_uncommitted(self) -> bool:
        """Whether subscribers were sent frames that the event log does not hold."""
        return self._renderer.seq >= self._first_seq

    def rolled_back(self, queued: int) -> None:
        """Announce that the run was rolled back and deleted. ``queued`` runs wait for the thread."""
        self._ending = RunEnding(ROLLED_BACK)
        self.queued = queued
        self.status = RunStatus.INTERRUPTED
        for event in self._ending.final_events(self.run_id, None, self.status, None):
            self._stream(event)
        self.ended = self.deleted = True

    async def settle_input(self) -> None:
        """Wait until no write of the input is in progress."""
        if self._input_written is not None:
            await asyncio.wait([self._input_written])

    async def settle(self) -> None:
        """Wait until no write of this run is in progress."""
        await self.settle_input()
        if self._deferred is not None:
            self._settled = self._settled or asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settled])  # a cancelled caller does not cancel the future for the others

    async def _finish(
        self, status: RunStatus, reason: Reason, ending: RunEnding, outcome: RunOutcome = RunOutcome()
    ) -> None:
        self._ending = ending
        step, failed = outcome.step, ending.failed
        self._count(step)
        asked = [{"id": i.id, "value": i.value} for i in ending.interrupts]
        end = EndEntry(
            status=status,
            reason=reason,
            thread_status=thread_status(status, reason),
            error=None if failed is None else encode({"error": failed.error, "message": failed.message}).decode(),
            interrupts=encode(asked).decode() if asked else None,
            questions=recorded(outcome.interrupts, ending.interrupts, self.request.requested_by or None)
            if asked
            else None,
            answered=encode(outcome.answered).decode() if outcome.answered else None,
            usage=encode(self.usage).decode() if self.usage.total_tokens else None,
        )
        await self._write(step, end)

    async def _write(self, step: Step | None, end: EndEntry | None) -> None:
        self._lease.check()
        self._deferred = []
        await run_to_completion(self._commit(step, end))
        self.trace.step_ends(step, self.step - 1)

    def _prepare(self, step: Step | None, end: EndEntry | None) -> tuple[JournalEntry, list[AnyFrame]]:
        """Return the entry to write, and the frames to push once it is written."""
        announced: list[Event] = []
        if step is not None:
            number, parent = self.step, self.head
            checkpoint_id = self._writes.take(step)
            updates = msgspec.Raw(b"{}")  # a large one is stored once, with the state, unless stream modes show it
            if self._renderer.shows_updates or self.state.pending_size() <= LARGE_UPDATE:
                updates = msgspec.Raw(encode({step.node: shown(step.update)}))
            move = self._move(parent, "loop", step.next if end is None else ())
            announced.append(StepCommitted(number, str(checkpoint_id), updates, step.node, move))
        if end is not None:
            announced += self._ending.final_events(self.run_id, self.head, end.status, self._move(None, "", ()))
            if end.interrupts is not None:
                end = msgspec.structs.replace(end, task=task_of(self.head, self._writes.next))
        values = self.state.view() if any(map(self._renderer.needs_values, announced)) else NO_VALUES
        frames: list[AnyFrame] = []
        for event in announced:
            if self._renderer.wants(event):
                self._events.append(event)
                frames += self._renderer.render(event, values)
        stored = []
        if self._renderer.seq >= self._first_seq:  # the row's key; events without a frame wait for the next row
            stored.append((self._first_seq, pack(encode(self._events))))
            self._events, self._first_seq = [], self._renderer.seq + 1
        return self._writes.entry(stored, end), frames

    async def _commit(self, step: Step | None, end: EndEntry | None) -> None:
        """Write ``step`` and ``end``, then announce them; on failure, keep streamed events for the next write."""
        sent = list(self._events), self._first_seq, self._renderer.seq
        try:
            if self._input_in_thread:
                await self.settle_input()
            size = self.state.pending_size() + (0 if step is None else self.state.effort(step.update))
            entry, frames = await offload(size, self._prepare, step, end)
            if self._input_written is not None:
                await self._input_written
                self._input_written = None
            crash_point("before_commit" if entry.end is None else "before_end")
            self.queued = await self._journal.write(entry)
            written = entry.end is not None
            del entry
            if end is not None:  # set here, where no cancellation of the caller can come in between
                self.status, self.ended = end.status, True
            crash_point("after_end" if written else "after_commit")
        except BaseException:
            self._events, self._first_seq, self._renderer.seq = sent
            raise
        finally:
            deferred, self._deferred = self._deferred or [], None
            settled, self._settled = self._settled, None
            if settled is not None:
                settled.set_result(None)
        self._feed.push(frames)
        self._feed.stored(self._renderer.seq)
        for event in deferred:
            self.emit(event)

    def _stream(self, event: Event) -> None:
        self._events.append(event)
        self._feed.push(self._render(event))

    def _render(self, event: Event) -> list[AnyFrame]:
        values = self.state.view() if self._renderer.needs_values(event) else NO_VALUES
        return self._renderer.render(event, values)

    def result(self) -> list[bytes]:
        """Return the response of ``wait`` and ``join``: the values, or the error, as chunks of JSON."""
        return self._ending.result(self.state)


async def _shielded(size: int, work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Like ``offload``, but a cancelled caller waits until ``work`` is done, as it changes shared state."""
    if size < BULK:
        return work(*args, **named)
    return await run_to_completion(offload(size, work, *args, **named))


def first_message_id(run_id: UUID, epoch: int, step: int) -> str:
    """Return the id of the first message that the owner of ``epoch`` streams in ``step``."""
    return _message_id(run_id, epoch, step, 0)


def _message_id(run_id: UUID, epoch: int, step: int, count: int) -> str:
    return f"run--{uuid5(run_id, f'{epoch} {step} {count}')}"
