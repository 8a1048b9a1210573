"""Tools of a graph's own code that declare a class: the engine decides whether a call runs, and records it before.

A tool of LangChain declares its class in its metadata: ``metadata={"tool_class": "unsafe", "approval": True}``. Every
call of it in a run then goes through the engine, by ``ToolNode`` or by a node itself. What a call has returned is
stored with the checkpoint until its superstep has ended, so a node that runs again does not make the call again.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.messages import ToolMessage
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp

from agent_service_graphs.checkpoints import Document
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.tools import ToolCaller

CLASS, APPROVAL, LOOKUP = "tool_class", "approval", "lookup"
"""Keys of a tool's metadata. ``lookup``: a function of an idempotency key, which returns what the call has returned,
None if it was not made."""
RECONCILABLE = "reconcilable"
CLASSES = ("read_only", "idempotent", RECONCILABLE, "unsafe")
ABSENT = "absent"
KEY = "idempotency_key"
"""The entry of ``configurable`` with a key that is the same for every attempt of a call."""

current_calls: ContextVar[ClassedCalls | None] = ContextVar("classed_calls", default=None)
"""The calls of the run whose code is running."""


class Call(NamedTuple):
    """One call of ``tool``; ``model_call``: its id if a model asked for it.

    ``stored`` is the name of its stored result.
    """

    tool: BaseTool
    model_call: str
    stored: str
    asked: dict[str, Any]


class Decided(NamedTuple):
    """What the engine has decided about ``call``: it ``runs`` with ``given`` and ``config``, or has a ``result``."""

    call: Call
    runs: bool
    given: Any = None
    config: Any = None
    result: Any = None


class ClassedCalls:
    """Calls of one run. ``on_change`` reports that the result of a call has been added to ``document``."""

    def __init__(self, caller: ToolCaller, document: Document, on_change: Callable[[bool], Any]) -> None:
        self.caller = caller
        self._document = document
        self._on_change = on_change

    async def decide(self, tool: BaseTool, given: Any, config: Any) -> Decided:
        """Return the engine's decision about a call. Raises ``GraphInterrupt`` while a person is asked."""
        call = self._call(tool, given)
        known, result = self._document.call_result(call.stored)
        if known:
            return Decided(call, runs=False, result=result)
        answer = await self.caller.request(**call.asked)
        if "lookup" in answer:
            found, said = await _looked_up(tool, answer["lookup"])
            answer = {"content": found, "status": "success"}
            if found is None:
                answer = await self.caller.request(**call.asked, looked_up=said)
        if "run" not in answer:
            result = _result(call, answer)
            self._add(call, result)
            return Decided(call, runs=False, result=result)
        self.caller.enter()
        config = ensure_config(config)
        config = {**config, "configurable": {**(config.get("configurable") or {}), KEY: answer["run"]}}
        return Decided(call, runs=True, given=_edited(given, answer["args"]), config=config)

    async def end(self, call: Call, result: Any) -> None:
        """Take the result of a call that was run."""
        try:
            self._add(call, result)
        finally:
            self._end(call, "done")

    async def fail(self, call: Call, error: BaseException) -> None:
        """Take the error of a call that was run, or a question that the tool asks."""
        self._end(call, "asked" if isinstance(error, GraphBubbleUp) else "failed")

    def _end(self, call: Call, how: str) -> None:
        self.caller.leave()
        self.caller.report(key=call.asked["key"], call_id=call.asked["call_id"], how=how, stored=call.stored)

    def _add(self, call: Call, result: Any) -> None:
        self._document.add_call_result(call.stored, result, f"result of tool {call.tool.name}")
        self._on_change(False)

    def _call(self, tool: BaseTool, given: Any) -> Call:
        declared = tool.metadata or {}
        args = given["args"] if _is_tool_call(given) else given
        named = args if isinstance(args, dict) else {"input": args}
        own = {name: value for name, value in named.items() if name in tool.args or args is not named}
        call_id = str(given.get("id") or "") if _is_tool_call(given) else ""
        asked = self.caller.identify(tool.name, json_of(own), call_id)  # without what LangGraph injects
        about = {CLASS: declared.get(CLASS, ""), APPROVAL: bool(declared.get(APPROVAL))}
        stored = self._document.name_of_result(asked["key"], asked["call_id"], tool.name)
        return Call(tool, call_id, stored, {**asked, **about})


