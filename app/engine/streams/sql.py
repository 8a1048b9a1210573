"""SQL of streams: signals, frames sent through PostgreSQL, and the state of runs elsewhere."""

NOTIFY = "select pg_notify($1, payload) from unnest($2::text[]) payload"

ASYNC_COMMIT = "set synchronous_commit = off"
"""Signals need not outlive a crash of the database."""

INSERT_FRAMES = """
insert into live_frames (tenant_id, run_id, epoch, seq, last_seq, body)
select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::bytea[])
on conflict (tenant_id, run_id, epoch, seq) do update set last_seq = excluded.last_seq, body = excluded.body
"""

FETCH_FRAMES = """
select f.body from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[]) as w(tenant_id, run_id, epoch, seq)
join live_frames f on f.tenant_id = w.tenant_id and f.run_id = w.run_id
  and (f.epoch > w.epoch or (f.epoch = w.epoch and f.last_seq >= w.seq))
order by f.run_id, f.epoch, f.seq
"""

DELETE_OLD_FRAMES = """
delete from live_frames f using (
  select tenant_id, run_id, epoch, seq from live_frames where created_at < now() - interval '1 minute'
  order by created_at limit 1000) o
where f.tenant_id = o.tenant_id and f.run_id = o.run_id and f.epoch = o.epoch and f.seq = o.seq
"""
"""Delete frames older than a minute, in batches. A subscriber that still needs one finds a gap and reads the log."""

MISSED_THREADS = """
select w.tenant_id, w.thread_id from unnest($1::uuid[], $2::uuid[], $3::int[]) as w (tenant_id, thread_id, ordinal)
left join threads t on t.tenant_id = w.tenant_id and t.thread_id = w.thread_id
where t.thread_id is null or t.runs >= w.ordinal
"""
"""Threads that have the awaited run, or were deleted."""

RUN_STATES = """
select r.run_id, r.status, r.epoch, l.epoch as log_epoch, l.seq as log_seq
from runs r left join lateral (
  select e.epoch, e.seq from events e
  where e.tenant_id = r.tenant_id and e.run_id = r.run_id
  order by e.tenant_id desc, e.run_id desc, e.epoch desc, e.seq desc limit 1
) l on true
where r.run_id = any($1)
"""
"""Possible owner of each run, and the newest row of its event log."""
