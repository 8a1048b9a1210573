"""Values as JSON: exactly where JSON can hold them, as clients read them where it cannot."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import orjson
from langchain_core import messages as core
from langchain_core.messages import BaseMessage
from langgraph.types import Interrupt

MAX_DEPTH = 60
"""Deepest nesting that is looked through; deeper values are stored in their exact form."""

_CLASSES = (
    *(core.HumanMessage, core.AIMessage, core.SystemMessage, core.ToolMessage, core.ChatMessage, core.FunctionMessage),
    *(core.HumanMessageChunk, core.AIMessageChunk, core.SystemMessageChunk, core.ToolMessageChunk),
)
MESSAGES: dict[str, type[BaseMessage]] = {kind.model_fields["type"].default: kind for kind in _CLASSES}
EXACT_CLASSES = frozenset(_CLASSES)


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether JSON holds ``value`` exactly: only text, finite numbers, booleans, null, lists and objects of them."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**63)
    if kind is float:
        return math.isfinite(value)
    if depth and kind is list:
        return all(is_plain(one, depth - 1) for one in value)
    if depth and kind is dict:
        return all(type(name) is str and is_plain(one, depth - 1) for name, one in value.items())
    return False


def is_exact_message(value: Any) -> bool:
    """Whether ``value`` is a message that its JSON restores exactly."""
    return type(value) in EXACT_CLASSES and not value.__pydantic_extra__ and is_plain(value.__dict__)


def restored_message(fields: dict[str, Any]) -> BaseMessage:
    """Return the message whose JSON is ``fields``."""
    kind = MESSAGES[fields["type"]]
    message = kind.__new__(kind)
    state = {"__dict__": fields, "__pydantic_fields_set__": set(fields), "__pydantic_extra__": {}}
    message.__setstate__({**state, "__pydantic_private__": None})  # validated when it was made
    return message


def json_of(value: Any) -> bytes:
    """Return ``value`` as clients read it; what JSON has no form for becomes an object, a list, a text or null."""
    try:
        return orjson.dumps(value, default=_simpler, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError:  # lone surrogates, integers beyond 64 bits, deep nesting
        text = json.dumps(value, default=_simpler, skipkeys=True)
        finite = json.loads(text, parse_constant=lambda _: None)
        return storable(json.dumps(finite, ensure_ascii=False, separators=(",", ":"))).encode()


def storable(text: str) -> str:
    """Return ``text`` with halves of characters (lone surrogates), which have no encoding, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def value_of(text: bytes) -> Any:
    """Decode JSON."""
    return orjson.loads(text)


def _simpler(value: Any) -> Any:
    """Return a simpler form of ``value``, which is encoded instead."""
    if isinstance(value, BaseMessage):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, Interrupt):
        return {"value": value.value, "id": value.id}
    if isinstance(value, (str, type)):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="python")
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, (list, tuple, set, frozenset)) or hasattr(value, "popleft"):
        return list(value)
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)
