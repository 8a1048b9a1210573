"""One execution of a function: its positions, journal, pending changes and open questions."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app.agents.functions.branches import Branch, current, running_task
from app.agents.functions.conversion import to_json
from app.agents.functions.messages import FunctionMessages
from app.agents.functions.step_journal import JOURNAL, RecordedFailure, StepJournal, StepRecord
from app.agents.functions.values import ThreadValues
from app.agents.port import Interrupt, RunContext, RunOutcome, Step, ToolIntent
from app.agents.tool_loop.agent import RunLimits
from app.agents.tool_loop.calls import CustomEventEmitter
from app.agents.tools.port import NeedsAnswer
from app.base.errors import AgentError, JournalFull, PathChanged, StepLimit, TokenLimit
from app.domain.messages import Usage

IDLE_ITERATIONS = 10
"""Iterations of the event loop after which a branch that starts nothing is assumed to wait for another branch."""


class StepPosition(NamedTuple):
    """The position of an operation, and its ``recorded`` entry if it was completed before."""

    at: str
    kind: str
    name: str
    of: str
    recorded: StepRecord | None

    def entry(self, result: bytes = b"null", failure: RecordedFailure | None = None, update: Any = None) -> StepRecord:
        """Build the journal entry of the operation."""
        return StepRecord(
            at=self.at,
            kind=self.kind,
            name=self.name,
            of=self.of,
            result=msgspec.Raw(result),
            failure=failure,
            update=update or {},
        )


class ModelUsage(NamedTuple):
    """The tokens that ``model`` (vendor:model) used for an answer."""

    usage: Usage | None = None
    model: str = ""


class FunctionSession:
    """State shared by the parts of a function's context. ``node`` is the node name of its steps."""

    def __init__(
        self, run: RunContext, journal: StepJournal, node: str, limits: RunLimits, emitter: CustomEventEmitter
    ) -> None:
        self.run = run
        self.journal = journal
        self.node = node
        self.values = ThreadValues(run.state, journal)
        self.conversation = FunctionMessages(run, journal)
        self.open_interrupts: list[Interrupt] = []
        self._limits = limits
        self._emitter = emitter
        self.root = Branch("", running_task())
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._steps = self._tokens = 0
        self._closed = False
        self._failure: Exception | None = None
        self._used_answers: set[str] = set()

    def branch(self) -> Branch:
        """Return the branch of the running code; create one for a new task."""
        parent = current.get() or self.root
        task = running_task()
        if task is None or parent.task is task:
            return parent
        branch = parent.child(task)
        self._tasks.add(task)
        if self.root.task is not None:
            task.set_name(self.root.task.get_name())  # the name carries the id of the run
        current.set(branch)
        return branch

    def enter(self) -> tuple[Branch, str]:
        """Return the branch and its next position. Raises ``NeedsAnswer`` if it is blocked, or the run's failure."""
        self._check_open()
        branch = self.branch()
        if branch.question is not None:
            raise NeedsAnswer(branch.question.value)
        return branch, branch.next_position()

    def locate(self, at: str, kind: str, name: str, of: str = "") -> StepPosition:
        """Look up the position ``at``. Raises ``PathChanged`` if a different operation is recorded there."""
        try:
            return StepPosition(at, kind, name, of, self.journal.take(at, kind, name, of))
        except PathChanged as error:
            self._fail(error)
            raise

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Mark work in progress, so that an open question in another branch does not end the run."""
        self._busy += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def count_step(self, *, asks: bool = False) -> None:
        """Count a step. Raises ``StepLimit``, and ``TokenLimit`` if the step ``asks`` a model."""
        if self._steps >= self.run.config.recursion_limit:
            raise StepLimit(f"The run took {self._steps} steps, its recursion_limit; send a higher one in its config.")
        if self._steps >= self._limits.steps:
            raise StepLimit(f"The run took {self._steps} steps, the limit of its agent; raise its limits.steps.")
        if asks and self._tokens >= self._limits.tokens:
            raise TokenLimit(
                f"The run used {self._tokens} tokens, its agent may use {self._limits.tokens}: raise its limits.tokens."
            )
        self._steps += 1

    async def commit(
        self,
        entries: Sequence[StepRecord],
        *,
        node: str = "",
        spent: ModelUsage = ModelUsage(),
        update: Any = None,
        hidden: Mapping[str, Any] = {},
    ) -> None:
        """Make ``entries`` durable, together with ``update`` and the function's pending values and messages.

        ``hidden``: changes of values that are not the function's.

        Raises ``JournalFull``, and any error that ends the run at this step boundary.
        """
        self.values.apply(update or {})
        self._tokens += spent.usage.total_tokens if spent.usage is not None else 0
        node = node or self.node
        async with self._lock:
            self._check_open()
            try:
                new = self.conversation.uncommitted()
                update = self._update(entries)
            except JournalFull as error:
                self._fail(error)
                raise
            update |= hidden
            step = Step(
                node=node,
                update=update,
                next=(self.node,),
                usage=spent.usage,
                model=spent.model,
                added=self.conversation.unstreamed(new),
            )
            await self._write(self.run.commit(step))

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Record durably that these calls may start."""
        async with self._lock:
            self._check_open()
            await self._write(self.run.intend(intents))

    async def amend(self, update: dict[str, Any]) -> None:
        """Make hidden values durable without a step."""
        async with self._lock:
            self._check_open()
            await self._write(self.run.amend(update))

    def ask(self, interrupts: Sequence[Interrupt], branch: Branch) -> NeedsAnswer:
        """Add questions to a person; return the exception that stops ``branch``."""
        self.open_interrupts += interrupts
        question = NeedsAnswer(interrupts[0].value)
        branch.block_on(question)
        return question

    def answer(self, id_: str) -> Any:
        """Return and consume a person's answer to the question ``id_``. Raises ``KeyError`` if there is none."""
        value = self.run.answers[id_]
        self._used_answers.add(id_)
        return value

    def emit(self, value: Any) -> None:
        """Send ``value``, unless it was sent before the function restarted. Raises ``TypeError``."""
        raw = msgspec.Raw(to_json(value))
        if not self.journal.is_replaying(self.branch().path):
            self._emitter.emit(raw)

    async def wait_until_idle(self) -> None:
        """Wait until every active branch has ended or is blocked on a question."""
        while self._failure is None:
            if self._busy:
                await self._idle.wait()
            for _ in range(IDLE_ITERATIONS):
                await asyncio.sleep(0)
                if self._busy:
                    break
            else:
                return

    async def close(self) -> None:
        """Cancel tasks that still run."""
        self._closed = True
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # retrieved, so that asyncio logs no warning for a task that was never awaited

    def check(self) -> None:
        """Raise the run's failure, even if the function has caught it."""
        if self._failure is not None:
            raise self._failure

    def finished(self, update: dict[str, Any]) -> RunOutcome:
        """Return the outcome of a finished function: its remaining changes, and the removal of the journal."""
        self.values.apply(update)
        changes, _ = self.values.take_changes()
        added = self.conversation.uncommitted()
        update = {**changes, **self.conversation.update(added), JOURNAL: None}
        return RunOutcome(step=Step(node=self.node, update=update, added=self.conversation.unstreamed(added)))

    def interrupted(self) -> RunOutcome:
        """Return the outcome of an interrupted run: open questions, and the state that the resuming run needs."""
        update = self._update([])
        step = Step(node=self.node, update=update, next=(self.node,)) if update else None
        unused = {id_: answer for id_, answer in self.run.answers.items() if id_ not in self._used_answers}
        return RunOutcome(step=step, interrupts=tuple(self.open_interrupts), answered=unused)

    def _update(self, entries: Sequence[StepRecord]) -> dict[str, Any]:
        changes, before = self.values.take_changes()
        added = self.conversation.uncommitted()
        if not entries:
            if not (changes or added or self.journal.has_pending):
                return {}
            entries = [StepRecord(at="", kind="pause")]
        first = msgspec.structs.replace(entries[0], before=before, said=[message.id or "" for message in added])
        return {**changes, **self.conversation.update(added), **self.journal.add(first, *entries[1:])}

    async def _write(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._fail(error)
            raise

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._idle.set()

    def _check_open(self) -> None:
        self.check()
        if self._closed:
            raise AgentError("The run of this function has ended: await every task that it starts.")
