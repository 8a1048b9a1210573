"""Calls of tools in a graph: the same intents, approvals, questions and reviews as in every other agent.

Tools of the agents file are run here. A tool of the graph's own code is run by the worker, once this has decided that
it may (``agent_service_graphs.tool_classes``).
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec

from app.agents.langgraph.wire import ToolExecuted, ToolRequest
from app.agents.port import Interrupt, RunContext, ToolIntent, UnresolvedCall
from app.agents.tool_loop.approval import ApprovalPolicy
from app.agents.tool_loop.call_questions import KEPT, Amend, idempotency_key, intent_id, unresolved_call
from app.agents.tool_loop.calls import CallResults, Toolbox
from app.agents.tool_loop.conversation import PendingCalls
from app.agents.tools.port import NeedsAnswer, ToolClass, ToolContext, ToolResult
from app.base import json_scan
from app.base.containment import contain
from app.base.errors import BadRequest, Invalid, Unavailable
from app.base.tasks import Tasks
from app.domain.messages import ToolCall, ToolMessage
from app.domain.state import State
from app.providers.llm.port import ToolSpec

RESULT = f"{KEPT}result:"
"""Beginning of the names of hidden values that hold results until the superstep of their calls is committed."""

UNBOUNDED_SECONDS = 10.0**9
"""Timeout of a tool that the worker runs: its graph has its own."""

MAX_ARGS_BYTES = 1024 * 1024
"""Largest arguments of a call, as JSON: they are read on the event loop, and recorded before the call."""

SETTLE_SECONDS = 5.0
"""Time in which calls end whose tools have."""

ABSENT = "absent"
"""What the worker says of a call that its look-up has not found."""

Answer = dict[str, Any]
"""What the worker gets: ``lookup`` (the key by which to look the call up, then to ask again), ``run`` (the idempotency
key) with ``args`` that a person has edited (JSON, or None), or
``questions`` (id, value as JSON), or the ``content``, ``artifact`` and ``status`` of a result."""

_encode = msgspec.json.Encoder().encode


class WorkerTool:
    """A tool that the worker runs: a call lets it, and ends when the worker says so."""

    timeout = UNBOUNDED_SECONDS

    def __init__(self, request: ToolRequest, args: dict[str, Any], run: Callable[[Answer], None]) -> None:
        self.tool_class = ToolClass(request.tool_class or ToolClass.READ_ONLY)
        self.spec = ToolSpec(request.name, "", {"type": "object"})
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._args = args
        self._looked_up = request.looked_up
        self._run = run

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Let the worker run the tool; its result stays there. Raises ``NeedsAnswer`` if the tool asks a person."""
        self._run({"run": context.idempotency_key, "args": None if args == self._args else _encode(args)})
        how = await self.ended
        if how == "asked":
            raise NeedsAnswer(None)
        return ToolResult(content="", status="success" if how == "done" else "error")

    async def lookup(self, key: str) -> ToolResult | None:
        """Return None if the worker has found nothing. Raises ``LookupError`` with what it says otherwise."""
        if self._looked_up != ABSENT:
            raise LookupError(self._looked_up)
        return None


