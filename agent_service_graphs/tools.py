"""Tools of the agents file for graphs: LangChain tools whose calls the engine makes.

A graph names them with ``agent_tools``; the rest is for the worker.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.tools import BaseTool, ToolException
from langgraph.runtime import get_runtime
from langgraph.types import interrupt

from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.wire import Connection


class ToolCaller:
    """Makes the calls of the run ``run`` at the engine."""

    def __init__(self, connection: Connection, run: int) -> None:
        self.connection = connection
        self._run = run
        self._made: Counter[tuple[Any, ...]] = Counter()

    async def call(self, name: str, args: dict[str, Any], call_id: str) -> tuple[Any, Any]:
        """Return content and artifact of a call's result. Raises ``ToolException`` for an error of the tool.

        What a person must answer first is an interrupt of the node.
        """
        given = json_of(args)
        asked = {"op": "tool", "run": self._run, "name": name, "args": given, **self._identify(name, given, call_id)}
        answers: dict[str, bytes] = {}
        while True:
            found = await self.connection.request(**asked, answers=answers)
            if "questions" not in found:
                break
            for question in found["questions"]:
                answers[question["id"]] = json_of(interrupt(value_of(question["value"])))
        if found["status"] == "error":
            raise ToolException(found["content"])
        return found["content"], found["artifact"]

    def _identify(self, name: str, given: bytes, call_id: str) -> dict[str, Any]:
        """Return what identifies a call in every attempt: its task and, there, its arguments."""
        task = get_runtime().execution_info
        if task is None:
            raise RuntimeError(f"The tool {name!r} can be called in a node of a graph only.")
        made = (task.task_id, task.node_attempt, name, given, call_id)
        number = self._made[made]
        self._made[made] += 1
        key = f"{task.checkpoint_ns} {task.task_id} {number}"
        digest = hashlib.blake2b(f"{key} {name} ".encode() + given, digest_size=16).hexdigest()
        return {"key": key, "call_id": call_id or f"call_{digest}", "attempt": task.node_attempt}


class _Tools:
    """The tools of a graph, and who makes their calls: None outside of runs."""

    def __init__(self, specs: Sequence[dict[str, Any]], caller: ToolCaller | None) -> None:
        self.specs = specs
        self.caller = caller


_current: ContextVar[_Tools | None] = ContextVar("agent_tools", default=None)
_call_id: ContextVar[str] = ContextVar("tool_call_id", default="")


@contextmanager
def offering(specs: Sequence[dict[str, Any]], caller: ToolCaller | None = None) -> Iterator[None]:
    """Make ``agent_tools`` return the tools that ``specs`` describe in this block, unless it is inside of a run."""
    token = _current.set(_Tools(specs, caller) if caller or _current.get() is None else _current.get())
    try:
        yield
    finally:
        _current.reset(token)


class AgentTool(BaseTool):
    """A tool of the agents file."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: bool | str | Callable[[ToolException], str] | None = True

    async def arun(self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **options: Any) -> Any:
        """Make a call, which has the id that the model gave it."""
        with _called(tool_call_id):
            return await super().arun(tool_input, *args, tool_call_id=tool_call_id, **options)

    def run(self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **options: Any) -> Any:
        """Make a call from a sync node."""
        with _called(tool_call_id):
            return super().run(tool_input, *args, tool_call_id=tool_call_id, **options)

    async def _arun(self, /, **args: Any) -> tuple[Any, Any]:  # any name may be one of the tool's arguments
        return await _caller(self.name).call(self.name, args, _call_id.get())

    def _run(self, /, **args: Any) -> tuple[Any, Any]:
        found: tuple[Any, Any] = _caller(self.name).connection.wait_for(self._arun(**args))
        return found


def agent_tools() -> list[AgentTool]:
    """Return the tools that the agents file gives to this graph, for ``create_agent``, ``ToolNode`` or a node.

    A module sees them as they are when it is loaded, a graph's factory and a node as they are now. A call goes through
    the engine: class, approval, timeout, trace and questions are those of the tools of all agents.
    """
    current = _current.get()
    if current is None:
        raise RuntimeError("agent_tools() is for the module, the factory and the nodes of a graph that a server runs.")
    return [
        AgentTool(name=spec["name"], description=spec["description"] or spec["name"], args_schema=spec["parameters"])
        for spec in current.specs
    ]


@contextmanager
def _called(tool_call_id: str | None) -> Iterator[None]:
    token = _call_id.set(tool_call_id or "")
    try:
        yield
    finally:
        _call_id.reset(token)


def _caller(name: str) -> ToolCaller:
    current = _current.get()
    if current is None or current.caller is None:
        raise RuntimeError(f"The tool {name!r} can be called in a run only.")
    return current.caller
