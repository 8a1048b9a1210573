"""What an item may be, whichever way it comes: over HTTP, from an agent, or out of a file. Pure."""

import math
from typing import Any

import msgspec

from app.base.errors import Invalid
from app.store.names import key_of, place_of
from app.store.structs import ItemPut
from app.store.texts import check_fields

LARGEST = 512 * 1024
"""Bytes of a value, as JSON."""

_AS_DIGITS = bytes.maketrans(b"123456789E-", b"000000000e+")
_UNUSUAL_NUMBERS = (b"e0000", b"e+0000", b"0" * 1000)
"""Exponents and lengths of numbers that PostgreSQL may not hold: such a value is stored as it is parsed."""

LONGEST_TTL = 10 * 366 * 24 * 60
"""Minutes."""


class Accepted(msgspec.Struct, frozen=True):
    """An item that can be stored. ``value`` is decoded, ``text`` its JSON; ``index`` is JSON, as it was put."""

    path: str
    key: str
    value: dict[str, Any]
    text: str
    index: str | None
    ttl_minutes: float | None


def accepted(body: ItemPut, ttl: float) -> Accepted:
    """``body``, checked. ``ttl``: minutes that it stays where it does not say; 0: for ever. Raises ``Invalid``."""
    path, key = place_of(body.namespace), key_of(body.key)
    value = _value_in(body.value)
    raw = bytes(body.value)
    if body.index is True:
        raise Invalid("`index` is false, a list of fields, or null.", (("/index", "true is the default"),))
    if isinstance(body.index, list):
        check_fields(body.index)
    return Accepted(
        path=path,
        key=key,
        value=value,
        text=(msgspec.json.encode(value) if _has_unusual_number(raw) else raw).decode(),
        index=None if body.index is None else msgspec.json.encode(body.index).decode(),
        ttl_minutes=_ttl((ttl or None) if body.ttl is msgspec.UNSET else body.ttl),
    )


def _has_unusual_number(raw: bytes) -> bool:
    """Whether there may be one; by plain searches, which take a millisecond for the largest value."""
    digits = raw.translate(_AS_DIGITS)
    return any(number in digits for number in _UNUSUAL_NUMBERS)


def _value_in(raw: msgspec.Raw) -> dict[str, Any]:
    if len(bytes(raw)) > LARGEST:
        raise Invalid(f"`value` is larger than {LARGEST} bytes.", (("/value", "too large"),))
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid(f"`value` cannot be stored: {str(error).lower()}.", (("/value", "not acceptable"),)) from error
    if not isinstance(value, dict):
        raise Invalid("`value` must be an object.", (("/value", "must be an object"),))
    return value


def _ttl(minutes: float | None) -> float | None:
    if minutes is not None and not (math.isfinite(minutes) and 0 < minutes <= LONGEST_TTL):
        raise Invalid(
            f"`ttl` is a number of minutes above 0 and at most {LONGEST_TTL}, or null.", (("/ttl", "out of range"),)
        )
    return minutes
