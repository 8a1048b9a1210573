"""Tool calls: checked, run side by side, and always answered; what goes wrong is told to the model."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid5

import jsonschema_rs
import msgspec

from app.agents.port import RunContext
from app.base.ids import new_id
from app.base.tasks import together
from app.domain.events import Custom
from app.domain.messages import InvalidToolCall, ToolCall, ToolMessage
from app.tools.port import Tool, ToolClass, ToolContext, ToolResult

LONGEST_ERROR = 2000
LONGEST_RESULT = 256 * 1024


class CheckedTool:
    """A tool with its schema compiled."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self._validator = jsonschema_rs.validator_for(tool.spec.parameters)

    def problems(self, args: dict[str, Any]) -> str:
        """What is wrong with ``args``, in sentences; empty when nothing is."""
        found = []
        for error in self._validator.iter_errors(args):
            place = "/" + "/".join(str(part) for part in error.instance_path)
            found.append(f"{place}: {error.message}")
        return "; ".join(found[:10])


class Toolbox:
    """The tools of one agent, and how calls to them end. ``count`` is told (tool, outcome) of every call."""

    def __init__(self, tools: Sequence[Tool], count: Callable[[str, str], None]) -> None:
        self._tools = {tool.spec.name: CheckedTool(tool) for tool in tools}
        self._count = count
        self.specs = [tool.spec for tool in tools]

    def tool_class(self, name: str) -> ToolClass:
        """The class of the tool ``name``; a call of an unknown one does nothing, so it is safe to repeat."""
        found = self._tools.get(name)
        return ToolClass.READ_ONLY if found is None else found.tool.tool_class

    async def run(
        self, calls: list[ToolCall | InvalidToolCall], context: RunContext
    ) -> tuple[list[ToolMessage], dict[str, Any]]:
        """The answers in the order of ``calls``, and what they change in the thread's values.

        Calls run at the same time, but for transactional ones: those go one after the other, each seeing what the
        one before it changed.
        """
        update: dict[str, Any] = {}
        answers: dict[str, ToolMessage] = {}

        async def answer(call: ToolCall | InvalidToolCall) -> None:
            result = await self._answer(call, context, update)
            update.update(result.update)
            answers[call.id] = _message(call, result)

        async def answer_in_turn(calls: list[ToolCall | InvalidToolCall]) -> None:
            for call in calls:
                await answer(call)

        in_turn = [c for c in calls if self.tool_class(c.name) is ToolClass.TRANSACTIONAL]
        await together(answer_in_turn(in_turn), *(answer(c) for c in calls if c not in in_turn))
        return [answers[call.id] for call in calls], update

    async def _answer(
        self, call: ToolCall | InvalidToolCall, context: RunContext, update: dict[str, Any]
    ) -> ToolResult:
        found = self._tools.get(call.name)
        if found is None:
            names = ", ".join(self._tools) or "none"
            return self._failed("unknown", "unknown", f"There is no tool {call.name!r}. The tools are: {names}.")
        if isinstance(call, InvalidToolCall):
            return self._failed(call.name, "invalid", f"The call was not run: {call.error}.")
        if words := found.problems(call.args):
            return self._failed(call.name, "invalid", f"The call was not run, its arguments are wrong: {words}.")
        tool = found.tool
        limit = asyncio.timeout(tool.timeout)
        try:
            async with limit:
                result = await tool.call(call.args, _context(call, context, update))
        except Exception as error:  # noqa: BLE001  the edge: whatever a tool raises is told to the model
            if isinstance(error, TimeoutError) and limit.expired():
                return self._failed(call.name, "timeout", f"The tool took longer than {tool.timeout:g} s.")
            return self._failed(call.name, "error", f"{type(error).__name__}: {error}")
        self._count(call.name, result.status)
        return result

    def _failed(self, name: str, outcome: str, words: str) -> ToolResult:
        self._count(name, outcome)
        return ToolResult(content=words[:LONGEST_ERROR], status="error")


def _context(call: ToolCall, context: RunContext, update: dict[str, Any]) -> ToolContext:
    return ToolContext(
        tenant_id=str(context.tenant_id),
        thread_id=str(context.thread_id),
        run_id=str(context.run_id),
        call_id=call.id,
        idempotency_key=key_of(context, call),
        emit=lambda data: context.emit(Custom(data=msgspec.Raw(msgspec.json.encode(data)))),
        value=lambda name: update[name] if name in update else context.state.get(name),
        configurable=context.config.configurable,
    )


def key_of(context: RunContext, call: ToolCall | InvalidToolCall) -> str:
    """The idempotency key of a call: the same for every attempt of it."""
    return str(uuid5(context.run_id, call.id))


def _message(call: ToolCall | InvalidToolCall, result: ToolResult) -> ToolMessage:
    content = result.content
    if isinstance(content, str) and len(content) > LONGEST_RESULT:
        content = f"{content[:LONGEST_RESULT]}\n[cut: the result had {len(content)} characters]"
    return ToolMessage(
        content=content,
        name=call.name,
        id=str(new_id()),
        tool_call_id=call.id,
        artifact=result.artifact,
        status=result.status,
    )
