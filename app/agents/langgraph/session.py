"""One run of a graph: commit its steps and publish its output, from the worker's reports in order."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from app.agents.langgraph.bill import ModelBill
from app.agents.langgraph.quarantine import RunAttempts
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.tools import GraphToolCalls, results_in
from app.agents.langgraph.wire import (
    AskedQuestion,
    ChangeReport,
    Changes,
    EndReport,
    MarkReport,
    ModelReport,
    OutputReport,
    RunReport,
    StepReport,
    StoreRequest,
    ThreadsRequest,
    ToolExecuted,
    ToolRequest,
)
from app.agents.langgraph.worker import GraphWorker, WorkerEnded, WorkerRun
from app.agents.port import START_NODE, UNLIMITED, Interrupt, QuestionKind, RunContext, RunOutcome, Step, ToolIntent
from app.agents.tool_loop.call_questions import KEPT
from app.agents.tool_loop.calls import Toolbox
from app.base.errors import AgentError
from app.domain.events import UNCHANGED, Custom, MessageAdded, MessageDelta, Retracted, SubgraphOutput
from app.domain.messages import Usage
from app.domain.state import ListChannel, Splice, State

INPUT = "__graph:input"
"""The hidden value that holds an input which the graph has not read yet."""
COMMAND = "__graph:update"
"""The same for the update of a command."""

HELD_SECONDS = 0.05
"""How long a last step waits for the end of its run, to be committed with it."""

_TAKEN = {INPUT: None, COMMAND: None}
"""The graph's first checkpoint in a run has read both."""


def update_of(changes: Changes) -> dict[str, Any]:
    """Return the update of the state that the worker's ``changes`` describe."""
    update: dict[str, Any] = dict(_TAKEN)
    for name, change in changes.items():
        if change is None:
            update[name] = msgspec.UNSET
        elif change[0] == "v":
            update[name] = msgspec.Raw(change[1])
        else:
            update[name] = Splice(change[1], tuple(map(msgspec.Raw, change[2])))
    return update


def values_of(state: State) -> dict[str, Any]:
    """Return the values of ``state`` for the worker: JSON, or a list of JSON."""
    return {
        name: channel.elements if isinstance(channel, ListChannel) else channel.value
        for name, channel in state.channels.items()
        if not name.startswith(KEPT)
    }


