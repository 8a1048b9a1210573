"""SQL of index versions and of the backfill of vectors."""

REGISTERED_VERSIONS = """
select version, fingerprint, indexes::text as indexes, serving_since is not null as serving from store_versions
"""
ANY_VERSION = "select exists (select from store_versions)"
REGISTER_VERSION = """
insert into store_versions (fingerprint, indexes, serving_since)
select $1, $2::jsonb, case when not exists (select from store_versions) then now() end
on conflict (fingerprint) do nothing
"""
DELETE_NEWER_VERSIONS = "delete from store_versions where version > $1"
DELETE_VERSION = "delete from store_versions where version = $1"
DELETE_OLDER_VERSIONS = "delete from store_versions where version < $1"

HALFVEC_SCHEMA = """
select n.nspname from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typname = 'halfvec'
"""
TRY_LOCK = "select pg_try_advisory_lock($1)"
UNLOCK = "select pg_advisory_unlock($1)"

OUTDATED_ITEMS = """
select tenant_id, item_id, namespace, value::text as value, index::text as index
from store_items where version < $1 order by version limit $2
"""
UPDATE_INDEXED = """
with done as (
  update store_items i set version = $4,
    words = to_tsvector('simple', g.words) || array_to_tsvector(array['@' || i.tenant_id])
  from unnest($1::uuid[], $2::uuid[], $3::text[]) as g(tenant_id, item_id, words)
  where i.tenant_id = g.tenant_id and i.item_id = g.item_id
  returning i.tenant_id, i.item_id
)
"""
"""Followed by ``insert_vectors`` for the rows of ``done``: an item deleted in the meantime gets no vectors."""

SERVE_VERSION = """
update store_versions set serving_since = now()
where version = $1 and serving_since is null and created_at < now() - make_interval(secs => $2)
  and not exists (select from store_items where version < $1)
"""
SETTLED_VERSION = "select max(version) from store_versions where serving_since < now() - make_interval(secs => $1)"
HAS_OLDER_VERSION = "select min(version) < $1 from store_versions"


def delete_old_vectors(width: int) -> str:
    """Delete up to 5,000 vectors of spaces before ``$1``."""
    return (
        f"delete from store_vectors_{width} where ctid = any(array("
        f"select ctid from store_vectors_{width} where space < $1 limit 5000))"
    )
