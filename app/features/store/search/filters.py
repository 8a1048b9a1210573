"""Compile the ``filter`` of a search to SQL conditions on an item aliased ``i``."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.base.errors import Invalid

MAX_CONDITIONS = 32
MAX_FILTER_BYTES = 100_000

ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
OPERATORS = ("$eq", "$ne", *ORDER)


class FilterCondition(msgspec.Struct, frozen=True):
    """A condition in SQL, with ``{}`` for each parameter in ``values``: (value, type)."""

    text: str
    values: tuple[tuple[Any, str], ...] = ()


def conditions_of(filter_: Mapping[str, Any] | None, column: str = "i.value") -> list[FilterCondition]:
    """Return the conditions on the JSON in ``column``. Raises ``Invalid`` if an operator or an operand is invalid."""
    if not filter_:
        return []
    if len(msgspec.json.encode(filter_)) > MAX_FILTER_BYTES:
        raise Invalid.at(f"`filter` is larger than {MAX_FILTER_BYTES} bytes.", "/filter")
    found: list[FilterCondition] = []
    for field, value in filter_.items():
        if isinstance(value, dict) and any(name.startswith("$") for name in value):
            found += [_comparison(column, field, name, operand) for name, operand in value.items()]
        else:
            found.append(_equal(column, field, value))
    if len(found) > MAX_CONDITIONS:
        raise Invalid.at(f"`filter` has more than {MAX_CONDITIONS} conditions.", "/filter")
    return found


def _comparison(column: str, field: str, name: str, operand: Any) -> FilterCondition:
    if name not in OPERATORS:
        raise Invalid.at(
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
        kind, left, right = "string", f'({column} ->> {{}}) collate "C"', (operand, "text")
    elif isinstance(operand, bool) or not isinstance(operand, int | float):
        raise Invalid.at(
            f"`filter.{field[:100]}.{name}` compares with a number or a string.", f"/filter/{_escaped(field)}/{name}"
        )
    else:
        kind, left, right = "number", f"{column} -> {{}}", _json(operand)
    return FilterCondition(
        f"(jsonb_typeof({column} -> {{}}) = '{kind}' and {left} {ORDER[name]} {{}})", (key, key, right)
    )


def _equal(column: str, field: str, value: Any) -> FilterCondition:
    """A missing field equals null."""
    return FilterCondition(f"coalesce({column} -> {{}}, 'null') = {{}}", ((field, "text"), _json(value)))


def _json(value: Any) -> tuple[str, str]:
    return msgspec.json.encode(value).decode(), "text::jsonb"


def _escaped(field: str) -> str:
    return field.replace("~", "~0").replace("/", "~1")
