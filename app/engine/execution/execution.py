"""Execution of a run under one owner: its input, steps and end, and the context that its agent sees."""

from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar
from uuid import UUID, uuid5

import msgspec

from app.agents.port import START_NODE, Agent, RunOutcome, Step, ToolIntent
from app.base.errors import LeaseLost
from app.base.offload import BULK, offload
from app.base.tasks import run_to_completion
from app.domain.events import Event, InputApplied, Retracted, RunStarted
from app.domain.lifecycle import Reason, RunStatus, thread_status
from app.domain.messages import Usage
from app.engine.checkpoints.state_cache import CachedState
from app.engine.entries import ClaimedRun, EndEntry
from app.engine.execution import run_state
from app.engine.execution.ending import OUT_OF_TIME, ROLLED_BACK, RunEnding, encode, failure
from app.engine.execution.questions import check_storable, named, recorded
from app.engine.execution.run_state import LoadedThread, instructions_of, settings_of
from app.engine.execution.run_trace import NullTrace
from app.engine.execution.run_writer import RunWriter
from app.security.limits.budgets import RunAccount

P = ParamSpec("P")
Value = TypeVar("Value")


class HandOver(Exception):
    """The process drains: the run stops at this step boundary and another owner resumes it."""


class RunPaused(Exception):
    """The run paused at this step boundary, as its caller requested; its thread waits to be continued."""


