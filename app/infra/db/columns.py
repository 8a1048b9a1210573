"""Column lists and parameters of statements, and structs of rows: a field is stored in the column of its name."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects import postgresql

T = TypeVar("T", bound=msgspec.Struct)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def stored_fields(struct: type[msgspec.Struct], table: sa.Table) -> tuple[str, ...]:
    """Return the fields of ``struct`` that are columns of ``table``, in their order."""
    return tuple(name for name in struct.__struct_fields__ if name in table.c)


def sql_type(column: sa.Column[object]) -> str:
    """Return the SQL type of ``column``, as in ``uuid``."""
    return column.type.compile(dialect=_DIALECT).lower()


def select_list(table: sa.Table, names: Sequence[str], alias: str, **expressions: str) -> str:
    """Return the select list of the columns ``names``, or of the ``expressions`` for them; JSON is read as text."""
    return ", ".join(
        f"{expressions[name]} as {name}"
        if name in expressions
        else f"{alias}.{name}::text as {name}"
        if sql_type(table.c[name]) == "jsonb"
        else f"{alias}.{name}"
        for name in names
    )


def from_row(struct: type[T], row: Row[Any], **fields: Any) -> T:
    """Return a struct with the columns of ``row`` that have the names of its fields, and with ``fields``."""
    columns = row._mapping  # noqa: SLF001  public by documentation
    for name in struct.__struct_fields__:
        if name not in fields and name in columns:
            fields[name] = columns[name]
    return struct(**fields)
