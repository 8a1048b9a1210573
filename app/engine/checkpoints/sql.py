"""SQL text about checkpoints that the engine and the features share."""

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
"""Remove all checkpoints but the newest (``head``) of the threads ``<which>``, and what only the others name."""
