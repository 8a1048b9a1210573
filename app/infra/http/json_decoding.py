"""Decode JSON into structs, and turn msgspec's errors into sentences with a JSON pointer (RFC 6901).

``JsonBody`` is the application's ``dto``: a handler's ``data`` parameter is decoded from bytes in one strict pass.
Litestar's own decoding builds dictionaries first and accepts ``"1"`` for 1.
"""

from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from app.base.errors import Invalid
from app.base.json_scan import INVALID_JSON
from app.base.validation_messages import MISSING, Path, pointer_of, sentence, split

T = TypeVar("T")


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
    what, path = split(message)
    if match := MISSING.fullmatch(what):
        path.append(match[1])
        detail = f"`{_dotted(path)}` is required."
    else:
        inside = "A value in " if "[...]`" in message else "A key of " if " - at `key` in " in message else ""
        subject = f"{inside}`{_dotted(path)}`" if path else f"{inside}the body".capitalize()
        detail = f"{subject} {sentence(what, wanted, path)}."
    return Invalid.at(detail, pointer_of(path))


def sentence_of(message: str, name: str, wanted: Any) -> str:
    """Turn msgspec's ``message`` about the parameter ``name`` into a sentence."""
    what, path = split(message)
    if name.endswith("_id") and "UUID" in what:
        return f"Invalid {name.removesuffix('_id')} ID: must be a UUID"
    return f"`{name}` {sentence(what, wanted, path)}."


def _dotted(path: Path) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).removeprefix(".")
