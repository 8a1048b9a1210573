"""Searches of the store keep their plans: one function reads the index of words, and an index finds the newest items.

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

MATCHES = f"""
create function store_matches(
  asked text[], every boolean, first text, last text, mostly boolean, hits_at integer, looked_at integer, most integer)
returns table (item_id uuid, rank real, "full" boolean, shares real[])
language plpgsql stable security definer set search_path = public, pg_temp set plan_cache_mode = force_generic_plan
  set enable_seqscan = off set enable_bitmapscan = on set enable_sort = on set effective_io_concurrency = 0
as $$
declare
  all_of tsquery := plainto_tsquery('simple', array_to_string(asked, ' '));
  any_of tsquery := replace(all_of::text, ' & ', ' | ')::tsquery;
  wanted tsquery := case when every then all_of else any_of end;
  bound integer := case when mostly then 2 * looked_at else 0 end;
begin
  if numnode(all_of) = 0 or {CURRENT_TENANT} is null then
    return;
  end if;
  return query
    with few as materialized (
      select i.tenant_id, i.namespace, i.item_id, i.words from store_items i where i.words @@ wanted limit bound
    ), hits as materialized (
      select i.tenant_id, i.namespace, i.item_id, i.words from store_items i
      where (select count(*) from few) = bound and i.words @@ (('''@' || {CURRENT_TENANT} || '''')::tsquery && wanted)
    ), seen as materialized (
      select f.namespace, f.item_id, f.words from few f
      where (select count(*) from few) < bound and f.tenant_id = {CURRENT_TENANT}
      union all
      (select h.namespace, h.item_id, h.words from hits h where h.tenant_id = {CURRENT_TENANT} limit hits_at)
    ), mine as materialized (
      select s.item_id, s.words from seen s where s.namespace >= first and s.namespace < last limit looked_at
    ), bounds as materialized (
      select (select count(*) from mine) = looked_at or coalesce((select count(*) from seen) >= hits_at, false) as reached
    ), each as materialized (
      select plainto_tsquery('simple', a.word) as word, a.n from unnest(asked) with ordinality as a(word, n)
    )
    select m.item_id, ts_rank(m.words, any_of, 1), b.reached, case when b.reached then (
      select array_agg((
        select avg((s.words @@ e.word)::int)::real from (select * from seen limit looked_at) s
      ) order by e.n) from each e
    ) end
    from bounds b left join mine m on true order by 2 desc nulls last, 1 desc limit most;
end $$
"""
"""Row level security keeps the index of words from being used (revision 0007): this reads past it, as agent_engine, and
applies the same rule itself. The words alone may choose the index, whatever else is asked: a plan that is kept would
else also read the whole of the tenant's primary key.

The tenant's own lexeme leaves others' items out already in the index, which costs three times as much where ``mostly``
the tenant's items would come anyway: then the words are asked without it, as long as few items have them.

A few hundred pages that are mostly in memory are read faster by the process itself than by workers (from PostgreSQL 18
on), hence no ``effective_io_concurrency``.

``full``: there may be more than was looked at, which is ``looked_at`` items at the place and ``hits_at`` of the tenant
(null: all). Then ``shares`` are the parts of it that have each of the words, and an ``item_id`` may be null."""

OWN = (
    "grant create on schema public to agent_engine",
    "alter function store_matches owner to agent_engine",
    "revoke create on schema public from agent_engine",
    "revoke all on function store_matches from public",
    "grant execute on function store_matches to agent_app",
)


def upgrade() -> None:
    """Create everything. The index is built first: no lock but its own, against writers, is held meanwhile."""
    op.create_index("store_items_newest_idx", "store_items", ["tenant_id", "updated_at", "item_id"])
    op.execute(MATCHES)
    for statement in OWN:
        op.execute(statement)
    op.execute("alter index store_items_words_idx set (fastupdate = off)")
    op.execute("select gin_clean_pending_list('store_items_words_idx')")


def downgrade() -> None:
    """Take it away."""
    op.drop_index("store_items_newest_idx", "store_items")
    op.execute("alter index store_items_words_idx reset (fastupdate)")
    op.execute("drop function store_matches")
