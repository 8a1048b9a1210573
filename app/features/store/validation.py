"""Validate namespaces, keys and items, from whatever source: HTTP, an agent or a file. Pure.

A namespace is stored as its labels with a dot after each (``users.u1.``), ordered by bytes: those below a prefix are
one range of the index, and no label can be mistaken for a part of another.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.features.store.index.fields import check_fields
from app.features.store.structs import ItemPut

MAX_LABELS = 32
MAX_NAME_BYTES = 1000
"""For a namespace including its dots, and for a key."""

RESERVED = "\U0010ffff"
"""First character of labels that clients cannot use, sorted after all others: the chunks of documents lie below one."""

ALL_NAMESPACES = ("", RESERVED)
"""The range of namespaces that clients can use."""

AFTER_DOT = "/"
"""The character that follows the dot in byte order."""

ANY_LABEL = "*"

MAX_VALUE_BYTES = 512 * 1024
"""Size of a value as JSON."""

_UNUSUAL_NUMBERS = (b"e0000", b"e+0000", b"0" * 1000)
"""Signs of numbers that PostgreSQL may reject for their length or exponent: such a value is serialised again."""

MAX_TTL_MINUTES = 10 * 366 * 24 * 60


def path_of(namespace: Sequence[str], field: str = "namespace") -> str:
    """Return the stored form of a namespace. Raises ``Invalid`` for ``field`` if a label is invalid."""
    if len(namespace) > MAX_LABELS:
        raise Invalid.at(f"`{field}` has more than {MAX_LABELS} labels.", f"/{field}")
    for number, label in enumerate(namespace):
        if not label:
            raise Invalid.at(f"`{field}` has an empty label.", f"/{field}/{number}")
        if "." in label:
            shown = label if len(label) <= 100 else f"{label[:100]}…"
            raise Invalid.at(
                f"`{field}` has the label {shown!r}: a label must not contain a dot.", f"/{field}/{number}"
            )
        if not number and label.startswith(RESERVED):
            raise Invalid.at(f"`{field}` begins with U+10FFFF, which is not a character.", f"/{field}/0")
        _check_characters(label, field)
    path = "".join(f"{label}." for label in namespace)
    if len(path.encode()) > MAX_NAME_BYTES:
        raise Invalid.at(f"`{field}` is longer than {MAX_NAME_BYTES} bytes.", f"/{field}")
    return path


def namespace_path(namespace: Sequence[str]) -> str:
    """Return the stored form of an item's namespace. Raises ``Invalid``, also if it has no labels."""
    if not namespace:
        raise Invalid.at("`namespace` needs a label: give the item a namespace.", "/namespace")
    return path_of(namespace)


def key_of(key: str) -> str:
    """Return ``key``. Raises ``Invalid`` if it is not a valid one."""
    if not key:
        raise Invalid.at("`key` must not be empty.", "/key")
    _check_characters(key, "key")
    if len(key.encode()) > MAX_NAME_BYTES:
        raise Invalid.at(f"`key` is longer than {MAX_NAME_BYTES} bytes.", "/key")
    return key


def labels_of(path: str) -> list[str]:
    """Return the labels of a stored namespace."""
    return path.split(".")[:-1]


def range_of(path: str) -> tuple[str, str]:
    """Return the range of namespaces at and below ``path``: first, and first after."""
    return (path, path[:-1] + AFTER_DOT) if path else ALL_NAMESPACES


def _check_characters(text: str, field: str) -> None:
    if "\x00" in text:
        raise Invalid.at(f"`{field}` has a NUL character, which cannot be stored.", f"/{field}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid.at(f"`{field}` is not UTF-8 text.", f"/{field}") from None


_AS_DIGITS = bytes.maketrans(b"123456789E-", b"000000000e+")


class ValidatedItem(msgspec.Struct, frozen=True):
    """A validated item. ``value`` is decoded, ``text`` is its JSON; ``index`` is JSON as in the request."""

    path: str
    key: str
    value: dict[str, Any]
    text: str
    index: str | None
    ttl_minutes: float | None


def validate_item(body: ItemPut, ttl: float) -> ValidatedItem:
    """Validate ``body``. ``ttl``: default time to live in minutes; 0: no expiry. Raises ``Invalid``."""
    path, key = namespace_path(body.namespace), key_of(body.key)
    value = _value_in(body.value)
    raw = bytes(body.value)
    if body.index is True:
        raise Invalid("`index` is false, a list of fields, or null.", (("/index", "true is the default"),))
    if isinstance(body.index, list):
        check_fields(body.index)
    return ValidatedItem(
        path=path,
        key=key,
        value=value,
        text=(msgspec.json.encode(value) if _has_unusual_number(raw) else raw).decode(),
        index=None if body.index is None else msgspec.json.encode(body.index).decode(),
        ttl_minutes=_ttl((ttl or None) if body.ttl is msgspec.UNSET else body.ttl),
    )


def _has_unusual_number(raw: bytes) -> bool:
    """Whether ``raw`` may have one: byte searches, which take 1 ms for the largest value."""
    digits = raw.translate(_AS_DIGITS)
    return any(number in digits for number in _UNUSUAL_NUMBERS)


def _value_in(raw: msgspec.Raw) -> dict[str, Any]:
    if len(bytes(raw)) > MAX_VALUE_BYTES:
        raise Invalid(f"`value` is larger than {MAX_VALUE_BYTES} bytes.", (("/value", "too large"),))
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid(f"`value` cannot be stored: {str(error).lower()}.", (("/value", "invalid"),)) from error
    if not isinstance(value, dict):
        raise Invalid("`value` must be an object.", (("/value", "must be an object"),))
    return value


def _ttl(minutes: float | None) -> float | None:
    if minutes is not None and not (math.isfinite(minutes) and 0 < minutes <= MAX_TTL_MINUTES):
        raise Invalid(
            f"`ttl` is a number of minutes above 0 and at most {MAX_TTL_MINUTES}, or null.", (("/ttl", "out of range"),)
        )
    return minutes
