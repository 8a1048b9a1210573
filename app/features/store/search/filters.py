"""The ``filter`` of a search → SQL, over an item called ``i``."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.base.errors import Invalid

MAX_CONDITIONS = 32
"""Conditions of one filter."""

MAX_FILTER_BYTES = 100_000
"""Bytes of a filter."""

ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
OPERATORS = ("$eq", "$ne", *ORDER)


class FilterCondition(msgspec.Struct, frozen=True):
    """What an item must fulfil: SQL with ``{}`` for each of its ``values``, which are parameters of a type."""

    text: str
    values: tuple[tuple[Any, str], ...] = ()


def conditions_of(wanted: Mapping[str, Any] | None, column: str = "i.value") -> list[FilterCondition]:
    """What the JSON in ``column`` must fulfil. Raises ``Invalid`` for an operator or an operand that there is not."""
    if not wanted:
        return []
    if len(msgspec.json.encode(wanted)) > MAX_FILTER_BYTES:
        raise _bad(f"`filter` is larger than {MAX_FILTER_BYTES} bytes.", "/filter")
    found: list[FilterCondition] = []
    for field, value in wanted.items():
        if isinstance(value, dict) and any(name.startswith("$") for name in value):
            found += [_compared(column, field, name, operand) for name, operand in value.items()]
        else:
            found.append(_equal(column, field, value))
    if len(found) > MAX_CONDITIONS:
        raise _bad(f"`filter` has more than {MAX_CONDITIONS} conditions.", "/filter")
    return found


def _compared(column: str, field: str, name: str, operand: Any) -> FilterCondition:
    if name not in OPERATORS:
        raise _bad(
            f"`filter.{field[:100]}` has the unknown operator {name[:100]!r}: use {', '.join(OPERATORS)}.",
            f"/filter/{_escaped(field)}",
        )
    if name == "$eq":
        return _equal(column, field, operand)
    if name == "$ne":
        equal = _equal(column, field, operand)
        return FilterCondition(f"not ({equal.text})", equal.values)
    key = (field, "text")
    if isinstance(operand, str):
        kind, compared, other = "string", f'({column} ->> {{}}) collate "C"', (operand, "text")
    elif isinstance(operand, bool) or not isinstance(operand, int | float):
        raise _bad(
            f"`filter.{field[:100]}.{name}` compares with a number or a string.", f"/filter/{_escaped(field)}/{name}"
        )
    else:
        kind, compared, other = "number", f"{column} -> {{}}", _json(operand)
    return FilterCondition(
        f"(jsonb_typeof({column} -> {{}}) = '{kind}' and {compared} {ORDER[name]} {{}})", (key, key, other)
    )


def _equal(column: str, field: str, value: Any) -> FilterCondition:
    """A field that is not there is as one that is null."""
    return FilterCondition(f"coalesce({column} -> {{}}, 'null') = {{}}", ((field, "text"), _json(value)))


def _json(value: Any) -> tuple[str, str]:
    return msgspec.json.encode(value).decode(), "text::jsonb"


def _escaped(field: str) -> str:
    return field.replace("~", "~0").replace("/", "~1")


def _bad(detail: str, pointer: str) -> Invalid:
    return Invalid(detail, ((pointer, detail),))