def _is_tool_call(given: Any) -> bool:
    return isinstance(given, dict) and given.get("type") == "tool_call"


def _edited(given: Any, args: bytes | None) -> Any:
    """Return the input of a call with the arguments that a person has put in place of its own, if any."""
    if args is None:
        return given
    edited = value_of(args)
    if _is_tool_call(given):
        return {**given, "args": {**given["args"], **edited}}
    return {**given, **edited} if isinstance(given, dict) else edited.get("input", given)


def _result(call: Call, answer: dict[str, Any]) -> Any:
    """Return the result that the engine gives in place of the tool's own."""
    content, status = answer["content"], answer["status"]
    if call.model_call:
        return ToolMessage(content=content, name=call.tool.name, tool_call_id=call.model_call, status=status)
    if status == "error":
        raise ToolException(content if isinstance(content, str) else json_of(content).decode())
    return content


async def _looked_up(tool: BaseTool, key: str) -> tuple[Any, str]:
    """Return what ``tool`` finds of the call with ``key``, and if that is nothing, ``absent`` or why it failed."""
    lookup = (tool.metadata or {})[LOOKUP]
    try:
        found = lookup(key) if inspect.iscoroutinefunction(lookup) else asyncio.to_thread(lookup, key)
        return await found, ABSENT
    except Exception as error:  # noqa: BLE001  the edge to the author's code: a person decides then
        return None, f"{type(error).__name__}: {error}"


def _calls_of(tool: BaseTool) -> ClassedCalls | None:
    """Return the calls among which one of ``tool`` is: None for a tool that may run without the engine's decision."""
    declared = tool.metadata or {}
    named = declared.get(CLASS)
    if named is None and not declared.get(APPROVAL):
        return None
    if named is not None and named not in CLASSES:
        raise ValueError(f"The tool {tool.name!r} has the class {named!r}: use one of {', '.join(CLASSES)}.")
    if named == RECONCILABLE and not callable(declared.get(LOOKUP)):
        raise ValueError(f"The tool {tool.name!r} is {RECONCILABLE}: give its metadata a function as {LOOKUP!r}.")
    return None if named == "read_only" and not declared.get(APPROVAL) else current_calls.get()


def route_tool_calls() -> None:
    """Let calls of tools that declare a class go through the engine.

    It is done where tools are called, so that it holds for ``ToolNode``, for agents and for nodes alike.
    """
    invoke, ainvoke = BaseTool.invoke, BaseTool.ainvoke

    @functools.wraps(invoke)
    def invoke_decided(self: BaseTool, input: Any, config: Any = None, **options: Any) -> Any:  # noqa: A002
        calls = _calls_of(self)
        if calls is None:
            return invoke(self, input, config, **options)
        wait_for = calls.caller.connection.wait_for
        decided: Decided = wait_for(calls.decide(self, input, config))
        if not decided.runs:
            return decided.result
        try:
            result = invoke(self, decided.given, decided.config, **options)
        except BaseException as error:
            wait_for(calls.fail(decided.call, error))
            raise
        wait_for(calls.end(decided.call, result))
        return result

    @functools.wraps(ainvoke)
    async def ainvoke_decided(self: BaseTool, input: Any, config: Any = None, **options: Any) -> Any:  # noqa: A002
        calls = _calls_of(self)
        if calls is None:
            return await ainvoke(self, input, config, **options)
        decided = await calls.decide(self, input, config)
        if not decided.runs:
            return decided.result
        try:
            result = await ainvoke(self, decided.given, decided.config, **options)
        except BaseException as error:
            await calls.fail(decided.call, error)
            raise
        await calls.end(decided.call, result)
        return result

    BaseTool.invoke = invoke_decided  # type: ignore[method-assign]
    BaseTool.ainvoke = ainvoke_decided  # type: ignore[method-assign]