class Execution:
    """Drives one claimed run: begins it, takes its agent's steps, ends it.

    ``request`` is what the caller asked for, ``next`` the nodes to run, ``usage`` the tokens spent so far.
    """

    def __init__(
        self,
        claimed: ClaimedRun,
        loaded: LoadedThread,
        writer: RunWriter,
        account: RunAccount,
        trace: NullTrace,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """``on_step`` is called once, when the run has committed its first step here."""
        self._claimed = claimed
        self.request = loaded.request
        self._past = loaded.past
        self._continues = loaded.run_id == claimed.run_id
        self.writer = writer
        self.next = loaded.next
        self.usage = Usage()
        self.account = account
        self._trace = trace
        self._on_step = on_step
        self._draining = False
        self._on_drain: Callable[[], None] | None = None
        self._ending = RunEnding()

    def drain(self, *, draining: bool = True) -> None:
        """Stop the agent with ``HandOver`` at its next step boundary; ``draining=False`` takes that back."""
        self._draining = draining
        if draining and self._on_drain is not None:
            self._on_drain()
            self._on_drain = None

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the run shall stop at its next step boundary; at once if it shall already."""
        self._on_drain = None if self._draining else callback
        if self._draining:
            callback()

    def announce(self) -> None:
        """Announce to subscribers that the run has started."""
        claimed, events = self._claimed, self.writer.events
        attempt, run_id = claimed.attempt, str(claimed.run_id)
        subgraphs, answered = self.request.subgraphs, self._past.answered
        if events.renderer.detailed:
            given = msgspec.Raw(encode(self.request.input))
            events.stream(
                RunStarted(run_id, attempt, str(claimed.thread_id), claimed.agent, given, subgraphs, answered)
            )
        else:
            events.stream(RunStarted(run_id, attempt, subgraphs=subgraphs, answered=answered))
        if claimed.crashed_mid_step:
            step = self.writer.writes.step + (not self._continues)  # the input is a step
            candidates = [first_message_id(claimed.run_id, epoch, step) for epoch in range(1, claimed.epoch)]
            events.stream(Retracted(message_ids=candidates, step=step, epoch=claimed.epoch))

    async def begin(self, agent: Agent) -> None:
        """Merge the run's input into the thread.

        Raises ``Invalid`` for an input that the agent rejects, ``RunPaused`` if the run shall pause before its first
        node.
        """
        self._trace.step_begins()
        if self._continues:
            return
        writes = self.writer.writes
        before = writes.head
        source = run_state.source_of(self.request, before)
        self.next = following = await self._take_input(agent, source)
        read = following != (START_NODE,)  # else the agent's first step merges the input
        if source and read:
            self.writer.write_input_soon()
        pauses = source == "input" and self.request.pauses((), following)
        if writes.head is not None:
            position = self.writer.position(before, source, () if pauses else following)
            self.writer.events.stream(InputApplied(str(writes.head), position, read))
        if pauses:
            await self._pause()

    async def _take_input(self, agent: Agent, source: str) -> tuple[str, ...]:
        size = self._claimed.request_bytes
        update = await _shielded(size, run_state.update_of, self.request, agent, self._claimed.run_id)
        self.request.input = None  # may be large, and the update has all of it that matters
        return await _shielded(size + self.writer.state.effort(update), self._merge_input, update, agent, source)

    def _merge_input(self, update: dict[str, Any], agent: Agent, source: str) -> tuple[str, ...]:
        writes = self.writer.writes
        writes.state.apply(update)
        following = run_state.nodes(self.request, source, agent, writes)
        if source:
            writes.checkpoint(source, following)
        return following

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it. Raises ``HandOver`` or ``RunPaused`` to stop the agent here."""
        if step.interruptible and self.request.pauses((step.node,), step.next):
            await self._pause(step)
        self._count(step)
        await self._write(step)
        if self._on_step is not None:
            self._on_step()
            self._on_step = None
        self._trace.step_begins()
        self.next = step.next
        await self.account.check()
        if self._draining and step.interruptible:
            raise HandOver

    def _count(self, step: Step | None) -> None:
        if step is not None and step.usage is not None:
            self.usage = self.usage.plus(step.usage)
            self.account.spend_step(step.model, step.usage)

    async def _pause(self, step: Step | None = None) -> NoReturn:
        await self._finish(RunStatus.INTERRUPTED, Reason.PAUSED, RunEnding(paused=True), RunOutcome(step=step))
        raise RunPaused

    async def end(self, outcome: RunOutcome) -> None:
        """Commit the last step together with the end of the run. Raises ``AgentError`` for unstorable questions."""
        if outcome.interrupts:
            check_storable(outcome.interrupts)
            asks = RunEnding(None, named(outcome.interrupts, self._claimed.run_id, self._past))
            reviewed = any(one.kind == "review" for one in outcome.interrupts)
            reason = Reason.REVIEW if reviewed else Reason.INPUT_REQUIRED
            await self._finish(RunStatus.INTERRUPTED, reason, asks, outcome)
        elif outcome.paused:
            await self._finish(RunStatus.INTERRUPTED, Reason.PAUSED, RunEnding(paused=True), outcome)
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

    def rolled_back(self, queued: int) -> None:
        """Announce that the run was rolled back and deleted. ``queued`` runs wait for the thread."""
        self._ending = RunEnding(ROLLED_BACK)
        self.writer.rolled_back(queued, self._ending)

    async def _finish(
        self, status: RunStatus, reason: Reason, ending: RunEnding, outcome: RunOutcome = RunOutcome()
    ) -> None:
        self._ending = ending
        failed = ending.failed
        self._count(outcome.step)
        if outcome.usage is not None:
            self.usage = self.usage.plus(outcome.usage)
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
        await self.writer.write(outcome.step, end, ending, outcome.amendment)
        self._trace.step_ends(outcome.step, self.writer.writes.step - 1)

    async def amend(self, update: dict[str, Any]) -> None:
        """Make hidden values durable with the newest checkpoint."""
        await self.writer.write(None, amendment=update)

    async def _write(self, step: Step | None, end: EndEntry | None = None) -> None:
        await self.writer.write(step, end, self._ending)
        self._trace.step_ends(step, self.writer.writes.step - 1)

    def result(self) -> list[bytes]:
        """Return the response of ``wait`` and ``join``: the values, or the error, as chunks of JSON."""
        return self._ending.result(self.writer.state)

    def cached_state(self) -> CachedState | None:
        """Return the state that the run ended with, for the cache; None if no checkpoint has it."""
        writes = self.writer.writes
        if (
            writes.head is None
            or writes.state.overfull
            or self._claimed.temporary
            or self._ending.failed is ROLLED_BACK
        ):
            return None
        return CachedState(writes.head, writes.step - 1, writes.next, writes.state)


class AgentRunContext:
    """The run as its agent sees it; implements ``app.agents.port.RunContext``.

    Every write goes through ``Execution`` and carries the epoch of the lease; see ``seal`` for code that does not stop.
    """

    def __init__(self, claimed: ClaimedRun, loaded: LoadedThread, execution: Execution) -> None:
        self.tenant_id = claimed.tenant_id
        self.thread_id = claimed.thread_id
        self.run_id = claimed.run_id
        self.assistant_id = claimed.assistant_id
        self.state = loaded.state
        self.config, self.context = settings_of(claimed, loaded.request)
        self.instructions = instructions_of(loaded.request, claimed.metadata)
        self.cancelled = False
        earlier = claimed.answered if loaded.request.checkpoint_id is None else {}
        self.answers: dict[str, Any] = {**earlier, **loaded.past.answers}
        self.unresolved_calls = loaded.past.unresolved_calls
        self._execution = execution
        self._writer = execution.writer
        self._epoch = claimed.epoch
        self._message_count = (-1, 0)
        self._sealed = False

    @property
    def step(self) -> int:
        """The number of the step in progress."""
        return self._writer.writes.step

    @property
    def next(self) -> tuple[str, ...]:
        """The nodes to run."""
        return self._execution.next

    def mark_cancelled(self) -> None:
        """Record that a client has cancelled the run."""
        self.cancelled = True

    def seal(self) -> None:
        """Reject further calls of the agent: its run ends without it, or another process resumes it."""
        self._sealed = True
        self._writer.drop_deferred()

    def _check_sealed(self) -> None:
        if self._sealed:
            raise LeaseLost("The run continued without this code, which did not stop in time.")

    def check_lease(self) -> None:
        """Raise ``LeaseLost`` if the process may not own the run any more, or has given up on this code."""
        self._check_sealed()
        self._writer.lease.check()

    def emit(self, event: Event) -> None:
        """Send ``event`` at once; during the commit of a step, right after it."""
        if not self._sealed:
            self._writer.emit(event)

    def message_id(self) -> str:
        """Return a new message id, derived from the epoch so that the next owner can retract it."""
        step, count = self._message_count
        self._message_count = (self.step, count + 1 if step == self.step else 0)
        return _message_id(self.run_id, self._epoch, *self._message_count)

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Make durable that these calls, requested by an earlier step, may start now."""
        self._check_sealed()
        if intents:
            await self._writer.intend(intents)

    async def commit(self, step: Step) -> None:
        """Make ``step`` durable, then announce it. Raises ``HandOver`` or ``RunPaused`` to stop the agent here."""
        self._check_sealed()
        await self._execution.commit(step)

    async def amend(self, update: dict[str, Any]) -> None:
        """Make hidden values durable with the newest checkpoint, without a step."""
        self._check_sealed()
        await self._execution.amend(update)

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the process drains; at once if it already does."""
        self._execution.on_drain(callback)

    def hand_over(self) -> NoReturn:
        """Leave the run to another process, which resumes it from the last commit."""
        raise HandOver


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
