"""Bytes → structs, and msgspec's complaints → sentences with a JSON pointer (RFC 6901) to the place.

``JsonBody`` is the application's ``dto``: a handler's ``data`` parameter is decoded from the bytes in one strict pass.
Litestar's own way builds dictionaries first and takes ``"1"`` for 1.
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
"""Characters of a client's own value that an error repeats."""


def decode(body: bytes, wanted: type[T]) -> T:
    """``body`` as a ``wanted``. Raises ``Invalid``."""
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
    """Decodes the ``data`` parameter of every handler by ``decode`` and documents its type as it is."""

    def decode_bytes(self, value: bytes) -> Any:
        """The body as the type that the handler names."""
        return decode(value, self.asgi_connection.route_handler.parsed_data_field.annotation)

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing is prepared: decoders are kept per type."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        """The schema of the type itself."""
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema


def explain(message: str, wanted: Any) -> Invalid:
    """msgspec's ``message`` about a value that should have been a ``wanted``, as the error to raise."""
    what, path = _split(message)
    if match := _MISSING.fullmatch(what):
        path.append(match[1])
        detail = f"`{_written(path)}` is required."
    else:
        inside = "A value in " if "[...]`" in message else "A key of " if " - at `key` in " in message else ""
        subject = f"{inside}`{_written(path)}`" if path else f"{inside}the body".capitalize()
        detail = f"{subject} {_sentence(what, wanted, path)}."
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    return Invalid(detail, ((pointer, detail),))


def sentence_of(message: str, name: str, wanted: Any) -> str:
    """msgspec's ``message`` about the parameter ``name`` as a sentence."""
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


def _written(path: Path) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).removeprefix(".")


def _sentence(what: str, wanted: Any, path: Path) -> str:
    what = what if len(what) <= MAX_QUOTED else what[:MAX_QUOTED] + "…"
    if what.startswith(("Invalid enum value", "Invalid value")):
        choices = allowed(wanted, path)
        ending = f": use one of {', '.join(choices)}" if choices else ""
        return f"has the {what[0].lower()}{what[1:]}{ending}"
    said = _QUOTED.sub(_in_words, what)
    if said.startswith("Expected "):
        return f"must be {said.removeprefix('Expected ')}".replace(", got ", ", not ")
    return f"is not acceptable: {said[:1].lower()}{said[1:]}"


def _in_words(match: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(word, f"`{word}`") for word in match[1].split(" | "))


def allowed(wanted: Any, path: Path) -> list[str]:
    """The values that an enumeration allows at ``path`` below the type ``wanted``, sorted; none when it is none."""
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
