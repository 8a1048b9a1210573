"""SQL of bulk import and export: staging tables, the merge of a batch, HNSW indexes, and the items of an export."""

from collections.abc import Sequence
from typing import Literal

from app.features.store.queries import EXPIRY, REPLACE, WORDS
from app.features.store.tables import WIDTHS

ConflictPolicy = Literal["keep", "replace", "fail"]
"""What to do with an item that exists already."""

STAGED_COLUMNS = {
    "namespace": "text",
    "key": "text",
    "item_id": "uuid",
    "value": "text",
    "index": "text",
    "words": "text",
    "version": "int",
    "ttl_minutes": "float8",
    "expires_at": "timestamptz",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
CREATE_STAGING = f"""
create temp table staged_items ({", ".join(f"{name} {kind}" for name, kind in STAGED_COLUMNS.items())})
  on commit delete rows;
{
    "".join(
        f"create temp table staged_{width} (item_id uuid, space int, part smallint, namespace text,"
        f" embedding halfvec({width})) on commit delete rows;"
        for width in WIDTHS
    )
}
"""
MERGE_SETTINGS = "set local enable_hashjoin = on; set local enable_seqscan = on; set local plan_cache_mode = auto"
"""Engine connections plan for a few rows by key; a batch is joined as a whole."""

FIRST_CONFLICT = """
select s.namespace, s.key from staged_items s join store_items i using (namespace, key)
where i.tenant_id = $1 and (i.expires_at is null or i.expires_at > now()) order by namespace, key limit 1
"""


def merge_staged(policy: ConflictPolicy, widths: Sequence[int]) -> str:
    """Move the staged items and vectors into the tables of tenant ``$1``.

    Expired items count as deleted. ``created_at`` stays that of the item that is replaced.
    """
    only = "" if policy == "replace" else "where i.expires_at <= now()"
    vectors = "".join(
        f""", vectors_{width} as (
  insert into store_vectors_{width} (tenant_id, item_id, space, part, namespace, embedding)
  select $1, v.item_id, v.space, v.part, v.namespace, v.embedding from staged_{width} v join put using (item_id)
)"""
        for width in widths
    )
    return f"""
with given as (select $1::uuid as tenant_id, * from staged_items), put as (
  insert into store_items as i (tenant_id, namespace, key, item_id, value, index, words, version, ttl_minutes,
    expires_at, created_at, updated_at)
  select tenant_id, namespace, key, item_id, value::jsonb, index::jsonb, {WORDS}, version, ttl_minutes,
    coalesce(expires_at, {EXPIRY}), coalesce(created_at, now()), coalesce(updated_at, now())
  from given order by namespace, key
  on conflict (tenant_id, namespace, key) do update set
    {REPLACE}, updated_at = excluded.updated_at,
    created_at = case when i.expires_at <= now() or excluded.created_at <> now()
      then excluded.created_at else i.created_at end
    {only}
  returning item_id, version, xmax = 0 as new
){vectors}
select count(*) filter (where new) as new, count(*) filter (where not new) as replaced,
  count(*) filter (where version = 0) as unembedded from put
"""


FIND_HNSW_INDEXES = """
select c.relname as name, pg_get_indexdef(i.indexrelid) as definition
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
join pg_class t on t.oid = i.indrelid
where a.amname = 'hnsw' and t.relname = any($1) and t.relnamespace = 'public'::regnamespace order by 1
"""
DROP_INDEX = "drop index concurrently "
INDEX_BUILD_SETTINGS = "set maintenance_work_mem = '512MB'"


def build_concurrently(definition: str) -> str:
    """Return the statement that builds an index without blocking writes."""
    return definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)


COUNT_ITEMS = """
select count(*) from store_items where tenant_id = $1 and namespace >= $2 and namespace < $3
  and (expires_at is null or expires_at > now())
"""
EXPORT_ITEMS = """
select namespace, key, item_id, value::text as value, index::text as index, ttl_minutes, expires_at, created_at,
  updated_at
from store_items where tenant_id = $1 and namespace >= $2 and namespace < $3
  and (expires_at is null or expires_at > now())
order by namespace, key
"""


def export_vectors(width: int) -> str:
    """Vectors of the items ``$4`` in space ``$2``, cut to ``$3`` dimensions."""
    return (
        f"select item_id, subvector(embedding, 1, $3)::text as numbers from store_vectors_{width}"
        " where tenant_id = $1 and space = $2 and item_id = any($4) order by item_id, part"
    )
