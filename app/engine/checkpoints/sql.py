"""SQL of checkpoints that the engine and the features share."""

UNUSED = """t.live_run is null and not exists (
  select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id and r.status = 'pending')"""
"""Whether the thread ``t`` has no live and no pending run: one that waits, also for its time, may fork from any
checkpoint."""

TO_LATEST = """
with kept as (
  <which>
), no_checkpoints as (
  delete from checkpoints x using kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and x.checkpoint_id <> k.head
), no_parents as (
  update checkpoints x set parent_id = null from kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and x.checkpoint_id = k.head
), no_items as (
  delete from checkpoint_items x using kept k
  where x.tenant_id = k.tenant_id and x.thread_id = k.thread_id and not exists (
    select from checkpoints c, unnest(c.first_items, c.last_items) as r(first, last)
    where c.tenant_id = k.tenant_id and c.thread_id = k.thread_id and c.checkpoint_id = k.head
      and x.number between r.first and r.last)
)
select from kept
"""
"""Delete all checkpoints but the newest (``head``) of the threads ``<which>``, and items that only the others use."""

COLUMNS = """
    c.checkpoint_id, c.parent_id, c.run_id, c.source, c.step, c.next, c.head, c.metadata as checkpoint_metadata,
    c.created_at as checkpoint_created_at, i.numbers, i.bodies
"""
"""Columns that ``snapshot.read`` needs, together with ``ITEMS``."""

ITEMS = """
    left join lateral (
      select array_agg(i.number) as numbers, array_agg(i.body) as bodies
      from unnest(c.first_items, c.last_items) as r(first, last)
      join checkpoint_items i
        on i.tenant_id = c.tenant_id and i.thread_id = c.thread_id and i.number between r.first and r.last
    ) i on true
"""
"""Joins the log items of the checkpoint ``c``, so that the whole state comes in one round trip."""

STORED = """
    left join lateral (
      select sum(octet_length(i.body)) as stored
      from unnest(c.first_items, c.last_items) as r(first, last)
      join checkpoint_items i
        on i.tenant_id = c.tenant_id and i.thread_id = c.thread_id and i.number between r.first and r.last
    ) s on true
"""
"""Joins the stored size of the state of checkpoint ``c`` without reading the items."""
