"""Convert values between the author's types (structs, dataclasses, typed dictionaries, pydantic models) and JSON.

Pydantic is not required: its models are recognised by their methods.
"""

from typing import Any

import msgspec

from app.agents.tools.json_types import ALLOWED_TYPES, type_name
from app.base.errors import Invalid, StartError
from app.base.validation_messages import MISSING, pointer_of, sentence, split


def _encode_hook(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _decode_hook(kind: Any, value: Any) -> Any:
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise NotImplementedError(f"{kind!r} cannot be read from JSON")


def _json_schema(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "model_json_schema"):
        schema: dict[str, Any] = kind.model_json_schema()
        return schema
    raise NotImplementedError(f"{kind!r} cannot be described as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_encode_hook)


def to_json(value: Any) -> bytes:
    """Encode ``value`` as JSON. Raises ``TypeError`` if it has no JSON form."""
    return _encoder.encode(value)


def to_builtins(value: Any) -> Any:
    """Convert ``value`` to lists, dictionaries and plain values by way of its JSON. Raises ``TypeError``."""
    return msgspec.json.decode(to_json(value))


def convert(value: Any, kind: Any) -> Any:
    """Convert decoded JSON to ``kind``. Raises ``ValueError`` (pydantic's included) if it does not match."""
    if kind is Any or kind is None:
        return value
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    return msgspec.convert(value, kind, dec_hook=_decode_hook, str_keys=True)


def convert_input(value: Any, kind: Any, at: str) -> Any:
    """Convert a client's value at the JSON pointer ``at``. Raises ``Invalid`` with pointers into it."""
    try:
        return convert(value, kind)
    except ValueError as error:
        found = _problems(error, kind)
        errors = tuple((f"{at}{path}", words) for path, words in found)
        pointer, words = errors[0]
        raise Invalid(f"{pointer.removeprefix('/').replace('/', '.')}: {words}.", errors) from error


def schema_of(kind: Any, what: str) -> dict[str, Any]:
    """Return the JSON Schema of ``kind``. Raises ``StartError`` that names ``what`` cannot be described."""
    if kind is Any:
        return {}
    if hasattr(kind, "model_json_schema"):
        return _json_schema(kind)
    try:
        (schema,), components = msgspec.json.schema_components([kind], schema_hook=_json_schema)
    except (TypeError, NotImplementedError) as error:
        raise StartError(
            f"{what} has the type {type_name(kind)}, which cannot be described as JSON; use {ALLOWED_TYPES}; or a "
            "pydantic model"
        ) from error
    own: dict[str, Any] = components.pop(schema["$ref"].rpartition("/")[2], schema) if "$ref" in schema else schema
    refers = any(f'"#/$defs/{name}"'.encode() in msgspec.json.encode([own, components]) for name in components)
    return {**own, "$defs": components} if refers else own


def expected(kind: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of an answer of type ``kind``; None if any JSON is accepted or no schema describes it."""
    if kind is Any or kind is None:
        return None
    try:
        return schema_of(kind, "the answer")
    except StartError:
        return None


def _problems(error: ValueError, kind: Any) -> list[tuple[str, str]]:
    """Return a (JSON pointer, sentence) pair for each validation error."""
    details = getattr(error, "errors", None)  # pydantic's
    if callable(details):
        return [(pointer_of(one["loc"]), _plain(one["msg"])) for one in details()]
    what, path = split(str(error))
    if missing := MISSING.fullmatch(what):
        return [(pointer_of([*path, missing[1]]), "is missing")]
    typed = what.startswith(("Expected ", "Invalid "))  # else the author's own words, raised in ``__post_init__``
    return [(pointer_of(path), sentence(what, kind, path) if typed else _plain(what))]


def _plain(words: str) -> str:
    return (words[:1].lower() + words[1:]).rstrip(".")[:300]
