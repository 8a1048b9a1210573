"""Column lists and parameters of statements, derived from structs: a field that names a column of a table is stored
and read there.
"""

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

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
