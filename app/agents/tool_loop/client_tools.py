"""Tools that the caller of a run offers and runs itself.

A call to one is a question of the run (``app.agents.port.Interrupt``); its answer is the tool's result. Any client that
resumes the thread may give it.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from app.agents.port import ModelOptions, interrupt_id
from app.agents.tool_loop.conversation import AnyToolCall
from app.agents.tools.port import ToolResult
from app.base.errors import Invalid, ModelProtocol
from app.base.json_scan import UNREADABLE_JSON
from app.base.json_schema import JsonSchema
from app.base.schema_visits import CheckTooExpensive
from app.domain.messages import AIMessage, InvalidToolCall, text_of
from app.providers.llm.port import ANY_TOOL, ToolSpec

CLIENT_TOOL_CALL = "client_tool_call"
"""``type`` of the question that a call to a client tool asks."""

MAX_TOOLS = 128
MAX_PROBLEM_LENGTH = 300
MAX_OPTIONS_BYTES = 256 * 1024
"""Largest tools and instructions of a request, as JSON."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_encode = msgspec.json.Encoder().encode


def check_options(options: ModelOptions, agent: str, own: Collection[str]) -> None:
    """Validate what a caller asks of the model calls of ``agent``, with tools of its ``own``. Raises ``Invalid``."""
    names: set[str] = set()
    if len(options.tools) > MAX_TOOLS:
        raise _invalid("tools", f"has more than {MAX_TOOLS} tools")
    if len(_encode(options)) > MAX_OPTIONS_BYTES:
        raise _invalid("tools", f"and instructions have more than {MAX_OPTIONS_BYTES:,} bytes")
    for at, tool in enumerate(options.tools):
        if not _NAME.fullmatch(tool.name):
            raise _invalid(f"tools/{at}/name", "must have 1 to 64 letters, digits, _ or -")
        if tool.name in own:
            raise _invalid(f"tools/{at}/name", f"is {tool.name!r}, a tool of agent {agent!r} itself: rename yours")
        if tool.name in names:
            raise _invalid(f"tools/{at}/name", f"is {tool.name!r}, as another tool's")
        if tool.parameters.get("type") != "object":
            raise _invalid(f"tools/{at}/parameters", 'must be a JSON Schema of type "object"')
        names.add(tool.name)
    known = [*own, *names]
    for name in options.tool_choice.names:
        if name not in known:
            raise _invalid("tool_choice", f"names {name[:100]!r}; the tools are {', '.join(known) or 'none'}")
    if options.output_schema is not None:
        try:
            JsonSchema(options.output_schema.schema)
        except ValueError as error:
            raise _invalid("output_schema", f"is not a JSON Schema that can be used: {error}") from error
    if options.tool_choice.mode == "required" and not known:
        raise _invalid("tool_choice", "requires a call, and there is no tool")


def _invalid(place: str, words: str) -> Invalid:
    return Invalid(f"{place.replace('/', '.')} {words}.", ((f"/model_options/{place}", words),))


def offered_tools(own: Sequence[ToolSpec], options: ModelOptions) -> list[ToolSpec]:
    """Return the tools to offer to the model: the agent's ``own`` and the caller's, as ``tool_choice`` allows.

    All of them if no call is allowed at all: providers need the tools of earlier calls.
    """
    every = [*own, *options.tools]
    names = options.tool_choice.names
    return [tool for tool in every if tool.name in names] if names else every


def is_client_tool(name: str, options: ModelOptions) -> bool:
    """Whether calls of ``name`` go to the caller of the run."""
    return options.tool_choice.allows(name) and any(tool.name == name for tool in options.tools)


def enforce_choice(message: AIMessage, options: ModelOptions) -> AIMessage:
    """Return ``message`` with the calls that ``tool_choice`` forbids as invalid ones, which are not run.

    Raises ``ModelProtocol`` if it has no call and one is required.
    """
    choice = options.tool_choice
    if choice.mode == "required" and not (message.tool_calls or message.invalid_tool_calls):
        raise ModelProtocol("The model answered without a tool call, which tool_choice requires.")
    forbidden = [call for call in message.tool_calls if not choice.allows(call.name)]
    if not forbidden:
        return message
    refused = [
        InvalidToolCall(call.name, _encode(call.args).decode(), call.id, "tool_choice does not allow it")
        for call in forbidden
    ]
    return msgspec.structs.replace(
        message,
        tool_calls=[call for call in message.tool_calls if choice.allows(call.name)],
        invalid_tool_calls=[*message.invalid_tool_calls, *refused],
    )


def check_output(message: AIMessage, options: ModelOptions) -> None:
    """Check that a final answer fits the schema that the caller asks for. Raises ``ModelProtocol``."""
    if options.output_schema is None:
        return
    try:
        answer = msgspec.json.decode(text_of(message.content))
    except UNREADABLE_JSON as error:
        raise ModelProtocol("The model's answer is not JSON, which the request asks for.") from error
    try:
        problems = JsonSchema(options.output_schema.schema).problems(answer)
    except CheckTooExpensive as error:
        raise ModelProtocol(f"The model's answer was not checked by the schema of the request: {error}.") from error
    for problem in problems:
        words = problem.message[:MAX_PROBLEM_LENGTH]
        raise ModelProtocol(f"The model's answer does not fit the schema of the request: {words}.")


def after_first_call(options: ModelOptions) -> ModelOptions:
    """Return the options once the required call is made: the model may answer."""
    choice = options.tool_choice
    if choice.mode != "required":
        return options
    return msgspec.structs.replace(options, tool_choice=msgspec.structs.replace(choice, mode=ANY_TOOL.mode))


def client_call_id(message_id: str, call: AnyToolCall) -> str:
    """Return the key of the question that ``call`` asks."""
    return interrupt_id("client", message_id, call.id, call.name, call.args)


def client_call_request(call: AnyToolCall) -> dict[str, Any]:
    """Build the value of the question; ``args`` is text if the model sent no JSON object."""
    return {"type": CLIENT_TOOL_CALL, "tool": call.name, "args": call.args, "call_id": call.id}


def client_result(answer: Any) -> ToolResult:
    """Read the result that the caller gives: a text, content blocks, or any JSON, which the model reads as text.

    ``{"content": …, "status": "error"}`` reports a failure.
    """
    failed = False
    if isinstance(answer, dict) and answer.keys() <= {"content", "status"} and "content" in answer:
        failed = answer.get("status") == "error"
        answer = answer["content"]
    if not isinstance(answer, str) and not _is_blocks(answer):
        answer = _encode(answer).decode()
    return ToolResult(content=answer, status="error" if failed else "success")


def _is_blocks(value: Any) -> bool:
    blocks = value if isinstance(value, list) else []
    return bool(blocks) and all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in blocks)
