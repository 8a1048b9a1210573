"""SQL of a tenant's and of a person's data, over whatever tables the database has.

``$1`` is the tenant, ``$2`` the metadata that name a person, ``$3`` their fields, ``$4`` places of the store.
"""

from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from app.features.data_rights.structs import DataSubject

Column = Literal["thread_id", "run_id", "cron_id", "assistant_id", "item_id", "document_id"]

ERASER = "agent_eraser"
"""The role for the transitions of runs: the server's own roles may delete none that are younger than a day."""
ROLES = (ERASER, "agent_app", "agent_engine")
"""Who may delete, the first that may."""

OF_TENANT = {"tenants", "spending", "storage_usage"}
"""Tables that say nothing of one person; every other one has a column that leads to somebody."""

TABLES = """
select c.relname as name,
  array(select a.attname::text from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as columns,
  array(select format_type(a.atttypid, null) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as types,
  array(select a.attname::text from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
        where i.indrelid = c.oid and i.indisprimary) as key,
  array(select p.relname::text from pg_constraint f join pg_class p on p.oid = f.confrelid
        where f.conrelid = c.oid and f.contype = 'f') as parents,
  (select r from unnest($1::text[]) with ordinality as u(r, n)
   where exists (select from pg_roles where rolname = r) and has_table_privilege(r, c.oid, 'delete')
   order by n limit 1) as eraser
from pg_class c
where c.relkind in ('r', 'p') and not c.relispartition and pg_table_is_visible(c.oid)
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
order by c.relname
"""

_THREADS = """
  select t.thread_id from threads t where t.tenant_id = $1 and (t.metadata @> $2 or not t.metadata ?| $3
    and exists (select from runs r where r.tenant_id = $1 and r.thread_id = t.thread_id and r.metadata @> $2)
    and not exists (select from runs r where r.tenant_id = $1 and r.thread_id = t.thread_id and not r.metadata @> $2))
"""
"""A person's threads say so; one that says nothing is theirs when every run on it is (stateless runs)."""

_ASSISTANTS = "select a.assistant_id from assistants a where a.tenant_id = $1 and a.metadata @> $2"

THEIRS: dict[Column, str] = {
    "thread_id": _THREADS,
    "run_id": f"""
  select r.run_id from runs r where r.tenant_id = $1 and (r.metadata @> $2 or r.thread_id in ({_THREADS}))
""",
    "cron_id": f"""
  select c.cron_id from crons c where c.tenant_id = $1
    and (c.metadata @> $2 or c.thread_id in ({_THREADS}) or c.assistant_id in ({_ASSISTANTS}))
""",
    "assistant_id": _ASSISTANTS,
    "item_id": """
  select i.item_id from store_items i where i.tenant_id = $1
    and (i.value @> $2 or exists (select from unnest($4::text[]) p where starts_with(i.namespace, p))
      or exists (select from documents d where d.tenant_id = $1 and d.namespace = i.namespace and d.metadata @> $2))
""",
    "document_id": "select d.document_id from documents d where d.tenant_id = $1 and d.metadata @> $2",
}
"""What belongs to the person, by the column that names it in other tables."""

ROOTS: dict[Column, str] = {
    "thread_id": "threads",
    "run_id": "runs",
    "cron_id": "crons",
    "assistant_id": "assistants",
    "item_id": "store_items",
    "document_id": "documents",
}
_EVERY = "x.tenant_id = $1 and $2::jsonb is not null and $3::text[] is not null and $4::text[] is not null"
_OWN = {
    "assistant_versions": "x.metadata @> $2",
    "api_keys": "x.user_id = $2::jsonb ->> 'user_id'",
    "audit_log": "$2::jsonb ->> 'user_id' in (x.actor, x.subject)",
}
"""What a table says itself of the person."""


class TenantTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table with rows of tenants. ``eraser`` is the role that may delete them; none: nobody may."""

    name: str
    columns: list[str]
    types: list[str]
    key: list[str]
    parents: list[str]
    eraser: str | None

    @property
    def owners(self) -> list[Column]:
        """The columns that say what a row belongs to: of the key, else all; a run's row is also its thread's."""
        named: list[Column] = [column for column in ROOTS if column in self.columns]
        of_key = [column for column in named if column in self.key]
        if "run_id" in of_key and "thread_id" in named:
            of_key.append("thread_id")
        return of_key or named

    def belongs(self, data_subject: DataSubject) -> str:
        """The condition on a row ``x`` that is theirs."""
        if data_subject.whole:
            return _EVERY
        conditions = [f"x.{column} in ({THEIRS[column]})" for column in self.owners]
        if self.name in _OWN:
            conditions.append(_OWN[self.name])
        return f"{_EVERY} and ({' or '.join(conditions) or 'false'})"

    def lost(self) -> str:
        """The condition on a row ``x`` of the tenant whose thread, run or whatever it belongs to is not there."""
        unowned = [
            f"not exists (select from {ROOTS[column]} o where o.tenant_id = $1 and o.{column} = x.{column})"
            for column in self.owners
            if ROOTS[column] != self.name
        ]
        return f"{_EVERY} and ({' or '.join(unowned)})" if unowned else _EVERY

    def delete(self, condition: str, limit: int) -> str:
        """Remove up to ``limit`` rows ``x`` that fulfil ``condition``."""
        return f"delete from {self.name} where tenant_id = $1 and ctid = any(array({self.find(condition, limit)}))"

    def find(self, condition: str, limit: int) -> str:
        """Where up to ``limit`` rows ``x`` lie: only who sees the other tables can tell."""
        return f"select x.ctid from {self.name} x where {condition} limit {limit}"

    def delete_at(self) -> str:
        """Remove the rows at the places ``$2``, by a role that sees this table alone. There rows never move."""
        return f"delete from {self.name} where tenant_id = $1 and ctid = any($2::tid[])"

    def delete_of(self, column: Column) -> str:
        """Remove the rows of ``$1``'s things ``$2``."""
        return f"delete from {self.name} where tenant_id = $1 and {column} = any($2::uuid[])"

    def select(self, data_subject: DataSubject, columns: str) -> str:
        """``columns`` of the rows that are theirs."""
        return f"select {columns} from {self.name} x where {self.belongs(data_subject)}"

    def count(self, data_subject: DataSubject) -> str:
        """How many rows are theirs."""
        return self.select(data_subject, "count(*)")


LIVE = "select x.run_id from runs x where x.status in ('pending', 'running') and <theirs> limit 1000"
HUSH = "update runs set webhook = null where tenant_id = $1 and run_id = any($2::uuid[]) and webhook is not null"
"""A run that is stopped to be deleted tells nobody of it."""

FREE_THREADS = """
select x.thread_id, x.created_at, x.last_number from threads x
where x.live_run is null and (x.created_at, x.thread_id) > ($5, $6) and <theirs>
order by x.created_at, x.thread_id limit 100 for update skip locked
"""
RUNS_OF = "select run_id from runs where tenant_id = $1 and thread_id = any($2::uuid[])"
ENDED_RUNS = """
select x.run_id from runs x where x.status not in ('pending', 'running') and <theirs> limit 500 for update skip locked
"""
BATCH = "select x.<column> from <root> x where <theirs> limit 500 for update skip locked"

ANSWERS = """
select route, key, answer from idempotency_keys
where tenant_id = $1 and run_id = '00000000-0000-0000-0000-000000000000' and answer is not null
  and (route, key) > ($2, $3)
order by route, key limit 200
"""
"""Those that made no single run."""

FORGET_ANSWERS = """
delete from idempotency_keys where tenant_id = $1 and (route, key) in (select * from unnest($2::text[], $3::text[]))
"""
STILL_THERE = "select <column> from <root> where tenant_id = $1 and <column> = any($2::uuid[])"


def of(statement: str, table: TenantTable, data_subject: DataSubject) -> str:
    """``statement`` over the rows of ``table`` that are theirs."""
    return statement.replace("<theirs>", table.belongs(data_subject)).replace("<root>", table.name)


async def tables(connection: asyncpg.Connection) -> list[TenantTable]:
    """All tables with rows of tenants, what refers to others before what it refers to."""
    found = [TenantTable(**row) for row in await connection.fetch(TABLES, list(ROLES))]
    placed: list[TenantTable] = []
    while waiting := [table for table in found if table not in placed]:
        ready = [one for one in waiting if not any(one.name in o.parents for o in waiting if o is not one)]
        placed += ready or waiting
    # the database removes vectors with their item, and notes that a run was removed
    last = ["store_items", "documents", "runs", "run_transitions", "threads", "tenants"]
    return sorted(placed, key=lambda table: last.index(table.name) if table.name in last else -1)


async def still_there(connection: asyncpg.Connection, tenant_id: UUID, column: Column, ids: list[UUID]) -> set[UUID]:
    """Those of ``ids`` that are."""
    statement = STILL_THERE.replace("<column>", column).replace("<root>", ROOTS[column])
    return {row[0] for row in await connection.fetch(statement, tenant_id, ids)}