class GraphSession:
    """A run of the graph ``name`` in the context of its run."""

    def __init__(self, name: str, context: RunContext, store: GraphStore, toolbox: Toolbox) -> None:
        self._name = name
        self._context = context
        self._store = store
        self._writing = asyncio.Lock()
        self._calls = GraphToolCalls(toolbox, context, self._amend, self._intend)
        self._held: StepReport | ChangeReport | None = None
        self._streamed: dict[str, int] = {}
        self._bill = ModelBill()
        self._used: tuple[str, Usage | None] = "", None
        self._on_commit: Callable[[], None] = lambda: None

    async def run(self, worker: GraphWorker, attempts: RunAttempts) -> RunOutcome:
        """Run the graph to its end. Raises ``WorkerEnded``, the graph's own error, and what a commit raises."""
        context = self._context
        values = {name: value for name, value in values_of(context.state).items() if name not in _TAKEN}
        run = await worker.open(attempts, (context.tenant_id, context.thread_id), values, **self._request())
        self._on_commit = lambda: worker.progressed(run)
        context.on_drain(lambda: run.send("drain"))
        try:
            while (report := await self._next(run)) is not None:
                if isinstance(report, EndReport):
                    if report.kept:
                        worker.keep(run, report.kept)
                    return await self._end(report)
                await self._take(run, report)
        finally:
            self._bill.close()
            await self._calls.aclose()
            worker.close(run)
        self._calls.worker_ended()
        raise WorkerEnded

    def retract(self) -> None:
        """Withdraw the chunks of messages streamed since the last commit: the run begins again from there."""
        if self._streamed:
            self._context.emit(Retracted(message_ids=list(self._streamed), step=self._context.step))
            self._streamed.clear()
        self._held = None

    def _request(self) -> dict[str, Any]:
        context, asked = self._context, self._context.instructions
        state = context.state
        return {
            "graph_id": self._name,
            "thread_id": str(context.thread_id),
            "run_id": str(context.run_id),
            "assistant_id": str(context.assistant_id),
            "input": _json(state, INPUT),
            "update": _json(state, COMMAND),
            "goto": asked.goto,
            "answers": context.answers,
            "fork": asked.fork,
            "configurable": context.config.configurable,
            "context": context.context,
            "metadata": {**msgspec.json.decode(asked.run_metadata), **asked.metadata},
            "tags": context.config.tags,
            "recursion_limit": 0 if context.config.recursion_limit == UNLIMITED else context.config.recursion_limit,
            "modes": _modes(asked.stream_modes),
            "subgraphs": asked.subgraphs,
            "durability": asked.durability,
            "before": asked.interrupt_before,
            "after": asked.interrupt_after,
            "tools": self._calls.specs(),
        }

    async def _next(self, run: WorkerRun) -> RunReport | None:
        """Return the next report; one that is held is committed first if none comes soon."""
        try:
            async with asyncio.timeout(None if self._held is None else HELD_SECONDS):
                found = await run.reports.get()
        except TimeoutError:
            await self._commit_held()
            found = await run.reports.get()
        if isinstance(found, Exception):  # not above: it may be a TimeoutError of a call
            raise found
        return found

    async def _take(self, run: WorkerRun, report: RunReport) -> None:
        match report:
            case OutputReport():
                await self._commit_held()
                self._publish(report)
            case ModelReport():
                self._bill.take(report)
            case MarkReport(wait=number):
                run.send("ack", number=number)
            case StoreRequest(id=number, ops=ops):
                value, error = await self._store.answer(self._context, ops)
                run.send("answer", id=number, value=value, error=error)
            case ThreadsRequest(id=number, what=op):
                await self._commit_held()  # it may read what the run has written
                value, error = await self._store.answer_threads(self._context, op)
                run.send("answer", id=number, value=value, error=error)
            case ToolRequest():
                await self._commit_held()  # the call belongs to the superstep after it
                self._calls.start(report, partial(run.send, "answer"), run.reports.put_nowait)
            case ToolExecuted():
                self._calls.executed(report)
            case StepReport() | ChangeReport():
                run.values.apply(report.changes)
                await self._commit_held()
                self._held = report
                if isinstance(report, StepReport):
                    self._used = self._bill.step(report.usage)
                if report.wait or (isinstance(report, StepReport) and report.next):
                    await self._commit_held()
                if report.wait:
                    run.send("ack", number=report.wait)

    async def _commit_held(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        if isinstance(held, ChangeReport):
            await self._amend(update_of(held.changes))
        else:
            async with self._writing:
                await self._context.commit(self._step(held))
            self._streamed.clear()
        self._on_commit()

    async def _amend(self, update: dict[str, Any]) -> None:
        async with self._writing:
            await self._context.amend(update)

    async def _intend(self, intents: tuple[ToolIntent, ...]) -> None:
        async with self._writing:
            await self._context.intend(intents)

    def _step(self, report: StepReport) -> Step:
        model, usage = self._used
        return Step(
            usage=usage,
            model=model,
            node=", ".join(dict.fromkeys(report.nodes)) or START_NODE,
            update={**update_of(report.changes), **results_in(self._context.state)},
            next=tuple(dict.fromkeys(report.next)),
            outputs=tuple(map(msgspec.Raw, report.updates)),
            interruptible=False,
        )

    def _publish(self, output: OutputReport) -> None:
        emit = self._context.emit
        match output.kind:
            case "delta":
                self._streamed.setdefault(output.id, output.step)
                emit(
                    MessageDelta(
                        message_id=output.id,
                        node=output.node,
                        step=output.step,
                        text=output.text,
                        reasoning=output.reasoning,
                        tool_call=output.call,
                        last=output.last,
                        namespace="|".join(output.namespace),
                        fields=_raw(output.fields),
                        metadata=_raw(output.metadata),
                    )
                )
            case "message":
                namespace = "|".join(output.namespace)
                message, metadata = msgspec.Raw(output.data), _raw(output.metadata)
                emit(MessageAdded(output.node, output.step, message, namespace, metadata))
            case "custom":
                emit(Custom(msgspec.Raw(output.data)))
            case _:
                emit(SubgraphOutput(output.mode, "|".join(output.namespace), msgspec.Raw(output.data)))

    async def _end(self, report: EndReport) -> RunOutcome:
        held, self._held = self._held, None
        step = self._step(held) if isinstance(held, StepReport) else None
        if report.status not in {"done", "interrupted", "paused"}:
            self._held = held
            await self._commit_held()
            if report.status == "drained":
                self._context.hand_over()
            raise graph_error(report)
        await self._calls.settle()
        return RunOutcome(
            step=step,
            usage=self._bill.step()[1],
            amendment=update_of(held.changes) if isinstance(held, ChangeReport) else {},
            interrupts=tuple(map(self._question, report.interrupts)),
            answered=self._calls.answered if report.interrupts else {},
            paused=report.status == "paused",
        )

    def _question(self, asked: AskedQuestion) -> Interrupt:
        """Return a question of the graph: one about a call of a tool is the engine's own."""
        own = self._calls.questions.get(asked.id)
        if own is not None:
            return own
        value = msgspec.json.decode(asked.value)
        return Interrupt(asked.id, value, _kind(value), expects=asked.schema)


def _raw(json: bytes) -> msgspec.Raw:
    return msgspec.Raw(json) if json else UNCHANGED


def _json(state: State, name: str) -> bytes | None:
    channel = state.channels.get(name)
    return None if channel is None else channel.json()


def _modes(modes: tuple[str, ...]) -> list[str]:
    """Return the stream modes of LangGraph that serve the run's ``modes``."""
    found = {"messages" if mode in {"messages-tuple", "events"} else mode for mode in modes}
    return sorted(found & {"values", "updates", "messages", "custom"})


def _kind(value: Any) -> QuestionKind:
    """Return the kind of a question: one in the human-in-the-loop form asks for approval of calls."""
    return "approval" if isinstance(value, Mapping) and "action_requests" in value else "question"


def graph_error(report: EndReport) -> AgentError:
    """Return the error of a graph as an error of ours with the name that the graph's code gave it."""
    name = report.error if report.error.isidentifier() else "GraphError"
    kind = type(name, (AgentError,), {"__doc__": "An error of a graph's code."})
    error: AgentError = kind(report.message or name)
    return error
