"""SQL of items: put, get, delete, list namespaces, delete expired items."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row

from app.features.store.structs import NamespaceSearch
from app.features.store.tables import store_items
from app.features.store.validation import ANY_LABEL, range_of
from app.infra.db.session import Reader, Writer

WORDS = "to_tsvector('simple', words) || array_to_tsvector(array['@' || tenant_id])"
EXPIRY = "now() + make_interval(secs => 60 * ttl_minutes)"
REPLACE = """item_id = excluded.item_id, value = excluded.value, index = excluded.index, words = excluded.words,
    version = excluded.version, ttl_minutes = excluded.ttl_minutes, expires_at = excluded.expires_at"""

PUT = f"""
with given as (
  select * from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::int[],
      $9::float8[])
    as g(tenant_id, namespace, key, item_id, value, index, words, version, ttl_minutes)
), put as (
  insert into store_items as i
    (tenant_id, namespace, key, item_id, value, index, words, version, ttl_minutes, expires_at)
  select tenant_id, namespace, key, item_id, value::jsonb, index::jsonb,
    {WORDS},
    version, ttl_minutes, {EXPIRY}
  from given order by tenant_id, namespace, key
  on conflict (tenant_id, namespace, key) do update set
    {REPLACE},
    created_at = case when i.expires_at <= now() then now() else i.created_at end, updated_at = now()
)
"""
"""A trigger deletes the vectors of a replaced item, which belong to its old ``item_id``."""


def insert_vectors(width: int, after: int, only: str = "") -> str:
    """Return a CTE that inserts vectors of ``width``; its parameters follow ``after`` others.

    ``only`` names a CTE of (tenant_id, item_id) that restricts them.
    """
    joined = f" join {only} using (tenant_id, item_id)" if only else ""
    one, two, three, four, five, six = (f"${after + number}" for number in range(1, 7))
    return f""", vectors_{width} as (
  insert into store_vectors_{width} (tenant_id, item_id, space, part, namespace, embedding)
  select tenant_id, item_id, space, part, namespace, embedding
  from unnest({one}::uuid[], {two}::uuid[], {three}::int[], {four}::smallint[], {five}::text[], {six}::halfvec[])
    as v(tenant_id, item_id, space, part, namespace, embedding){joined}
  on conflict do nothing
)"""


_GET = sa.text("""
with refreshed as (
  update store_items set expires_at = now() + make_interval(secs => 60 * ttl_minutes)
  where :refresh and tenant_id = :tenant and namespace = :namespace and key = :key and expires_at > now()
)
select namespace, key, value::text as value, created_at, updated_at from store_items
where tenant_id = :tenant and namespace = :namespace and key = :key and (expires_at is null or expires_at > now())
""")

REFRESH_TTL = """
update store_items set expires_at = now() + make_interval(secs => 60 * ttl_minutes)
where tenant_id = $1 and item_id = any($2::uuid[]) and expires_at > now()
"""
"""Restart the time to live of items."""


async def get(session: Writer, tenant_id: UUID, namespace: str, key: str, *, refresh: bool) -> Row[Any] | None:
    """Fetch one item. ``refresh`` restarts its time to live."""
    return await session.first(_GET, {"tenant": tenant_id, "namespace": namespace, "key": key, "refresh": refresh})


async def delete(session: Writer, tenant_id: UUID, namespace: str, key: str) -> None:
    """Delete an item if it exists."""
    await session.execute(
        sa.delete(store_items).where(
            store_items.c.tenant_id == tenant_id, store_items.c.namespace == namespace, store_items.c.key == key
        )
    )


_NAMESPACES = """
with recursive found(namespace) as (
  (select namespace from store_items where tenant_id = :tenant and namespace >= :first and namespace < :last
   order by namespace limit 1)
  union all
  select (
    select i.namespace from store_items i
    where i.tenant_id = :tenant and i.namespace > f.namespace and i.namespace < :last
    order by i.namespace limit 1)
  from found f where f.namespace is not null
), split as (
  select namespace, string_to_array(rtrim(namespace, '.'), '.') as labels from found where namespace is not null
)
select distinct array_to_string(labels[1:least(cardinality(labels), cast(:depth as int))], '.') collate "C" as namespace
from split s
where exists (
    select from store_items i
    where i.tenant_id = :tenant and i.namespace = s.namespace and (i.expires_at is null or i.expires_at > now()))
  and not exists (
    select from unnest(cast(:prefix as text[])) with ordinality as p(label, n)
    where p.label <> :any and p.label is distinct from labels[p.n])
  and cardinality(labels) >= greatest(cast(:prefix_length as int), cast(:suffix_length as int))
  and not exists (
    select from unnest(cast(:suffix as text[])) with ordinality as p(label, n)
    where p.label <> :any and p.label is distinct from labels[cardinality(labels) - cast(:suffix_length as int) + p.n])
order by namespace limit :limit offset :offset
"""
"""A loose index scan: jumps from one namespace to the next, however many items each of them has."""


async def namespaces(session: Reader, tenant_id: UUID, search: NamespaceSearch) -> list[str]:
    """List namespaces in order, their labels joined by dots."""
    prefix, suffix = search.prefix or [], search.suffix or []
    fixed = prefix[: prefix.index(ANY_LABEL)] if ANY_LABEL in prefix else prefix
    first, last = range_of("".join(f"{label}." for label in fixed))
    rows = await session.all(
        sa.text(_NAMESPACES),
        {
            "tenant": tenant_id,
            "first": first,
            "last": last,
            "prefix": prefix,
            "prefix_length": len(prefix),
            "suffix": suffix,
            "suffix_length": len(suffix),
            "any": ANY_LABEL,
            "depth": search.max_depth,
            "limit": search.limit,
            "offset": search.offset,
        },
    )
    return [row.namespace for row in rows]


DELETE_EXPIRED = """
with old as (
  select tenant_id, namespace, key from store_items where expires_at <= now()
  order by expires_at limit 1000 for update skip locked
)
delete from store_items i using old o
where i.tenant_id = o.tenant_id and i.namespace = o.namespace and i.key = o.key
"""
