"""SQL of chains: runs with those that continue them (``app.features.runs.chain``)."""

import sqlalchemy as sa

from app.infra.db.session import ScopedStatement

_OPEN = """exists (
    select from jsonb_path_query(case when t.live_run is null then t.interrupts
      when (t.before->>'answering')::boolean then t.before->'interrupts' end, '$.*[*]') as i
    left join questions q on q.tenant_id = r.tenant_id and q.thread_id = r.thread_id and q.question_id = i->>'id'
    where q.closed_at is null and r.interrupts @> jsonb_build_array(jsonb_build_object('id', i->>'id')))"""
"""Whether a question that run ``r`` of thread ``t`` ended with is still open."""

CHAINS = sa.text(f"""
    with recursive chain as (
      select r.run_id as first_run, r.run_id, r.thread_id, r.ordinal from runs r
      where r.tenant_id = :tenant and r.run_id = any(:first)
      union all
      select p.first_run, r.run_id, r.thread_id, r.ordinal from chain p join runs r on r.tenant_id = :tenant
        and r.thread_id = p.thread_id and r.ordinal > p.ordinal and r.parent_id = p.run_id
    )
    select c.first_run, r.run_id, r.thread_id, r.assistant_id, r.ordinal, r.status, r.updated_at, r.metadata, r.error,
      r.interrupts, case when :requests then r.request end as request,
      r.status = 'interrupted' and r.interrupts is not null and {_OPEN} as waiting
    from chain c join runs r on r.tenant_id = :tenant and r.run_id = c.run_id
    join threads t on t.tenant_id = :tenant and t.thread_id = r.thread_id
    order by c.first_run, r.ordinal
""")

MAX_LISTED = 10_000
"""The newest runs among which chains are listed: bounds the cost of a list without an index by time of change."""

NEWEST_CHAINS = ScopedStatement(
    f"""
    with recursive newest as (
      select r.run_id, r.thread_id, r.ordinal, r.parent_id, r.status, r.updated_at, r.interrupts from runs r
      where r.tenant_id = :tenant and r.assistant_id = :assistant
        and (cast(:thread as uuid) is null or r.thread_id = :thread) and not r.temporary
      order by r.run_id desc limit {MAX_LISTED}
    ), matching as (
      select r.* from newest r join threads t on t.tenant_id = :tenant and t.thread_id = r.thread_id
      where not exists (select from runs c where c.tenant_id = :tenant and c.thread_id = r.thread_id
          and c.ordinal > r.ordinal and c.parent_id = r.run_id)
        and (cast(:statuses as text[]) is null or r.status = any(:statuses))
        and (cast(:since as timestamptz) is null or r.updated_at >= :since)
        and (cast(:waiting as boolean) is null
          or :waiting = (r.status = 'interrupted' and r.interrupts is not null
            and {_OPEN.replace("r.tenant_id", ":tenant")}))<owned>
    ), page as (
      select * from matching
      where cast(:at as timestamptz) is null or (updated_at, run_id) < (:at, cast(:run as uuid))
      order by updated_at desc, run_id desc limit :limit
    ), up as (
      select p.run_id as last_run, p.run_id, p.parent_id, 1 as depth from page p
      union all
      select u.last_run, r.run_id, r.parent_id, u.depth + 1 from up u join runs r
        on r.tenant_id = :tenant and r.run_id = u.parent_id
    )
    select (select count(*) from matching) as total, p.updated_at, p.run_id,
      (select u.run_id from up u where u.last_run = p.run_id order by u.depth desc limit 1) as first_run
    from page p order by p.updated_at desc, p.run_id desc
    """,
    "t.metadata @> cast(:owned as jsonb)",
)
