"""Tools of the agents file for a graph: its calls, which the engine makes as it does for other agents."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from app.agents.langgraph.wire import ToolRequest
from app.agents.port import Interrupt, RunContext, ToolIntent
from app.agents.tool_loop.call_questions import KEPT, Amend, idempotency_key
from app.agents.tool_loop.calls import CallResults, Toolbox
from app.agents.tool_loop.conversation import PendingCalls
from app.agents.tools.port import ToolClass
from app.base.containment import contain
from app.base.tasks import Tasks
from app.domain.messages import ToolCall, ToolMessage
from app.domain.state import State

RESULT = f"{KEPT}result:"
"""Beginning of the names of hidden values that hold results until the superstep of their calls is committed."""

_encode = msgspec.json.Encoder().encode


class GraphToolCalls:
    """The calls of one run of a graph. ``amend`` and ``intend`` write in turn with the run's other writes.

    A call is identified by its task and its arguments. A node that starts again, after a crash or a question, finds the
    results of calls which it has made already; one that LangGraph retries calls again what has failed.
    """

    def __init__(self, toolbox: Toolbox, context: RunContext, amend: Amend, intend: Callable[..., Any]) -> None:
        self._toolbox = toolbox
        self._context = context
        self._amend = amend
        self._intend = intend
        self._asked: list[Interrupt] = []
        self._tasks = Tasks("graph-tools")

    def specs(self) -> list[dict[str, Any]]:
        """Return the tools as a graph's worker makes tools of them."""
        return specs_of(self._toolbox)

    def start(self, request: ToolRequest, answer: Callable[..., None], on_failure: Callable[[Exception], None]) -> None:
        """Make a call in the background and ``answer`` it; ``on_failure`` gets what ends the run."""
        task = asyncio.current_task()
        work = self._make(request, answer, on_failure)
        self._tasks.start(contain(work), name="call").set_name("" if task is None else task.get_name())

    async def aclose(self) -> None:
        """Cancel the calls that are being made."""
        await self._tasks.aclose()

    def question(self, id_: str, value: Any) -> Interrupt | None:
        """Return the question with this ``value`` that a call has asked, under the graph's own id for it."""
        found = next((one for one in self._asked if one.value == value), None)
        return None if found is None else msgspec.structs.replace(found, id=id_)

    async def _make(
        self, request: ToolRequest, answer: Callable[..., None], on_failure: Callable[[Exception], None]
    ) -> None:
        try:
            answer(id=request.id, value=await self._result(request), error="")
        except Exception as error:  # noqa: BLE001  the edge to the run, which ends with it
            on_failure(error)

    async def _result(self, request: ToolRequest) -> dict[str, Any]:
        """Return the call's result, or the questions that it asks."""
        call = ToolCall(name=request.name, args=msgspec.json.decode(request.args), id=request.call_id)
        pending = PendingCalls(request.key, [call])
        kept_as = f"{RESULT}{idempotency_key(self._context, request.key, call)}"
        known = self._context.state.get(kept_as)
        if known is not None and (known["status"] == "success" or request.attempt <= known["attempt"]):
            return cast("dict[str, Any]", known)
        context = cast("RunContext", _Answered(self._context, request.answers))
        repeatable = self._toolbox.tool_class(call.name) is ToolClass.READ_ONLY
        if not repeatable and self._toolbox.may_start(call, request.key, context):
            await self._intend((self._intent(request, call),))
        results = await self._toolbox.run(pending, context, amend=self._amend)
        if results.interrupts:
            self._asked += results.interrupts
            return {"questions": [{"id": one.id, "value": _encode(one.value)} for one in results.interrupts]}
        found = _found(results)
        hidden: dict[str, Any] = dict(results.forget)
        if not repeatable:
            hidden[kept_as] = {**found, "attempt": request.attempt}
        if hidden:
            await self._amend(hidden)
        return found

    def _intent(self, request: ToolRequest, call: ToolCall) -> ToolIntent:
        return ToolIntent(
            call_id=call.id,
            tool=call.name,
            tool_class=self._toolbox.tool_class(call.name),
            key=idempotency_key(self._context, request.key, call),
            args=request.args,
        )


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


class _Answered:
    """The context of a run, for a call that has these ``answers``."""

    def __init__(self, context: RunContext, answers: Mapping[str, Any]) -> None:
        self._context = context
        self.answers = {id_: msgspec.json.decode(answer) for id_, answer in answers.items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
