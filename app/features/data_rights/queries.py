"""SQL to find and delete the data of a tenant or a person, in all tables with a tenant column.

``$1``: tenant; ``$2``: metadata that identify the person; ``$3``: their fields; ``$4``: store namespaces.
"""

from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from app.features.data_rights.structs import DataSubject

Column = Literal["thread_id", "run_id", "cron_id", "assistant_id", "item_id", "document_id"]

ERASER = "agent_eraser"
"""The role that deletes run transitions: the server's own roles may not delete recent ones."""
ROLES = (ERASER, "agent_app", "agent_engine")
"""Roles to delete with; the first with the privilege is used."""

OF_TENANT = {"tenants", "spending", "storage_usage"}
"""Tables without personal data; every other table has a column that leads to a person."""

SESSION_USER = "select session_user"
MAY_SET_ROLE = "select pg_has_role($1, $2, 'set')"

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
"""A person's threads: by their metadata, or, for threads without such metadata, if every run on it matches."""

_ASSISTANTS = "select a.assistant_id from assistants a where a.tenant_id = $1 and a.metadata @> $2"

OWNED_IDS: dict[Column, str] = {
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
"""Queries of the ids that belong to the person, by the column that refers to them in other tables."""

ROOTS: dict[Column, str] = {
    "thread_id": "threads",
    "run_id": "runs",
    "cron_id": "crons",
    "assistant_id": "assistants",
    "item_id": "store_items",
    "document_id": "documents",
}
_WHOLE_TENANT = "x.tenant_id = $1 and $2::jsonb is not null and $3::text[] is not null and $4::text[] is not null"
_OWN = {
    "assistant_versions": "x.metadata @> $2",
    "api_keys": "x.user_id = $2::jsonb ->> 'user_id'",
    "mcp_accounts": "x.user_id = $2::jsonb ->> 'user_id'",
    "audit_log": "$2::jsonb ->> 'user_id' in (x.actor, x.subject)",
    "usage_by_day": "x.requested_by = $2::jsonb ->> 'user_id'",
}
"""Conditions on columns of a table's own that identify the person."""


class TenantTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table with a tenant column. ``eraser``: the role that may delete its rows; None if no role may."""

    name: str
    columns: list[str]
    types: list[str]
    key: list[str]
    parents: list[str]
    eraser: str | None

    @property
    def owners(self) -> list[Column]:
        """Return the columns that refer to owners: those of the key, else all; a run's row is also its thread's."""
        references: list[Column] = [column for column in ROOTS if column in self.columns]
        of_key = [column for column in references if column in self.key]
        if "run_id" in of_key and "thread_id" in references:
            of_key.append("thread_id")
        return of_key or references

    def belongs(self, data_subject: DataSubject) -> str:
        """Return the condition that a row ``x`` belongs to the data subject."""
        if data_subject.whole:
            return _WHOLE_TENANT
        conditions = [f"x.{column} in ({OWNED_IDS[column]})" for column in self.owners]
        if self.name in _OWN:
            conditions.append(_OWN[self.name])
        return f"{_WHOLE_TENANT} and ({' or '.join(conditions) or 'false'})"

    def orphaned(self) -> str:
        """Return the condition that an owner of a row ``x`` of the tenant is deleted."""
        unowned = [
            f"not exists (select from {ROOTS[column]} o where o.tenant_id = $1 and o.{column} = x.{column})"
            for column in self.owners
            if ROOTS[column] != self.name
        ]
        return f"{_WHOLE_TENANT} and ({' or '.join(unowned)})" if unowned else _WHOLE_TENANT

    def delete(self, condition: str, limit: int) -> str:
        """Return the statement that deletes up to ``limit`` rows ``x`` that match ``condition``."""
        return f"delete from {self.name} where tenant_id = $1 and ctid = any(array({self.find(condition, limit)}))"

    def find(self, condition: str, limit: int) -> str:
        """Return the query of up to ``limit`` ctids, for roles that may read the tables of the condition."""
        return f"select x.ctid from {self.name} x where {condition} limit {limit}"

    def delete_at(self) -> str:
        """Return the statement that deletes the ctids ``$2``, for a role that reads this table only.

        Rows of such tables are never updated, so their ctids are stable.
        """
        return f"delete from {self.name} where tenant_id = $1 and ctid = any($2::tid[])"

    def delete_of(self, column: Column) -> str:
        """Return the statement that deletes the rows of the tenant ``$1`` that refer to the ids ``$2``."""
        return f"delete from {self.name} where tenant_id = $1 and {column} = any($2::uuid[])"

    def select(self, data_subject: DataSubject, columns: str) -> str:
        """Return the query of ``columns`` of the data subject's rows."""
        return f"select {columns} from {self.name} x where {self.belongs(data_subject)}"

    def count(self, data_subject: DataSubject) -> str:
        """Return the query of the number of the data subject's rows."""
        return self.select(data_subject, "count(*)")


LIVE_RUNS = "select x.run_id from runs x where x.status in ('pending', 'running') and <owned> limit 1000"
DROP_WEBHOOKS = """
update runs set webhook = null where tenant_id = $1 and run_id = any($2::uuid[]) and webhook is not null
"""
"""A run that is cancelled to be erased sends no webhook."""

IDLE_THREADS = """
select x.thread_id, x.created_at, x.last_number from threads x
where x.live_run is null and (x.created_at, x.thread_id) > ($5, $6) and <owned>
order by x.created_at, x.thread_id limit 100 for update skip locked
"""
RUNS_OF = "select run_id from runs where tenant_id = $1 and thread_id = any($2::uuid[])"
ENDED_RUNS = """
select x.run_id from runs x where x.status not in ('pending', 'running') and <owned> limit 500 for update skip locked
"""
BATCH = "select x.<column> from <root> x where <owned> limit 500 for update skip locked"

RESPONSES = """
select route, key, answer from idempotency_keys
where tenant_id = $1 and run_id = '00000000-0000-0000-0000-000000000000' and answer is not null
  and (route, key) > ($2, $3)
order by route, key limit 200
"""
"""Stored responses of requests that did not create a single run."""

DELETE_RESPONSES = """
delete from idempotency_keys where tenant_id = $1 and (route, key) in (select * from unnest($2::text[], $3::text[]))
"""
EXISTING_IDS = "select <column> from <root> where tenant_id = $1 and <column> = any($2::uuid[])"


def set_role(role: str) -> str:
    """Return the statement that switches to ``role`` until the transaction ends."""
    return f"set local role {role}"


def for_subject(statement: str, table: TenantTable, data_subject: DataSubject) -> str:
    """Return ``statement`` restricted to the data subject's rows of ``table``."""
    return statement.replace("<owned>", table.belongs(data_subject)).replace("<root>", table.name)


async def tables(connection: asyncpg.Connection) -> list[TenantTable]:
    """Return all tables with a tenant column, referencing tables before referenced ones."""
    found = [TenantTable(**row) for row in await connection.fetch(TABLES, list(ROLES))]
    placed: list[TenantTable] = []
    while waiting := [table for table in found if table not in placed]:
        ready = [one for one in waiting if not any(one.name in o.parents for o in waiting if o is not one)]
        placed += ready or waiting
    # triggers delete vectors with their item and record the deletion of a run
    last = ["store_items", "documents", "runs", "run_transitions", "threads", "tenants"]
    return sorted(placed, key=lambda table: last.index(table.name) if table.name in last else -1)


async def existing_ids(connection: asyncpg.Connection, tenant_id: UUID, column: Column, ids: list[UUID]) -> set[UUID]:
    """Return those of ``ids`` that exist."""
    statement = EXISTING_IDS.replace("<column>", column).replace("<root>", ROOTS[column])
    return {row[0] for row in await connection.fetch(statement, tenant_id, ids)}