class GraphToolCalls:
    """The calls of one run of a graph. ``amend`` and ``intend`` write in turn with the run's other writes.

    A call is identified by its message or its place in the graph, and its arguments. A node that starts again, after a
    crash or a question, finds the results of calls which it has made already; one that LangGraph retries calls again
    what has failed. ``questions`` that calls ask, by their keys; ``answered``: answers that those have used which ask
    again.
    """

    def __init__(self, toolbox: Toolbox, context: RunContext, amend: Amend, intend: Callable[..., Any]) -> None:
        self.questions: dict[str, Interrupt] = {}
        self.answered: dict[str, Any] = {}
        self._toolbox = toolbox
        self._context = context
        self._amend = amend
        self._intend = intend
        self._running: dict[tuple[str, str], WorkerTool] = {}
        self._started: dict[tuple[str, str], UnresolvedCall] = {}
        self._stored: dict[tuple[str, str], str] = {}
        self._tasks = Tasks("graph-tools")

    def specs(self) -> list[dict[str, Any]]:
        """Return the tools as a graph's worker makes tools of them."""
        return specs_of(self._toolbox)

    def start(self, request: ToolRequest, answer: Callable[..., None], on_failure: Callable[[Exception], None]) -> None:
        """Make a call in the background and ``answer`` it; ``on_failure`` gets what ends the run."""
        task = asyncio.current_task()
        work = self._make(request, answer, on_failure)
        made = self._tasks.start(contain(work), name="call")
        made.set_name("" if task is None else task.get_name())

    async def settle(self) -> None:
        """Wait for calls that the worker has run, so that all they have used is known."""
        await self._tasks.wait(SETTLE_SECONDS)

    def executed(self, report: ToolExecuted) -> None:
        """Take note that the worker has run a call."""
        self._stored[report.key, report.call_id] = report.stored
        tool = self._running.pop((report.key, report.call_id), None)
        if tool is not None and not tool.ended.done():
            tool.ended.set_result(report.how)

    async def aclose(self) -> None:
        """Cancel the calls that are being made."""
        await self._tasks.aclose()

    def worker_ended(self) -> None:
        """Make calls unresolved whose outcome is not stored: the run begins again in another worker."""
        for of, attempt in self._started.items():
            if self._context.state.get(self._stored.get(of, "")) is None:
                self._context.unresolved_calls.setdefault(of[1], []).append(attempt)
        self._started.clear()

    async def _make(
        self, request: ToolRequest, answer: Callable[..., None], on_failure: Callable[[Exception], None]
    ) -> None:
        def reply(value: Answer | None, error: str = "") -> None:
            answer(id=request.id, value=value, error=error)

        try:
            found = await self._result(request, reply)
            if found is not None:
                reply(found)
        except (BadRequest, Invalid, Unavailable) as error:
            reply(None, str(error))
        except Exception as error:  # noqa: BLE001  the edge to the run, which ends with it
            on_failure(error)

    async def _result(self, request: ToolRequest, reply: Callable[[Answer], None]) -> Answer | None:
        """Return the call's result, or the questions that it asks; None if the worker has run it."""
        context, key = self._context, request.key
        if len(request.args) > MAX_ARGS_BYTES:
            raise Invalid(f"The arguments of a tool call have {len(request.args)} bytes, more than {MAX_ARGS_BYTES}.")
        json_scan.check(request.args, "The arguments of a tool call")
        call = ToolCall(name=request.name, args=msgspec.json.decode(request.args, type=dict), id=request.call_id)
        idempotency = idempotency_key(context, key, call)
        kept_as = f"{RESULT}{idempotency}"
        known = await self._known(kept_as)
        if known is not None and (known["status"] == "success" or request.attempt <= known["attempt"]):
            return known
        own = WorkerTool(request, call.args, reply) if request.tool_class or request.approval else None
        toolbox = self._toolbox
        if own is not None:
            toolbox = toolbox.of_one(own, ApprovalPolicy(tools=[own.spec.name] if request.approval else []))
        tool_class = toolbox.tool_class(call.name)
        if own is not None and tool_class is ToolClass.RECONCILABLE and not request.looked_up:
            unresolved = unresolved_call(context, key, call)
            if unresolved is not None:
                return {"lookup": unresolved.key}
        repeatable = tool_class is ToolClass.READ_ONLY
        if not repeatable and toolbox.may_start(call, key, context):
            intent = _intent(request, call, tool_class, idempotency)
            await self._intend((intent,))
            self._started[key, call.id] = UnresolvedCall(str(context.run_id), context.thread_id, intent.key)
            self._stored[key, call.id] = kept_as
        if own is not None:
            self._running[key, call.id] = own
        results = await toolbox.run(PendingCalls(key, [call]), context, amend=self._amend)
        self.answered.update(results.answered)
        if own is not None and own.ended.done():
            return None
        if results.interrupts:
            self.questions.update({one.id: one for one in results.interrupts})
            return {"questions": [{"id": one.id, "value": _encode(one.value)} for one in results.interrupts]}
        found = _found(results)
        hidden: dict[str, Any] = dict(results.forget)
        if not repeatable:
            hidden[kept_as] = {**found, "attempt": request.attempt, "by": str(context.run_id)}
        if hidden:
            await self._amend(hidden)
        return found

    async def _known(self, kept_as: str) -> dict[str, Any] | None:
        """Return the stored result of a call. A run that goes back forgets the results of the runs before it."""
        context = self._context
        known = cast("dict[str, Any] | None", context.state.get(kept_as))
        if known is not None and context.instructions.fork and known.get("by") != str(context.run_id):
            await self._amend({kept_as: None})
            return None
        return known


def _intent(request: ToolRequest, call: ToolCall, tool_class: ToolClass, key: str) -> ToolIntent:
    call_id = intent_id(request.key, call)
    return ToolIntent(call_id=call_id, tool=call.name, tool_class=tool_class, key=key, args=request.args)


def specs_of(toolbox: Toolbox) -> list[dict[str, Any]]:
    """Return the tools of ``toolbox`` as a graph's worker makes tools of them."""
    return [
        {"name": one.name, "description": one.description, "parameters": dict(one.parameters)} for one in toolbox.specs
    ]


def results_in(state: State) -> dict[str, None]:
    """Return the removal of the results that ``state`` holds."""
    return dict.fromkeys(name for name in state.channels if name.startswith(RESULT))


def _found(results: CallResults) -> dict[str, Any]:
    message: ToolMessage
    (message,) = results.messages
    return {"content": message.content, "artifact": message.artifact, "status": message.status}
