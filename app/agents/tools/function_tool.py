"""Wrap a typed Python function as a tool: the schema from its annotations, the descriptions from its docstring."""

import copy
import functools
import inspect
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec

from app.agents.tools.docstring import describe
from app.agents.tools.json_types import ALLOWED_TYPES, is_json, type_name
from app.agents.tools.port import ToolClass, ToolContext, ToolResult
from app.agents.tools.worker_threads import WorkerThreads
from app.base.errors import StartError
from app.providers.llm.port import ToolSpec

DEFAULT_SECONDS = 30.0
MAX_THREADS = 64
"""Concurrent sync tools in one process; more wait for a thread within their timeout."""
MAX_ABANDONED_THREADS = 256
"""Threads of sync tools that timed out and still run."""

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__agent_tool__"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what every provider takes

_threads = WorkerThreads(MAX_THREADS, MAX_ABANDONED_THREADS)


class ToolDeclaration(msgspec.Struct, frozen=True):
    """The arguments of ``@tool``."""

    name: str = ""
    timeout: float = DEFAULT_SECONDS
    tool_class: ToolClass = ToolClass.UNSAFE
    lookup: Callable[[str], Any] | None = None


def tool(
    *,
    name: str = "",
    timeout: float = DEFAULT_SECONDS,
    tool_class: ToolClass | str = ToolClass.UNSAFE,
    lookup: Callable[[str], Any] | None = None,
) -> Callable[[Function], Function]:
    """Declare a function as a tool: its ``name`` (by default the function's), ``timeout`` in seconds, and class.

    The class determines how a call is handled whose outcome a crash left unknown: ``read_only`` and ``idempotent`` run
    again, ``unsafe`` (the default) asks a person, and ``reconcilable`` calls ``lookup`` with the idempotency key: it
    returns the call's result, or None if it was not made; if it raises, a person is asked.
    """
    declared = ToolDeclaration(name, timeout, ToolClass(tool_class), lookup)

    def mark(function: Function) -> Function:
        setattr(function, _MARK, declared)
        return function

    return mark


class FunctionTool:
    """A function as a tool (``app.agents.tools.port.Tool``). Raises ``StartError`` if its signature is unsupported.

    Async functions run on the event loop, sync ones in threads. A parameter annotated ``ToolContext`` gets the context
    and is not part of the schema.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        declared = getattr(function, _MARK, ToolDeclaration())
        name = declared.name or getattr(function, "__name__", type(function).__name__)
        if not _NAME.fullmatch(name):
            raise StartError(f"tool {name!r}: a name has letters, digits, - and _; give one with @tool(name=...)")
        described = describe(function.__doc__)
        self._arguments, self._context_name = _arguments(function, name, described.parameters)
        parameters = _schema(self._arguments, f"tool {name!r}{_place(function)}")
        self.spec = ToolSpec(name=name, description=described.summary, parameters=parameters)
        self.tool_class = declared.tool_class
        self.timeout = declared.timeout
        if (declared.lookup is None) == (self.tool_class is ToolClass.RECONCILABLE):
            raise StartError(f"tool {name!r}: a reconcilable tool, and no other, needs a lookup: @tool(lookup=...)")
        self._lookup = declared.lookup
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run the function once. Propagates its exceptions; ``TypeError`` if the result has no JSON form."""
        decoded = msgspec.convert(args, self._arguments, str_keys=True)
        given = {name: getattr(decoded, name) for name in self._arguments.__struct_fields__}
        if self._context_name:
            given[self._context_name] = context
        if self._is_async:
            value = await self._function(**given)
        else:
            value = await _threads.run(functools.partial(self._function, **given))
            if inspect.isawaitable(value):  # an async function behind a sync decorator
                value = await value
        return _result(value)

    async def lookup(self, key: str) -> ToolResult | None:
        """Look up the result of an earlier call, as ``Tool.lookup``."""
        if self._lookup is None:
            raise LookupError("the tool has no lookup function")
        if inspect.iscoroutinefunction(self._lookup):
            value = await self._lookup(key)
        else:
            value = await _threads.run(functools.partial(self._lookup, key))
        return None if value is None else _result(value)


def _result(value: Any) -> ToolResult:
    if isinstance(value, ToolResult):
        return value
    if isinstance(value, str):
        return ToolResult(content=value)
    return ToolResult(content=msgspec.json.encode(value).decode())


def _arguments(function: Callable[..., Any], name: str, described: dict[str, str]) -> tuple[type[msgspec.Struct], str]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
    except (NameError, AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise StartError(f"tool {name!r}{_place(function)}: its annotations cannot be read: {error}") from error
    fields: list[Any] = []
    context_name = ""
    for parameter in signature.parameters.values():
        kind = hints.get(parameter.name, Any)
        if kind is ToolContext:
            context_name = parameter.name
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise StartError(
                f"tool {name!r}{_place(function)}: parameter {parameter.name!r} must be an ordinary or keyword one"
            )
        if parameter.name in described and not _has_description(kind):
            kind = Annotated[kind, msgspec.Meta(description=described[parameter.name])]
        if parameter.default is parameter.empty:
            fields.append((parameter.name, kind))
        else:
            fields.append((parameter.name, kind, _default(parameter.default)))
    try:
        return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True), context_name
    except TypeError as error:
        raise StartError(f"tool {name!r}{_place(function)}: its parameters cannot be read: {error}") from error


def _place(function: Callable[..., Any]) -> str:
    """Return the function's file, line and name in brackets; empty for a callable without Python code."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno}, function {code.co_name})"


def _has_description(kind: Any) -> bool:
    notes = getattr(kind, "__metadata__", ())
    return any(isinstance(note, msgspec.Meta) and note.description for note in notes)


def _default(value: Any) -> Any:
    if isinstance(value, list | dict | set):
        return msgspec.field(default_factory=lambda: copy.copy(value))
    return value


def _schema(arguments: type[msgspec.Struct], what: str) -> dict[str, Any]:
    """Return one self-contained schema: referenced types are in its ``$defs``.

    Raises ``StartError`` that starts with ``what`` and names the parameter whose type has no JSON form.
    """
    for field in msgspec.structs.fields(arguments):
        if not is_json(field.type):
            raise StartError(
                f"{what}: parameter {field.name!r} has the type {type_name(field.type)}, which cannot be described as "
                f"JSON; use {ALLOWED_TYPES}"
            )
    try:
        (schema,), components = msgspec.json.schema_components([arguments])
    except TypeError as error:  # types that have a schema each but not together
        raise StartError(f"{what}: its parameters cannot be described as JSON: {error}") from error
    own: dict[str, Any] = components.pop(schema["$ref"].rpartition("/")[2])
    del own["title"]
    return {**own, "$defs": components} if components else own
