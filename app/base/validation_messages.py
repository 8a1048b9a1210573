"""Turn msgspec's validation errors into sentences and the path of the value."""

import re
from collections.abc import Iterable
from typing import Any

from msgspec import inspect

Path = list[str]

_WHERE = re.compile(r"(?s)(.*?) - at (?:`key` in )?`\$([^`]*)`")
_PART = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
MISSING = re.compile(r"Object missing required field `([^`]+)`")
_QUOTED = re.compile(r"`([^`]+)`")
_WORDS = {
    "array": "an array",
    "bool": "true or false",
    "bytes": "base64 text",
    "datetime": "a date and time",
    "float": "a number",
    "int": "an integer",
    "null": "null",
    "object": "an object",
    "str": "a string",
    "uuid": "a UUID",
}
MAX_QUOTED = 200
"""Characters of a client's value that an error repeats."""


def split(message: str) -> tuple[str, Path]:
    """Split msgspec's ``message`` into what is wrong and the path of the value."""
    match = _WHERE.fullmatch(message)
    if match is None:
        return message, []
    parts = [name or index for name, index in _PART.findall(match[2])]
    return match[1], parts[: parts.index("...")] if "..." in parts else parts


def pointer_of(path: Iterable[str | int]) -> str:
    """Return the JSON pointer of ``path`` (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def sentence(what: str, wanted: Any, path: Path) -> str:
    """Return the predicate of a sentence: ``what`` is wrong with the value at ``path`` of the type ``wanted``."""
    what = what if len(what) <= MAX_QUOTED else what[:MAX_QUOTED] + "…"
    if what.startswith(("Invalid enum value", "Invalid value")):
        choices = allowed(wanted, path)
        ending = f": use one of {', '.join(choices)}" if choices else ""
        return f"has the {what[0].lower()}{what[1:]}{ending}"
    translated = _QUOTED.sub(_in_words, what)
    if translated.startswith("Expected "):
        return f"must be {translated.removeprefix('Expected ')}".replace(", got ", ", not ")
    return f"is invalid: {translated[:1].lower()}{translated[1:]}"


def _in_words(match: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(word, f"`{word}`") for word in match[1].split(" | "))


def allowed(wanted: Any, path: Path) -> list[str]:
    """Return the values of the enumeration at ``path`` of the type ``wanted``, sorted; empty if there is none."""
    try:
        found = _choices(inspect.type_info(wanted), path)
    except TypeError:
        return []
    return sorted(set(found))


def _choices(node: Any, path: Path) -> list[str]:
    match node:
        case inspect.Metadata():
            return _choices(node.type, path)
        case inspect.UnionType():
            return [choice for branch in node.types for choice in _choices(branch, path)]
        case inspect.LiteralType() if not path:
            return [str(value) for value in node.values]
        case inspect.EnumType() if not path:
            return [str(member.value) for member in node.cls]
        case inspect.StructType() if path == [node.tag_field]:
            return [str(node.tag)]
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType() if path:
            return [c for field in node.fields if field.encode_name == path[0] for c in _choices(field.type, path[1:])]
        case inspect.ListType() | inspect.SetType() | inspect.VarTupleType() if path:
            return _choices(node.item_type, path[1:])
        case inspect.DictType() if not path:
            return _choices(node.value_type, path) or _choices(node.key_type, path)
        case _:
            return []
