"""The ``filter`` of a search → SQL."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.base.errors import Invalid
from app.store.tables import store_items

MOST = 32
"""Conditions of one filter."""

LONGEST = 100_000
"""Bytes of a filter."""

Condition = sa.ColumnElement[bool]

ORDER: dict[str, Callable[[Any, Any], Condition]] = {
    "$gt": lambda left, right: left > right,
    "$gte": lambda left, right: left >= right,
    "$lt": lambda left, right: left < right,
    "$lte": lambda left, right: left <= right,
}
OPERATORS = ("$eq", "$ne", *ORDER)


def conditions_of(
    wanted: Mapping[str, Any] | None, column: sa.ColumnElement[Any] = store_items.c.value
) -> list[Condition]:
    """What the JSON in ``column`` must fulfil. Raises ``Invalid`` for an operator or an operand that there is not."""
    if not wanted:
        return []
    if len(msgspec.json.encode(wanted)) > LONGEST:
        raise _bad(f"`filter` is larger than {LONGEST} bytes.", "/filter")
    found: list[Condition] = []
    for field, value in wanted.items():
        if isinstance(value, dict) and any(name.startswith("$") for name in value):
            found += [_compared(column, field, name, operand) for name, operand in value.items()]
        else:
            found.append(_equal(column[field], value))
    if len(found) > MOST:
        raise _bad(f"`filter` has more than {MOST} conditions.", "/filter")
    return found


def _compared(whole: sa.ColumnElement[Any], field: str, name: str, operand: Any) -> Condition:
    column = whole[field]
    if name not in OPERATORS:
        raise _bad(
            f"`filter.{field[:100]}` has the unknown operator {name[:100]!r}: use {', '.join(OPERATORS)}.",
            f"/filter/{_escaped(field)}",
        )
    if name == "$eq":
        return _equal(column, operand)
    if name == "$ne":
        return sa.not_(_equal(column, operand))
    if isinstance(operand, str):
        text = sa.collate(column.astext, "C")
        return sa.and_(sa.func.jsonb_typeof(column) == "string", ORDER[name](text, sa.literal(operand, sa.Text)))
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        raise _bad(
            f"`filter.{field[:100]}.{name}` compares with a number or a string.", f"/filter/{_escaped(field)}/{name}"
        )
    return sa.and_(sa.func.jsonb_typeof(column) == "number", ORDER[name](column, _json(operand)))


def _equal(column: sa.ColumnElement[Any], value: Any) -> Condition:
    """A field that is not there is as one that is null."""
    return sa.func.coalesce(column, _json(None)) == _json(value)


def _json(value: Any) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(msgspec.json.encode(value).decode(), sa.Text), JSONB)


def _escaped(field: str) -> str:
    return field.replace("~", "~0").replace("/", "~1")


def _bad(detail: str, pointer: str) -> Invalid:
    return Invalid(detail, ((pointer, detail),))
