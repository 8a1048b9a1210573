"""Check which Python types have a JSON form, for errors about annotations of tools and function agents."""

import typing
from typing import Annotated, Any

import msgspec

ALLOWED_TYPES = (
    "str, int, float, bool, None, Literal, Enum, datetime, date, time, timedelta, UUID, Decimal, bytes, Any; list, set,"
    " tuple, dict, TypedDict, NamedTuple, dataclass and msgspec.Struct of these; unions of at most one of them that"
    " JSON writes as text, one array and one object"
)
"""Types allowed for parameters, as the end of a sentence 'use …'."""

_VALUES: tuple[Any, ...] = (None, True, 0, 0.0, "", [], {})
"""One value of each JSON type."""


def type_name(kind: Any) -> str:
    """Return ``kind`` as its author wrote it, without ``Annotated`` metadata."""
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    return kind.__qualname__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def is_json(kind: Any) -> bool:
    """Whether JSON can be converted to ``kind``, and ``kind`` has a JSON Schema."""
    try:
        msgspec.json.schema_components([kind])
        return not _is_foreign(msgspec.inspect.type_info(kind), set())
    except TypeError:
        return False


def _is_foreign(part: Any, seen: set[int]) -> bool:
    """Whether ``part`` contains a class that JSON cannot be converted to; msgspec describes even those if annotated."""
    if isinstance(part, msgspec.inspect.CustomType):
        return not any(isinstance(value, part.cls) for value in _VALUES)
    if isinstance(part, tuple):
        return any(_is_foreign(one, seen) for one in part)
    if not isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field) or id(part) in seen:
        return False
    seen.add(id(part))  # types may contain themselves
    return any(_is_foreign(getattr(part, name), seen) for name in part.__struct_fields__)
