"""Decode JSON into structs, and turn msgspec's errors into sentences with a JSON pointer (RFC 6901).

``JsonBody`` is the application's ``dto``: a handler's ``data`` parameter is decoded from bytes in one strict pass.
Litestar's own decoding builds dictionaries first and accepts ``"1"`` for 1.
"""

import re
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition
from msgspec import inspect

from app.base.errors import Invalid
from app.base.json_scan import INVALID_JSON

T = TypeVar("T")
Path = list[str]

_WHERE = re.compile(r"(?s)(.*?) - at (?:`key` in )?`\$([^`]*)`")
_PART = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
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


def decode(body: bytes, wanted: type[T]) -> T:
    """Decode ``body`` as ``wanted``. Raises ``Invalid``."""
    try:
        decoded: T = _decoder(wanted).decode(body)  # type: ignore[arg-type]
    except msgspec.ValidationError as error:
        raise explain(str(error), wanted) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        place = str(error).removeprefix("JSON is malformed: ")
        raise Invalid(f"{INVALID_JSON}: {place[:1].lower()}{place[1:]}.") from error
    return decoded


@lru_cache(maxsize=256)
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted)


class JsonBody(AbstractDTO[Any]):
    """Decodes every handler's ``data`` parameter by ``decode``, and documents its type."""

    def decode_bytes(self, value: bytes) -> Any:
        """Decode the body as the handler's type."""
        return decode(value, self.asgi_connection.route_handler.parsed_data_field.annotation)

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Do nothing: decoders are cached per type."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        """Return the schema of the type itself."""
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema


def explain(message: str, wanted: Any) -> Invalid:
    """Turn msgspec's ``message`` about a value of type ``wanted`` into an ``Invalid`` error."""
    what, path = _split(message)
    if match := _MISSING.fullmatch(what):
        path.append(match[1])
        detail = f"`{_dotted(path)}` is required."
    else:
        inside = "A value in " if "[...]`" in message else "A key of " if " - at `key` in " in message else ""
        subject = f"{inside}`{_dotted(path)}`" if path else f"{inside}the body".capitalize()
        detail = f"{subject} {_sentence(what, wanted, path)}."
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    return Invalid.at(detail, pointer)


def sentence_of(message: str, name: str, wanted: Any) -> str:
    """Turn msgspec's ``message`` about the parameter ``name`` into a sentence."""
    what, path = _split(message)
    if name.endswith("_id") and "UUID" in what:
        return f"Invalid {name.removesuffix('_id')} ID: must be a UUID"
    return f"`{name}` {_sentence(what, wanted, path)}."


def _split(message: str) -> tuple[str, Path]:
    match = _WHERE.fullmatch(message)
    if match is None:
        return message, []
    parts = [name or index for name, index in _PART.findall(match[2])]
    return match[1], parts[: parts.index("...")] if "..." in parts else parts


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).removeprefix(".")


def _sentence(what: str, wanted: Any, path: Path) -> str:
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
    """Return the enumeration values allowed at ``path`` of the type ``wanted``, sorted; empty if it is not an
    enumeration.
    """
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
        case inspect.StructType() | inspect.TypedDictType() if path:
            return [c for field in node.fields if field.encode_name == path[0] for c in _choices(field.type, path[1:])]
        case inspect.ListType() | inspect.SetType() | inspect.VarTupleType() if path:
            return _choices(node.item_type, path[1:])
        case inspect.DictType() if not path:
            return _choices(node.value_type, path) or _choices(node.key_type, path)
        case _:
            return []
