"""SQL of limits: budgets, and what tenants store (whom to measure, the bytes of a page of rows, who is over quota).

A row counts with its own columns, as stored on disk (compressed values with their compressed size), without indexes.
Values stored out of line (TOAST) are counted by their size, without reading them, so a page costs no more than its
rows.
"""

import functools
from typing import NamedTuple

import sqlalchemy as sa

from app.infra.db.columns import sql_type
from app.infra.db.metadata import metadata

PAGE_ROWS = 2000

ROW_OVERHEAD = 28
"""Bytes of a row besides its columns: header and line pointer."""


class MeasuredTable(NamedTuple):
    """A table that counts as ``kind``; a tenant's rows are read along ``key``."""

    table: str
    kind: str
    key: tuple[str, ...]


BYTES = {
    "boolean": 1,
    "smallint": 2,
    "integer": 4,
    "bigint": 8,
    "double precision": 8,
    "timestamp with time zone": 8,
    "uuid": 16,
}
"""Bytes of values of fixed length, by type."""

WIDTHS = (384, 768, 1024, 1536, 3072)
"""Widths of the vector tables (a test compares them with ``app.features.store.tables``)."""

_MEASURED = (
    MeasuredTable("assistant_versions", "assistants", ("assistant_id", "version")),
    MeasuredTable("threads", "threads", ("created_at", "thread_id")),
    MeasuredTable("runs", "runs", ("thread_id", "ordinal")),
    MeasuredTable("steps", "runs", ("run_id", "step")),
    MeasuredTable("tool_intents", "runs", ("run_id", "call_id")),
    MeasuredTable("questions", "runs", ("thread_id", "question_id")),
    MeasuredTable("events", "events", ("run_id", "epoch", "seq")),
    MeasuredTable("checkpoints", "checkpoints", ("thread_id", "checkpoint_id")),
    MeasuredTable("checkpoint_items", "checkpoints", ("thread_id", "number")),
    MeasuredTable("store_items", "store", ("namespace", "key")),
    *(MeasuredTable(f"store_vectors_{width}", "store", ("item_id", "space", "part")) for width in WIDTHS),
    MeasuredTable("documents", "documents", ("document_id",)),
    MeasuredTable("document_parts", "documents", ("document_id", "kind", "number")),
)

MEASURED = {one.table: one for one in _MEASURED}
"""Tables by name, in the order of measurement."""

KINDS = tuple(dict.fromkeys(one.kind for one in _MEASURED))


def sizes_of(table: str) -> tuple[int, list[str]]:
    """Return the bytes of a row's columns of fixed length, and the names of the others."""
    types = {column.name: sql_type(column) for column in metadata.tables[table].columns}
    return sum(BYTES.get(of, 0) for of in types.values()), [name for name, of in types.items() if of not in BYTES]


@functools.cache
def page_of(one: MeasuredTable, *, first: bool) -> str:
    """Return the statement that measures the first page of a tenant's (``$1``) rows, or the page after the key ``$2``
    (a JSON array).

    ``last`` is the key of the page's last row, null on the last page.
    """
    keys = ", ".join(f'"{name}"' for name in one.key)
    fixed, sized = sizes_of(one.table)
    sizes = " + ".join(f'coalesce(pg_column_size("{name}"), 0)' for name in sized)
    types = [sql_type(metadata.tables[one.table].c[name]) for name in one.key]
    collated = [' collate "C"' * (kind == "text" and one.table.startswith("store_")) for kind in types]
    after = ", ".join(
        f"($2::jsonb ->> {n})::{kind}{collation}"
        for n, (kind, collation) in enumerate(zip(types, collated, strict=True))
    )
    onward = "" if first else f" and ({keys}) > ({after})"
    return f"""
select coalesce(sum(bytes), 0)::bigint as bytes,
  max(jsonb_build_array({keys})::text) filter (where n = {PAGE_ROWS}) as last
from (
  select {keys}, {ROW_OVERHEAD + fixed} + {sizes} as bytes, row_number() over (order by {keys}) as n
  from {one.table} where tenant_id = $1{onward} order by {keys} limit {PAGE_ROWS}
) as page
"""


OWN_LIMIT = "(t.limits ->> 'bytes')::numeric::bigint"
LIMIT = f"coalesce({OWN_LIMIT}, $1::bigint)"
"""A tenant's limit, 0: unlimited. ``$1`` is the limit of the settings."""


def _tenants_in(table: str) -> str:
    """The tenants with rows in ``table``, each found by one index lookup (a loose index scan)."""
    return f"""
(with recursive found(tenant_id) as (
  (select tenant_id from {table} order by tenant_id limit 1)
  union all
  select (select x.tenant_id from {table} x where x.tenant_id > f.tenant_id order by x.tenant_id limit 1)
  from found f where f.tenant_id is not null
) select tenant_id from found where tenant_id is not null)"""


