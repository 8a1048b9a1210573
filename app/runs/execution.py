"""One run under one owner: its state, its steps, its end. What an agent sees of it is ``RunContext``."""

import asyncio
from typing import Any
from uuid import UUID

import msgspec

from app.agents.port import Agent, Outcome, Step
from app.base.errors import AgentServiceError
from app.base.ids import new_id
from app.base.tasks import Tasks, to_the_end
from app.bus.feed import Feed, Frame
from app.checkpoints.codec import pack, pack_head, ranges_of
from app.domain.events import (
    Ended,
    Event,
    Failed,
    InputApplied,
    Interrupted,
    RunStarted,
    StepCommitted,
)
from app.domain.lifecycle import Reason, RunStatus, thread_status
from app.domain.messages import Usage
from app.domain.state import MESSAGES
from app.runs.entries import (
    CheckpointEntry,
    Claimed,
    EndEntry,
    IntentEntry,
    JournalEntry,
    StepEntry,
)
from app.runs.frames import Renderer, with_member
from app.runs.journal import Journal
from app.runs.loading import Loaded, settings_of
from app.runs.structs import RunRequest

encode = msgspec.json.Encoder().encode


class HandOver(Exception):
    """The process drains: the run stops at this step boundary and another owner goes on with it."""


class Execution:
    """Drives ``agent`` through one claimed run. Implements ``app.agents.port.RunContext``."""

    def __init__(self, claimed: Claimed, loaded: Loaded, journal: Journal, feed: Feed, tasks: Tasks) -> None:
        self._tasks = tasks
        self.claimed = claimed
        self.tenant_id = claimed.tenant_id
        self.thread_id = claimed.thread_id
        self.run_id = claimed.run_id
        self.assistant_id = claimed.assistant_id
        self.request = msgspec.json.decode(claimed.request, type=RunRequest)
        self.state = loaded.state
        self.config, self.context = settings_of(claimed, self.request)
        self.answers: dict[str, Any] = {}
        self.next = loaded.next
        self.step = loaded.step + 1
        self.draining = False
        self.head = loaded.checkpoint_id
        self.usage = Usage()
        self.status = RunStatus.RUNNING
        self.ended = False
        self.queued = 0
        self._continues = loaded.run_id == claimed.run_id
        self._journal = journal
        self._feed = feed
        self._renderer = Renderer(self.request.stream_mode, claimed.epoch)
        self._events: list[Event] = []
        self._first_seq = 1
        self._checkpoints: list[CheckpointEntry] = []
        self._held: list[Event] | None = None
        self._input_written: asyncio.Task[int] | None = None

    @property
    def last(self) -> int:
        """The number of the newest checkpoint."""
        return self.step - 1

    def begin(self, agent: Agent) -> None:
        """Announce the run and merge its input. Raises ``Invalid`` for an input that the agent does not take."""
        self._say(RunStarted(run_id=str(self.run_id), attempt=self.claimed.attempt))
        if self._continues or self.request.input is None:
            return
        self._apply(agent.read_input(self.request.input, self.run_id))
        checkpoint_id = self._checkpoint("input", agent.nodes[:1])
        self._say(InputApplied(checkpoint_id=str(checkpoint_id)))
        self.step += 1
        # a run that ends at once commits its input with its only step; any other soon waits for something,
        # and then the input becomes visible without waiting for the step
        asyncio.get_running_loop().call_soon(self._commit_input)

    def _commit_input(self) -> None:
        if self._checkpoints and not self.ended and self._held is None:
            self._input_written = self._tasks.start(self._journal.write(self._entry()), name="input")

    def emit(self, event: Event) -> None:
        """Say ``event`` at once; while a step commits it is said right after that step."""
        if self._held is not None:
            self._held.append(event)
        elif self._renderer.wants(event):
            self._say(event)

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it."""
        if step.usage is not None:
            self.usage = add(self.usage, step.usage)
        await self._write(step, None)
        if self.draining:
            raise HandOver

    async def end(self, outcome: Outcome) -> None:
        """Commit the last step together with the end of the run."""
        if outcome.interrupts:
            interrupts = encode([{"value": i.value, "id": i.id} for i in outcome.interrupts])
            await self._finish(RunStatus.INTERRUPTED, Reason.INPUT_REQUIRED, step=outcome.step, interrupts=interrupts)
        else:
            await self._finish(RunStatus.SUCCESS, Reason.DONE, step=outcome.step)

    async def fail(self, error: BaseException) -> None:
        """End the run with ``error``."""
        failed = Failed(error=type(error).__name__, message=describe(error))
        await self._finish(RunStatus.ERROR, Reason.FAILED, failed=failed)

    async def time_out(self) -> None:
        """End the run because its time is up."""
        failed = Failed(error="RunTimeout", message="The run took longer than its agent's limits.seconds.")
        await self._finish(RunStatus.TIMEOUT, Reason.DEADLINE, failed=failed)

    async def cancelled(self) -> None:
        """End the run because a client asked for it."""
        await self._finish(RunStatus.INTERRUPTED, Reason.CANCELLED)

    async def _finish(
        self,
        status: RunStatus,
        reason: Reason,
        *,
        step: Step | None = None,
        failed: Failed | None = None,
        interrupts: bytes | None = None,
    ) -> None:
        self._outcome = (status, failed, interrupts)
        if step is not None and step.usage is not None:
            self.usage = add(self.usage, step.usage)
        end = EndEntry(
            status=status,
            reason=reason,
            thread_status=thread_status(status, reason),
            error=None if failed is None else encode({"error": failed.error, "message": failed.message}).decode(),
            interrupts=None if interrupts is None else _by_task(self.head, interrupts).decode(),
            usage=encode(self.usage).decode() if self.usage.total_tokens else None,
        )
        await self._write(step, end)
        self.status = status
        self.ended = True

    async def _write(self, step: Step | None, end: EndEntry | None) -> None:
        announced: list[Event] = []
        if step is not None:
            announced.append(self._take(step))
        if end is not None:
            announced += self._last_words(end)
        entry = self._entry(step, end)
        values = self.state.json() if any(map(self._renderer.needs_values, announced)) else b""
        said = [event for event in announced if self._renderer.wants(event)]
        entry.events = self._stored([*self._events, *said])
        self._events = []
        self._held = []
        await to_the_end(self._commit(entry, said, values))

    async def _commit(self, entry: JournalEntry, said: list[Event], values: bytes) -> None:
        try:
            if self._input_written is not None:
                await self._input_written
                self._input_written = None
            self.queued = await self._journal.write(entry)
        finally:
            held, self._held = self._held or [], None
        frames: list[Frame] = []
        for event in said:
            frames += self._renderer.render(event, values)
        self._feed.push(frames)
        self._feed.stored(self._renderer.seq)
        self._first_seq = self._renderer.seq + 1
        for event in held:
            self.emit(event)

    def _take(self, step: Step) -> StepCommitted:
        self._apply(step.update)
        checkpoint_id = self._checkpoint("loop", step.next)
        self.next = step.next
        return StepCommitted(
            step=self.step, checkpoint_id=str(checkpoint_id), updates=msgspec.Raw(encode({step.node: step.update}))
        )

    def _last_words(self, end: EndEntry) -> list[Event]:
        _, failed, interrupts = self._outcome
        words: list[Event] = []
        if interrupts is not None:
            words.append(Interrupted(checkpoint_id=str(self.head), interrupts=msgspec.Raw(interrupts)))
        if failed is not None:
            words.append(failed)
        return [*words, Ended(run_id=str(self.run_id), status=end.status)]

    def _apply(self, update: dict[str, Any]) -> None:
        for name, value in update.items():
            if name == MESSAGES:
                self.state.merge_messages([bytes(m) if isinstance(m, msgspec.Raw) else encode(m) for m in value])
            else:
                self.state.set(name, value)

    def _checkpoint(self, source: str, following: tuple[str, ...]) -> UUID:
        head = self.state.head()
        firsts, lasts = ranges_of(head)
        checkpoint_id = new_id()
        self._checkpoints.append(
            CheckpointEntry(
                checkpoint_id=checkpoint_id,
                parent_id=self.head,
                source=source,
                step=self.step,
                next=following,
                head=pack_head(head),
                first_items=firsts,
                last_items=lasts,
            )
        )
        self.head = checkpoint_id
        return checkpoint_id

    def _entry(self, step: Step | None = None, end: EndEntry | None = None) -> JournalEntry:
        checkpoints, self._checkpoints = self._checkpoints, []
        entry = JournalEntry(
            tenant_id=self.tenant_id,
            thread_id=self.thread_id,
            run_id=self.run_id,
            epoch=self.claimed.epoch,
            owner=self.claimed.owner,
            head=self.head if checkpoints else None,
            last_number=self.state.last_number,
            checkpoints=checkpoints,
            items=[(number, pack(body)) for number, body in self.state.take_items()],
            steps=[],
            intents=[],
            events=[],
            end=end,
        )
        if step is not None:
            assert self.head is not None
            usage = None if step.usage is None else encode(step.usage).decode()
            entry.steps.append(StepEntry(step=self.step, node=step.node, checkpoint_id=self.head, usage=usage))
            entry.intents = [
                IntentEntry(
                    call_id=i.call_id, step=self.step, tool=i.tool, tool_class=i.tool_class, key=i.key, args=i.args
                )
                for i in step.intents
            ]
            self.step += 1
        return entry

    def _stored(self, events: list[Event]) -> list[tuple[int, bytes]]:
        return [(self._first_seq, pack(encode(events)))] if events else []

    def _say(self, event: Event) -> None:
        self._events.append(event)
        values = self.state.json() if self._renderer.needs_values(event) else b""
        self._feed.push(self._renderer.render(event, values))

    def result(self) -> bytes:
        """What ``wait`` and ``join`` answer: the values, or the error, as JSON."""
        _, failed, interrupts = self._outcome
        if failed is not None:
            return encode({"__error__": {"error": failed.error, "message": failed.message}})
        values = self.state.json()
        return values if interrupts is None else with_member(values, "__interrupt__", interrupts)


def _by_task(checkpoint_id: UUID | None, interrupts: bytes) -> bytes:
    return b"{" + encode(str(checkpoint_id)) + b":" + interrupts + b"}"


def add(total: Usage, used: Usage) -> Usage:
    """The tokens of both."""
    return Usage(
        input_tokens=total.input_tokens + used.input_tokens,
        output_tokens=total.output_tokens + used.output_tokens,
        total_tokens=total.total_tokens + used.total_tokens,
    )


def describe(error: BaseException) -> str:
    """What a client may know of ``error``: our own errors speak for themselves, an agent's are shown bounded."""
    words = str(error) if isinstance(error, AgentServiceError) else str(error)[:2000]
    # neither a zero byte nor half a surrogate pair can be stored
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd") or type(error).__name__
