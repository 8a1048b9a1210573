"""A typed Python function becomes a tool: its schema from the annotations, its description from the docstring.

Async functions run on the event loop; sync ones in threads of their own pool, so that they never block it. A thread
cannot be stopped: a sync tool that runs into its timeout is left behind and goes on in its thread.
"""

import asyncio
import contextvars
import copy
import functools
import inspect
import re
import typing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import msgspec

from app.base.errors import StartError
from app.llm.port import ToolSpec
from app.tools.port import ToolClass, ToolContext, ToolResult

DEFAULT_SECONDS = 30.0
MOST_THREADS = 64
"""Sync tools that run at once in one process; more wait for a thread within their timeout."""

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__agent_tool__"
_ARGUMENT_LINE = re.compile(r"^\s*(?::param\s+)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s+(.+)$")

_threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="tool")


class Declared(msgspec.Struct, frozen=True):
    """What an author said of a tool."""

    name: str = ""
    timeout: float = DEFAULT_SECONDS
    tool_class: ToolClass = ToolClass.UNSAFE


def tool(
    *, name: str = "", timeout: float = DEFAULT_SECONDS, tool_class: ToolClass | str = ToolClass.UNSAFE
) -> Callable[[Function], Function]:
    """Declare a function as a tool: its ``name`` (the function's), ``timeout`` in seconds, and class.

    The class says what may happen to a call whose outcome a crash left unknown: ``read_only`` and ``idempotent``
    run again, ``unsafe`` (the default) asks a person.
    """
    declared = Declared(name, timeout, ToolClass(tool_class))

    def mark(function: Function) -> Function:
        setattr(function, _MARK, declared)
        return function

    return mark


class FunctionTool:
    """A function as a tool (``app.tools.port.Tool``)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        declared = getattr(function, _MARK, Declared())
        name = declared.name or function.__name__
        arguments, self._context_name = _arguments(function, name)
        (schema,), components = msgspec.json.schema_components([arguments], ref_template="#/components/schemas/{name}")
        self.spec = ToolSpec(
            name=name,
            description=_description(function),
            parameters=_resolved(schema, components),
        )
        self.tool_class = declared.tool_class
        self.timeout = declared.timeout
        self._function = function
        self._arguments = arguments
        self._is_async = inspect.iscoroutinefunction(function)

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run the function once. Raises what it raises."""
        decoded = msgspec.convert(args, self._arguments)
        given = {name: getattr(decoded, name) for name in self._arguments.__struct_fields__}
        if self._context_name:
            given[self._context_name] = context
        if self._is_async:
            return _result(await self._function(**given))
        call = functools.partial(contextvars.copy_context().run, self._function, **given)
        return _result(await asyncio.get_running_loop().run_in_executor(_threads, call))


def _result(value: Any) -> ToolResult:
    if isinstance(value, ToolResult):
        return value
    if isinstance(value, str):
        return ToolResult(content=value)
    return ToolResult(content=msgspec.json.encode(value).decode())


def _arguments(function: Callable[..., Any], name: str) -> tuple[type[msgspec.Struct], str]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise StartError(f"tool {name!r}: an annotation cannot be resolved: {error}") from error
    described = dict(_described(function))
    fields: list[Any] = []
    context_name = ""
    for parameter in inspect.signature(function).parameters.values():
        kind = hints.get(parameter.name, Any)
        if kind is ToolContext:
            context_name = parameter.name
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise StartError(f"tool {name!r}: parameter {parameter.name!r} must be an ordinary or keyword one")
        if text := described.get(parameter.name):
            kind = Annotated[kind, msgspec.Meta(description=text)]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
        else:
            fields.append((parameter.name, kind, _default(parameter.default)))
    try:
        struct = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.schema_components([struct])
    except TypeError as error:
        raise StartError(f"tool {name!r}: its arguments cannot be described as JSON: {error}") from error
    return struct, context_name


def _default(value: Any) -> Any:
    if isinstance(value, list | dict | set):
        return msgspec.field(default_factory=lambda: copy.copy(value))
    return value


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]]
    rest = {name: part for name, part in components.items() if part is not own}
    own = {key: value for key, value in own.items() if key != "title"}
    if rest:
        own["$defs"] = rest
    moved: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(own).replace(b"#/components/schemas/", b"#/$defs/"))
    return moved


def _description(function: Callable[..., Any]) -> str:
    return " ".join(inspect.cleandoc(function.__doc__ or "").split("\n\n", 1)[0].split())


def _described(function: Callable[..., Any]) -> list[tuple[str, str]]:
    lines = inspect.cleandoc(function.__doc__ or "").split("\n\n", 1)[1:]
    matches = [_ARGUMENT_LINE.match(line) for block in lines for line in block.splitlines()]
    return [(match[1], match[2].strip()) for match in matches if match]