ADD_OWN = f"""
insert into storage_usage (tenant_id)
select t.tenant_id from tenants t
where {OWN_LIMIT} > 0 and not exists (select from storage_usage u where u.tenant_id = t.tenant_id)
on conflict do nothing
"""
"""Adds tenants with a limit of their own."""

ADD_ALL = f"""
insert into storage_usage (tenant_id)
select s.tenant_id from ({" union ".join(map(_tenants_in, ("threads", "store_items", "documents", "assistants")))}) s
left join tenants t using (tenant_id)
where {LIMIT} > 0 and not exists (select from storage_usage u where u.tenant_id = s.tenant_id)
on conflict do nothing
"""
"""Adds all tenants that store something, if the settings have a limit."""

DROP_UNLIMITED = f"""
delete from storage_usage u
where coalesce((select {OWN_LIMIT} from tenants t where t.tenant_id = u.tenant_id), $1::bigint) = 0
"""

COMPARE = f"""
update storage_usage u set share = u.bytes / s.max_bytes::float8
from (select v.tenant_id, {LIMIT} as max_bytes from storage_usage v left join tenants t using (tenant_id)) s
where s.tenant_id = u.tenant_id and s.max_bytes > 0 and u.share <> u.bytes / s.max_bytes::float8
"""
"""Applies limits that were changed since the measurement."""

ALONG_KEYS = "set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off"
"""Forces an index scan: PostgreSQL estimates a tenant's size from statistics that may be wrong."""

LOCK = "select pg_try_advisory_xact_lock(hashtextextended('storage usage', 0))"
"""One process measures at a time."""

CLAIM = """
update storage_usage set next_at = now() + make_interval(secs => $1)
where tenant_id = (select tenant_id from storage_usage where next_at <= now() order by next_at limit 1)
returning tenant_id, walk::text as walk
"""
"""Claims the tenant that has waited longest; if its measurement fails, the others come first."""

CONTINUE = "update storage_usage set walk = $2::jsonb, next_at = now() where tenant_id = $1"

FINISH = """
update storage_usage set bytes = $2::bigint, by_kind = $3::jsonb, measured_at = now(), walk = null,
  next_at = now() + make_interval(secs => $4), share = coalesce($2::bigint / nullif(
    coalesce((select (t.limits ->> 'bytes')::numeric::bigint from tenants t where t.tenant_id = $1), $5::bigint), 0
  )::float8, 0)
where tenant_id = $1
"""

FULL = f"""
select u.tenant_id, u.bytes, {LIMIT} as max_bytes from storage_usage u left join tenants t using (tenant_id)
where u.share >= 1
"""

FULLEST = "select coalesce(max(share), 0) from storage_usage"

NEARLY_FULL = f"""
select coalesce(t.name, u.tenant_id::text) as name, u.bytes, {LIMIT} as max_bytes
from storage_usage u left join tenants t using (tenant_id)
where u.share > 0.9 order by u.share desc limit 20
"""
"""Tenants above 90 % of their limit, the highest first (``agent-service doctor``)."""

RESERVE = """
insert into spending as s (tenant_id, day, reserved) select $1, $2, $3::numeric where $3::numeric <= $4::numeric
on conflict (tenant_id, day) do update set reserved = s.reserved + $3
where s.spent + s.reserved + $3 <= $4
returning ((s.spent + s.reserved) / $4)::float8
"""
"""Reserves ``$3`` dollars if the day's total stays within ``$4``; returns the used fraction of ``$4``."""

SPEND = """
insert into spending as s (tenant_id, day, reserved, spent, tokens)
select * from unnest($1::uuid[], $2::date[], $3::numeric[], $4::numeric[], $5::bigint[]) order by 1, 2
on conflict (tenant_id, day) do update
set reserved = greatest(s.reserved + excluded.reserved, 0), spent = s.spent + excluded.spent,
  tokens = s.tokens + excluded.tokens
"""

COUNT_USAGE = """
insert into usage_by_day as u (
  tenant_id, day, agent, requested_by, model, runs, failed, input_tokens, output_tokens, spent)
select * from unnest(
  $1::uuid[], $2::date[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
  $10::numeric[])
order by 1, 2, 3, 4, 5
on conflict (tenant_id, day, agent, requested_by, model) do update
set runs = u.runs + excluded.runs, failed = u.failed + excluded.failed,
  input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
  spent = u.spent + excluded.spent
"""
"""In the order of the key, as all processes write: in another one two could wait for each other."""

SPENT = "select (spent + reserved)::float8 from spending where tenant_id = $1 and day = $2"

TENANT_LIMITS = sa.text("select limits::text from tenants where tenant_id = :tenant")

LOCK_ADMISSION = "select pg_advisory_xact_lock(hashtextextended('runs of ' || $1::uuid, 0))"
"""One process at a time accepts runs of a tenant with a limit on runs."""

ACTIVE_RUNS = """
select count(*) as runs, count(*) filter (where status = 'pending') as queued
from runs where tenant_id = $1 and status in ('pending', 'running')
"""
