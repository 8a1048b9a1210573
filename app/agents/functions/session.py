"""One execution of a function: where it is, what it has done, what it changes, and which questions are open."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
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

QUIET_TURNS = 10
"""Turns of the event loop in which a branch has to begin something, or it is taken to wait for another one."""


class StepPosition(NamedTuple):
    """Where something is done, and the entry of it if it ``was`` done before."""

    at: str
    kind: str
    name: str
    of: str
    was: StepRecord | None

    def entry(self, result: bytes = b"null", failure: RecordedFailure | None = None, update: Any = None) -> StepRecord:
        """The entry of what is done now."""
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
    """The tokens that a model (vendor:model) has used for an answer."""

    usage: Usage | None = None
    model: str = ""


class FunctionSession:
    """What the parts of a function's context share. ``node`` is the node that its steps carry."""

    def __init__(
        self, run: RunContext, journal: StepJournal, node: str, limits: RunLimits, voice: CustomEventEmitter
    ) -> None:
        self.run = run
        self.journal = journal
        self.node = node
        self.values = ThreadValues(run.state, journal)
        self.conversation = FunctionMessages(run, journal)
        self.open: list[Interrupt] = []
        self._limits = limits
        self._voice = voice
        self.root = Branch("", running_task())
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy = 0
        self._rest = asyncio.Event()
        self._steps = self._tokens = 0
        self._closed = False
        self._broken: Exception | None = None
        self._used: set[str] = set()

    def branch(self) -> Branch:
        """The branch of the running code; a task that comes by for the first time gets one."""
        here = current.get() or self.root
        task = running_task()
        if task is None or here.task is task:
            return here
        branch = here.child(task)
        self._tasks.add(task)
        if self.root.task is not None:
            task.set_name(self.root.task.get_name())  # which tells the run that it belongs to
        current.set(branch)
        return branch

    def enter(self) -> tuple[Branch, str]:
        """This branch, and its next place. Raises ``NeedsAnswer`` where it cannot go on, or what ended the run."""
        self._check_open()
        branch = self.branch()
        if branch.asked is not None:
            raise NeedsAnswer(branch.asked.value)
        return branch, branch.next_place()

    def locate(self, at: str, kind: str, name: str, of: str = "") -> StepPosition:
        """What is at the place ``at``. Raises ``PathChanged`` when something else was done there."""
        try:
            return StepPosition(at, kind, name, of, self.journal.take(at, kind, name, of))
        except PathChanged as error:
            self._break(error)
            raise

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Marks that something is being done, so that the run does not end meanwhile because of a question."""
        self._busy += 1
        self._rest.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._rest.set()

    def count(self, *, asks: bool = False) -> None:
        """One more step begins. Raises ``StepLimit``, and ``TokenLimit`` for one that ``asks`` a model."""
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
        self, entries: Sequence[StepRecord], *, node: str = "", spent: ModelUsage = ModelUsage(), update: Any = None
    ) -> None:
        """Make ``entries`` durable, with what the function has set and said meanwhile; ``update`` is set too.

        Raises ``JournalFull``, and whatever ends the run at this boundary.
        """
        self.values.apply(update or {})
        self._tokens += spent.usage.total_tokens if spent.usage is not None else 0
        node = node or self.node
        async with self._lock:
            self._check_open()
            try:
                new = self.conversation.new()
                update = self._update(entries)
            except JournalFull as error:
                self._break(error)
                raise
            number = self.run.step
            step = Step(node=node, update=update, next=(self.node,), usage=spent.usage, model=spent.model)
            await self._write(self.run.commit(step))
            self.conversation.announce(new, node, number)

    async def intend(self, intents: tuple[ToolIntent, ...]) -> None:
        """Make durable that these calls may start."""
        async with self._lock:
            self._check_open()
            await self._write(self.run.intend(intents))

    def ask(self, interrupts: Sequence[Interrupt], branch: Branch) -> NeedsAnswer:
        """Note what a person is asked; the exception that stops ``branch``."""
        self.open += interrupts
        question = NeedsAnswer(interrupts[0].value)
        branch.wait_for(question)
        return question

    def answer(self, id_: str) -> Any:
        """A person's answer to the question ``id_``, which is used by that. Raises ``KeyError`` without one."""
        value = self.run.answers[id_]
        self._used.add(id_)
        return value

    def emit(self, value: Any) -> None:
        """Send ``value``, unless it was sent before the function began again. Raises ``TypeError``."""
        raw = msgspec.Raw(to_json(value))
        if not self.journal.expects(self.branch().path):
            self._voice.say(raw)

    async def rest(self) -> None:
        """Wait until the branches that do something have come to an end or to a question of their own."""
        while self._broken is None:
            if self._busy:
                await self._rest.wait()
            for _ in range(QUIET_TURNS):
                await asyncio.sleep(0)
                if self._busy:
                    break
            else:
                return

    async def close(self) -> None:
        """Stop what still runs."""
        self._closed = True
        left = [task for task in self._tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # looked at: what a forgotten task raised is not worth a warning

    def check(self) -> None:
        """Raises what ended the run, whatever the function made of it."""
        if self._broken is not None:
            raise self._broken

    def finished(self, update: dict[str, Any]) -> RunOutcome:
        """The end of the work: what is left to commit, and no journal any more."""
        self.values.apply(update)
        changes, _ = self.values.take_changes()
        said = self.conversation.new()
        self.conversation.announce(said, self.node, self.run.step)
        return RunOutcome(
            step=Step(node=self.node, update={**changes, **self.conversation.update(said), JOURNAL: None})
        )

    def interrupted(self) -> RunOutcome:
        """The end of this run: open questions, and what the run that goes on must find."""
        update = self._update([])
        step = Step(node=self.node, update=update, next=(self.node,)) if update else None
        left = {id_: answer for id_, answer in self.run.answers.items() if id_ not in self._used}
        return RunOutcome(step=step, interrupts=tuple(self.open), answered=left)

    def _update(self, entries: Sequence[StepRecord]) -> dict[str, Any]:
        changes, before = self.values.take_changes()
        said = self.conversation.new()
        if not entries:
            if not (changes or said or self.journal.waits):
                return {}
            entries = [StepRecord(at="", kind="pause")]
        first = msgspec.structs.replace(entries[0], before=before, said=[message.id or "" for message in said])
        return {**changes, **self.conversation.update(said), **self.journal.add(first, *entries[1:])}

    async def _write(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._break(error)
            raise

    def _break(self, error: Exception) -> None:
        self._broken = error
        self._rest.set()

    def _check_open(self) -> None:
        self.check()
        if self._closed:
            raise AgentError("The run of this function has ended: await everything that it starts.")
