"""Fill every tenant table with a row, generated from the catalogue, so that later tables are covered."""

import json
from typing import Any
from uuid import UUID

import asyncpg

from app.base.ids import new_id

COLUMNS = """
select c.relname as table, a.attname as column, format_type(a.atttypid, a.atttypmod) as type,
  a.attnotnull and not a.atthasdef and a.attidentity = '' as needed
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
  and exists (select from pg_attribute t where t.attrelid = c.oid and t.attname = 'tenant_id')
order by c.relname, a.attnum
"""
IDS = ("thread_id", "run_id", "cron_id", "assistant_id", "item_id", "document_id")
STATUS = {"documents": "ready", "runs": "success", "threads": "idle", "webhook_deliveries": "delivered"}


async def tables(connection: asyncpg.Connection) -> list[str]:
    """Return every table with a tenant column."""
    return sorted({row["table"] for row in await connection.fetch(COLUMNS)})


async def fill(url: str, tenant_id: UUID, person: str) -> None:
    """Insert a thread, run, cron, assistant and item of ``person``, and a row for them in every other table."""
    connection = await asyncpg.connect(url)
    ids: dict[str, Any] = {name: new_id() for name in IDS}
    own = {"tenant_id": tenant_id, "user_id": person, "actor": person, "requested_by": person, **ids}
    try:
        await connection.execute("set session_replication_role = replica")
        by_table: dict[str, dict[str, str]] = {}
        needed = set()
        for row in await connection.fetch(COLUMNS):
            by_table.setdefault(row["table"], {})[row["column"]] = row["type"]
            if row["needed"]:
                needed.add((row["table"], row["column"]))
        for table, columns in by_table.items():
            values = {
                name: own.get(name, _value(table, name, of, person))
                for name, of in columns.items()
                if name in own or name == "metadata" or (table, name) in needed
            }
            if "cron_id" in values and table == "crons":
                values["thread_id"] = None
            names = ", ".join(f'"{name}"' for name in values)
            marks = ", ".join(f"${n}::text::{columns[name]}" if name not in own else f"${n}"
                              for n, name in enumerate(values, 1))  # fmt: skip
            await connection.execute(f"insert into {table} ({names}) values ({marks}) on conflict do nothing",
                                     *values.values())  # fmt: skip
    finally:
        await connection.close()


def _value(table: str, name: str, of: str, person: str) -> str:
    """Return a value of a type, as text."""
    if name == "status":
        return STATUS[table]
    if of.startswith("halfvec"):
        size = int(of[8:-1])
        return json.dumps([0.0] * (size - 1) + [1.0])
    if of == "jsonb":
        return json.dumps({"user_id": person} if name in {"metadata", "value"} else {})
    if of.endswith("[]"):
        return "{}"
    plain = {"uuid": str(new_id()), "bytea": "\\x7b7d", "date": "2026-01-01", "timestamp with time zone": "2026-01-01"}
    return plain.get(of, "1" if of in {"integer", "bigint", "smallint", "numeric"} else f"{person} {new_id()}")


async def counts(url: str, tenant_id: UUID) -> dict[str, int]:
    """Count the rows of a tenant by table."""
    connection = await asyncpg.connect(url)
    try:
        return {
            table: await connection.fetchval(f"select count(*) from {table} where tenant_id = $1", tenant_id)
            for table in await tables(connection)
        }
    finally:
        await connection.close()
