"""SQL of what is swept away: threads of stateless runs, some time after their end."""

SWEEP_TEMPORARY = """
with old as (
  select t.tenant_id, t.thread_id from threads t
  where t.temporary and t.created_at < now() - make_interval(secs => $1) and t.live_run is null
    and not exists (
      select from runs r where r.tenant_id = t.tenant_id and r.thread_id = t.thread_id
        and (r.status in ('pending', 'running') or r.ended_at > now() - make_interval(secs => $1)))
  order by t.created_at limit 100 for update of t skip locked
), ended as (
  delete from runs r using old o where r.tenant_id = o.tenant_id and r.thread_id = o.thread_id
  returning r.tenant_id, r.run_id
), no_steps as (
  delete from steps x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_intents as (
  delete from tool_intents x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_events as (
  delete from events x using ended e where x.tenant_id = e.tenant_id and x.run_id = e.run_id
), no_items as (
  delete from checkpoint_items x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
), no_checkpoints as (
  delete from checkpoints x using old o where x.tenant_id = o.tenant_id and x.thread_id = o.thread_id
)
delete from threads t using old o where t.tenant_id = o.tenant_id and t.thread_id = o.thread_id
"""
