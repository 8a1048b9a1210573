"""Tools of the agents file for graphs: LangChain tools whose calls the engine makes.

A graph names them with ``agent_tools``; the rest is for the worker.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphInterrupt
from langgraph.runtime import get_runtime
from langgraph.types import Interrupt

from agent_service_graphs.checkpoints import Document
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.wire import Connection

LOOKED_THROUGH = 50
"""Latest elements of a list of messages in which the message of a call is looked for."""


class ToolCaller:
    """Makes the calls of the run ``run`` at the engine. ``document``: the run's checkpoints, once they are loaded."""

    def __init__(self, connection: Connection, run: int) -> None:
        self.connection = connection
        self.document: Document | None = None
        self._run = run
        self._made: Counter[tuple[Any, ...]] = Counter()
        self._open = 0
        self._settled = asyncio.Event()
        self._settled.set()

    def enter(self) -> None:
        """Take note that a call has begun."""
        self._open += 1
        self._settled.clear()

    def leave(self) -> None:
        """Take note that a call has ended."""
        self._open -= 1
        if not self._open:
            self._settled.set()

    async def settle(self) -> None:
        """Wait for calls that are being made.

        A node that asks a person while other calls of it run is left by LangGraph without them; their results count.
        """
        await self._settled.wait()

    async def call(self, name: str, args: dict[str, Any], call_id: str) -> tuple[Any, Any]:
        """Return content and artifact of a call's result. Raises ``ToolException`` for an error of the tool.

        What a person must answer first is an interrupt of the node.
        """
        found = await self.request(**self.identify(name, json_of(args), call_id))
        if found["status"] == "error":
            raise ToolException(found["content"])
        return found["content"], found["artifact"]

    async def request(self, **call: Any) -> dict[str, Any]:
        """Return the engine's answer to a call. Raises ``GraphInterrupt`` with its questions.

        They have the ids that the engine gives them, by which it finds the answers when the node runs again: whichever
        of its calls comes first then.
        """
        self.enter()
        try:
            found: dict[str, Any] = await self.connection.request(op="tool", run=self._run, **call)
        finally:
            self.connection.loop.call_soon(self.leave)  # after a caller that runs the tool has begun to
        if "questions" in found:
            raise GraphInterrupt([Interrupt(value=value_of(one["value"]), id=one["id"]) for one in found["questions"]])
        return found

    def report(self, **executed: Any) -> None:
        """Report that a call has been run here."""
        self.connection.send(op="executed", run=self._run, **executed)

    def identify(self, name: str, given: bytes, call_id: str) -> dict[str, Any]:
        """Return the call ``name`` with the arguments ``given``, and what identifies it in every attempt.

        That is the message of the model that asks for it; else its place in the graph, and its arguments.
        """
        task = get_runtime().execution_info
        if task is None:
            raise RuntimeError(f"The tool {name!r} can be called in a node of a graph only.")
        key = self._message_of(call_id) if call_id else ""
        place, retries = self._place(task.checkpoint_ns)
        if not key:
            key = place
            digest = hashlib.blake2b(f"{name} {call_id} ".encode() + given, digest_size=16).hexdigest()
            number = self._made[task.checkpoint_ns, task.node_attempt, digest]
            self._made[task.checkpoint_ns, task.node_attempt, digest] += 1
            call_id = f"{call_id or 'call'}_{digest}_{number}"
        return {"name": name, "args": given, "key": key, "call_id": call_id, "attempt": task.node_attempt + retries}

    def _place(self, namespace: str) -> tuple[str, int]:
        """Return where in the graph a call is made, and how often its graph has been retried.

        The place is the same when its superstep runs again, also on another branch.
        """
        about = ensure_config().get("metadata") or {}
        document = self.document
        if document is None:
            return namespace, 0
        of_root: Any = {} if document.root is None else document.root.metadata
        step, branchings = about["langgraph_step"], document.branchings
        names, retries = document.invocations.place(namespace)
        steps = [of_root.get("step", 0) - branchings, step if "|" in namespace else step - branchings]
        path = [one for one in about.get("langgraph_path") or () if isinstance(one, (str, int))]
        return f"{steps[0]}/{names}/{steps[1]}/{path}", retries

    def _message_of(self, call_id: str) -> str:
        """Return the id of the newest message that asks for the call; empty if it is in no list of messages."""
        for record in () if self.document is None else self.document.records():
            for value in record.checkpoint["channel_values"].values():
                for message in reversed(value[-LOOKED_THROUGH:]) if isinstance(value, list) else ():
                    if isinstance(message, AIMessage) and any(one["id"] == call_id for one in message.tool_calls):
                        return str(message.id or "")
        return ""


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


def current_caller() -> ToolCaller | None:
    """Return who makes the calls of the run whose code is running; None outside of runs."""
    current = _current.get()
    return None if current is None else current.caller


def _caller(name: str) -> ToolCaller:
    caller = current_caller()
    if caller is None:
        raise RuntimeError(f"The tool {name!r} can be called in a run only.")
    return caller
