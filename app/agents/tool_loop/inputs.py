"""Parse untrusted input: messages in the forms that clients send, and the JSON arguments of tool calls."""

from typing import Any
from uuid import UUID, uuid5

import msgspec

from app.base.errors import AgentServiceError, Invalid
from app.base.json_scan import check
from app.domain.messages import (
    AIMessage,
    Content,
    HumanMessage,
    InvalidToolCall,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
)
from app.domain.state import MAX_CHANNELS, MESSAGES

MAX_BYTES = 1024 * 1024
"""Largest arguments of a tool call, which a model has written, in bytes."""

MAX_MESSAGES = 2_500


def read_object(text: str) -> dict[str, Any]:
    """Parse the JSON object in ``text``; empty text is an empty object. Raises ``ValueError`` with the reason."""
    try:
        encoded = text.strip().encode()
        if len(encoded) > MAX_BYTES:
            raise ValueError(f"the arguments have {len(encoded):,} bytes, more than {MAX_BYTES:,}")
        check(encoded, "The text")
        value = msgspec.json.decode(encoded or b"{}")
    except (msgspec.DecodeError, UnicodeError, AgentServiceError) as error:
        raise ValueError(f"the arguments are not a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("the arguments are not a JSON object")  # noqa: TRY004  the text is invalid, not its type
    return value


ROLES = {
    "user": "human",
    "human": "human",
    "assistant": "ai",
    "ai": "ai",
    "AIMessageChunk": "ai",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "remove": "remove",
}


def read_input(value: Any, run_id: UUID) -> dict[str, Any]:
    """Convert an input to an update of the state: its messages as JSON, other members unchanged. Raises ``Invalid``.

    ``value`` is ``{"messages": […], …}``, a list of messages or a text. A missing message id is derived from the run's,
    so that reading the same input again has no effect.
    """
    if isinstance(value, str | list):
        return {MESSAGES: _messages(value, "/input", run_id)}
    if not isinstance(value, dict):
        raise _invalid("/input", "must be an object with messages, a list of messages, or a text")
    if len(value) > MAX_CHANNELS:
        raise _invalid("/input", f"has more than {MAX_CHANNELS:,} members")
    for name in value:
        if name.startswith("__"):
            raise _invalid(f"/input/{name.replace('~', '~0').replace('/', '~1')}", "has a name that is reserved")
    update = {name: member for name, member in value.items() if name != MESSAGES}
    if (given := value.get(MESSAGES)) is not None:
        update[MESSAGES] = _messages(given, "/input/messages", run_id)
    return update


def _messages(value: Any, at: str, run_id: UUID) -> list[msgspec.Raw]:
    """Parse a list of messages, or a single one."""
    if isinstance(value, str | dict):
        values_at = {at: value}
    elif isinstance(value, list):
        values_at = {f"{at}/{n}": one for n, one in enumerate(value)}
    else:
        raise _invalid(at, "must be a list of messages")
    if len(values_at) > MAX_MESSAGES:
        raise _invalid(at, f"has more than {MAX_MESSAGES} messages")
    return [
        msgspec.Raw(msgspec.json.encode(_message(one, pointer, str(uuid5(run_id, str(n))))))
        for n, (pointer, one) in enumerate(values_at.items())
    ]


def _invalid(pointer: str, words: str) -> Invalid:
    return Invalid(f"{pointer.removeprefix('/').replace('/', '.')} {words}.", ((pointer, words),))


def _message(value: Any, at: str, default_id: str) -> Message | dict[str, Any]:
    if isinstance(value, str):
        return HumanMessage(content=value, id=default_id)
    if isinstance(value, list):
        if len(value) != 2 or not isinstance(value[0], str):
            raise _invalid(at, "must be a message: an object, a text, or a [role, content] pair")
        value = {"role": value[0], "content": value[1]}
    if not isinstance(value, dict):
        raise _invalid(at, "must be a message: an object, a text, or a [role, content] pair")
    kind = ROLES.get(str(value.get("role") or value.get("type")))
    if kind is None:
        raise _invalid(at, f"needs a role, one of {', '.join(ROLES)}")
    id_ = value.get("id")
    if id_ is not None and (not isinstance(id_, str) or not id_):
        raise _invalid(f"{at}/id", "must be a text that is not empty")
    if kind == "remove":
        if id_ is None:
            raise _invalid(f"{at}/id", "is needed to remove a message")
        return {"type": "remove", "id": id_}
    return _of_kind(kind, value, at, id_ or default_id)


def _of_kind(kind: str, value: dict[str, Any], at: str, id_: str) -> Message:
    content = _content(value.get("content"), f"{at}/content", optional=kind == "ai")
    common: dict[str, Any] = {
        "content": content,
        "id": id_,
        "name": _text_or_none(value.get("name"), f"{at}/name"),
        "additional_kwargs": _object(value.get("additional_kwargs"), f"{at}/additional_kwargs"),
        "response_metadata": _object(value.get("response_metadata"), f"{at}/response_metadata"),
    }
    if kind == "human":
        return HumanMessage(**common)
    if kind == "system":
        return SystemMessage(**common)
    if kind == "ai":
        return AIMessage(
            **common,
            tool_calls=_calls(value.get("tool_calls"), f"{at}/tool_calls"),
            invalid_tool_calls=_as(
                list[InvalidToolCall], value.get("invalid_tool_calls") or [], at, "invalid_tool_calls"
            ),
            usage_metadata=_as(Usage | None, value.get("usage_metadata"), at, "usage_metadata"),
        )
    call_id = value.get("tool_call_id")
    if not isinstance(call_id, str) or not call_id:
        raise _invalid(f"{at}/tool_call_id", "must name the call that the tool answers")
    status = value.get("status") or "success"
    if status not in {"success", "error"}:
        raise _invalid(f"{at}/status", "must be success or error")
    return ToolMessage(**common, tool_call_id=call_id, artifact=value.get("artifact"), status=status)


def _content(value: Any, at: str, *, optional: bool) -> Content:
    if value is None and optional:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        blocks: list[dict[str, Any]] = []
        for n, block in enumerate(value):
            if isinstance(block, str):
                blocks.append({"type": "text", "text": block})
            elif isinstance(block, dict) and isinstance(block.get("type"), str):
                blocks.append(_block(block, f"{at}/{n}"))
            else:
                raise _invalid(f"{at}/{n}", "must be a content block with a type, or a text")
        return blocks
    raise _invalid(at, "must be a text or a list of content blocks")


def _block(block: dict[str, Any], at: str) -> dict[str, Any]:
    if block["type"] == "text" and not isinstance(block.get("text"), str):
        raise _invalid(f"{at}/text", "must be a text")
    if block["type"] == "image_url":
        image = block.get("image_url")
        if not isinstance(image.get("url") if isinstance(image, dict) else image, str):
            raise _invalid(f"{at}/image_url", "must be an address, or an object with a url")
    return block


def _calls(value: Any, at: str) -> list[ToolCall]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _invalid(at, "must be a list")
    return [_call(one, f"{at}/{n}") for n, one in enumerate(value)]


def _call(value: Any, at: str) -> ToolCall:
    if not isinstance(value, dict):
        raise _invalid(at, "must be an object")
    function = value.get("function")
    if isinstance(function, dict):  # the form of OpenAI's API
        text = function.get("arguments") or ""
        try:
            args = read_object(text) if isinstance(text, str) else text
        except ValueError as error:
            raise _invalid(f"{at}/function/arguments", f"must be the JSON text of an object: {error}") from error
        value = {"name": function.get("name"), "args": args, "id": value.get("id")}
    name, args, id_ = value.get("name"), value.get("args", {}), value.get("id")
    if not (isinstance(name, str) and name and isinstance(args, dict) and isinstance(id_, str) and id_):
        raise _invalid(at, "must have a name, args (an object) and an id")
    return ToolCall(name=name, args=args, id=id_)


def _as(kind: Any, value: Any, at: str, name: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(f"{at}/{name}", f"is invalid: {error}") from error


def _text_or_none(value: Any, at: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _invalid(at, "must be a text")
    return value


def _object(value: Any, at: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _invalid(at, "must be an object")
    return value
