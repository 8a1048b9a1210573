"""Searches of the store keep their plans: functions read the index of words, and an index finds the newest items.

``store_words`` stays for processes of the version before, which run while this is applied.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CURRENT_TENANT = "nullif(current_setting('app.tenant', true), '')::uuid"

READING = """language plpgsql stable security definer set search_path = public, pg_temp
  set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_bitmapscan = on set enable_sort = on
  set effective_io_concurrency = 0"""

MATCHES = f"""
create function store_matches(
  asked text[], every boolean, first text, last text, mostly boolean, hits_at integer, looked_at integer, most integer)
returns table (item_id uuid, rank real, "full" boolean)
{READING}
as $$
declare
  all_of tsquery := plainto_tsquery('simple', array_to_string(asked, ' '));
  any_of tsquery := replace(all_of::text, ' & ', ' | ')::tsquery;
  wanted tsquery := case when every then all_of else any_of end;
  tenant uuid := {CURRENT_TENANT};
  own tsquery := ('''@' || tenant || '''')::tsquery;
begin
  if numnode(all_of) = 0 or tenant is null then
    return;
  end if;
  if mostly then
    return query
      select m.item_id, m.rank, false from (
        select h.item_id, h.rank, h.mine, count(*) over () as hits from (
          select i.item_id, ts_rank(i.words, any_of, 1) as rank,
            i.tenant_id = tenant and i.namespace >= first and i.namespace < last as mine
          from store_items i where i.words @@ wanted limit 2 * looked_at
        ) h
      ) m where m.mine and m.hits < 2 * looked_at order by 2 desc, 1 desc limit most;
    if found then
      return;
    end if;
  end if;
  return query
    with hits as materialized (
      select i.tenant_id, i.namespace, i.item_id, i.words from store_items i where i.words @@ (own && wanted)
    ), seen as materialized (
      select h.namespace, h.item_id, h.words from hits h where h.tenant_id = tenant limit hits_at
    ), mine as materialized (
      select s.item_id, s.words from seen s where s.namespace >= first and s.namespace < last limit looked_at
    ), bounds as materialized (
      select (select count(*) from mine) = looked_at or coalesce((select count(*) from seen) = hits_at, false) as reached
    )
    select m.item_id, ts_rank(m.words, any_of, 1), b.reached
    from bounds b left join mine m on true order by 2 desc nulls last, 1 desc limit most;
end $$
"""
"""Row level security keeps the index of words from being used (revision 0007): this reads past it, as agent_engine, and
applies the same rule itself. The words alone may choose the index, whatever else is asked: a plan that is kept would
else also read the whole of the tenant's primary key.

The tenant's own lexeme leaves others' items out already in the index, which costs more than all the rest where the
items are ``mostly`` the tenant's: then the words are asked without it, as long as few items have them. A few hundred
pages that are mostly in memory are read faster by the process itself than by workers (from PostgreSQL 18 on), hence no
``effective_io_concurrency``.

``full``: there may be more than was looked at, which is ``looked_at`` items at the place and ``hits_at`` of the tenant
(null: all). Then an ``item_id`` may be null."""

SHARES = f"""
create function store_shares(asked text[], looked_at integer) returns table (word text, share double precision)
{READING}
as $$
declare
  any_of tsquery := replace(plainto_tsquery('simple', array_to_string(asked, ' '))::text, ' & ', ' | ')::tsquery;
  tenant uuid := {CURRENT_TENANT};
  own tsquery := ('''@' || tenant || '''')::tsquery;
begin
  return query
    with seen as materialized (
      select i.tenant_id, i.words from store_items i
      where i.words @@ (own && any_of) limit looked_at
    ), each as materialized (
      select a.word, plainto_tsquery('simple', a.word) as wanted from unnest(asked) as a(word)
    )
    select e.word, avg((s.words @@ e.wanted)::int)::float8 from seen s, each e
    where s.tenant_id = tenant group by e.word;
end $$
"""
"""In which part of ``looked_at`` items of the tenant that have any of the words each of these is."""

OWN = (
    "grant create on schema public to agent_engine",
    *(
        statement
        for name in ("store_matches", "store_shares")
        for statement in (
            f"alter function {name} owner to agent_engine",
            f"revoke all on function {name} from public",
            f"grant execute on function {name} to agent_app",
        )
    ),
    "revoke create on schema public from agent_engine",
)


def upgrade() -> None:
    """Create everything. The index is built first: no lock but its own, against writers, is held meanwhile."""
    op.create_index("store_items_newest_idx", "store_items", ["tenant_id", "updated_at", "item_id"])
    op.execute(MATCHES)
    op.execute(SHARES)
    for statement in OWN:
        op.execute(statement)
    op.execute("alter index store_items_words_idx set (fastupdate = off)")
    op.execute("select gin_clean_pending_list('store_items_words_idx')")


def downgrade() -> None:
    """Take it away."""
    op.drop_index("store_items_newest_idx", "store_items")
    op.execute("alter index store_items_words_idx reset (fastupdate)")
    op.execute("drop function store_shares")
    op.execute("drop function store_matches")
