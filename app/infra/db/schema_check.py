"""Whether a database holds the whole schema: every table, column, index, trigger, function and policy.

The revision alone does not tell: a restore that stopped half-way leaves the newest revision over missing tables.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

TRIGGERS = frozenset(
    {
        "documents_gone",
        "runs_birth",
        "runs_guard",
        "runs_record_delete",
        "runs_record_insert",
        "runs_record_update",
        "store_items_gone",
        "store_items_put",
        "webhooks_fill",
    }
)
"""The triggers that migrations make; SQLAlchemy's metadata does not know them. A test compares them."""

FUNCTIONS = frozenset(
    {
        "documents_forget_chunks",
        "runs_guard",
        "runs_record",
        "runs_unborn",
        "store_analyze",
        "store_forget_vectors",
        "store_matches",
        "store_shares",
        "webhooks_fill",
    }
)
"""The functions that migrations make; a test compares them."""

_CATALOGUE = sa.text(
    """
select 'column ' || c.relname || '.' || a.attname
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
union all
select 'index ' || c.relname from pg_class c join pg_index i on i.indexrelid = c.oid and i.indisvalid
where c.relnamespace = 'public'::regnamespace
union all
select 'policies of ' || c.relname from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relrowsecurity and c.relforcerowsecurity
  and exists (select from pg_policy p where p.polrelid = c.oid)
union all
select 'trigger ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
where not t.tgisinternal and c.relnamespace = 'public'::regnamespace
union all
select 'function ' || p.proname from pg_proc p where p.pronamespace = 'public'::regnamespace
"""
)


async def missing_parts(connection: AsyncConnection, metadata: sa.MetaData) -> list[str]:
    """Name what the database lacks of ``metadata`` and of what migrations make beside it, in a stable order.

    Each is one of ``table NAME``, ``column TABLE.NAME``, ``index NAME``, ``policies of TABLE``, ``trigger NAME`` and
    ``function NAME``. A missing table is named without its columns and indexes.
    """
    found = set((await connection.execute(_CATALOGUE)).scalars())
    tables = {name.removeprefix("column ").partition(".")[0] for name in found if name.startswith("column ")}
    missing = [f"table {table.name}" for table in metadata.sorted_tables if table.name not in tables]
    for table in metadata.sorted_tables:
        if table.name in tables:
            missing += [part for part in _parts_of(table) if part not in found]
    others = {f"trigger {name}" for name in TRIGGERS} | {f"function {name}" for name in FUNCTIONS}
    return [*missing, *sorted(others - found)]


def _parts_of(table: sa.Table) -> list[str]:
    columns: list[Any] = list(table.columns)
    parts = [f"column {table.name}.{column.name}" for column in columns]
    parts += [f"index {index.name}" for index in sorted(table.indexes, key=lambda index: str(index.name))]
    if "tenant_id" in table.columns:
        parts.append(f"policies of {table.name}")
    return parts
