"""SQL of the outbox."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row

from app.features.webhooks.tables import webhook_deliveries as deliveries
from app.infra.db.session import Reader, Writer

TAKE = """
with recursive tenant as (
  (select tenant_id from webhook_deliveries where status = 'pending' order by tenant_id limit 1)
  union all
  select (select d.tenant_id from webhook_deliveries d where d.status = 'pending' and d.tenant_id > t.tenant_id
          order by d.tenant_id limit 1)
  from tenant t where t.tenant_id is not null
), candidate as (
  select w.tenant_id, w.run_id, w.due_at from tenant t cross join lateral (
    select d.tenant_id, d.run_id, d.due_at from (
      select tenant_id, run_id, host, due_at from webhook_deliveries
      where status = 'pending' and tenant_id >= t.tenant_id and tenant_id <= t.tenant_id and due_at <= now()
      order by tenant_id, due_at limit 2000
    ) d
    where d.host <> all($2::text[]) and not exists (
      select from unnest($4::uuid[], $5::text[]) as f(tenant_id, host)
      where f.tenant_id = d.tenant_id and f.host = d.host)
    order by d.due_at limit 32
  ) w
  where t.tenant_id is not null and t.tenant_id <> all($3::uuid[])
), due as (
  select d.tenant_id, d.run_id from candidate c join webhook_deliveries d using (tenant_id, run_id)
  where d.status = 'pending' and d.due_at <= now()
  order by c.due_at limit 1 for no key update of d skip locked
)
update webhook_deliveries d set attempts = d.attempts + 1, due_at = now() + make_interval(secs => $1)
from due where d.tenant_id = due.tenant_id and d.run_id = due.run_id
returning d.tenant_id, d.run_id, d.thread_id, d.url, d.host, d.attempts, d.body, d.created_at,
  extract(epoch from now() - d.created_at)::float8 as age
"""
"""One that is due, for $1 seconds; not to hosts $2, of tenants $3, of tenants $4 to hosts $5: they have their share.

Each tenant is looked at by itself along an index, and of each the oldest 2000 alone, so that a backlog that has its
share costs other tenants nothing. Two comparisons instead of an equality keep the order by tenant, for which a plan
along the index by time, which would read every backlog, is no use."""

NEXT = "select extract(epoch from min(due_at) - now())::float8 from webhook_deliveries where status = 'pending'"

KEEP_BODY = """
update webhook_deliveries set body = coalesce(body, $3) where tenant_id = $1 and run_id = $2 returning body
"""
"""The first that is kept is what all attempts send, also those of a process that was slow to make its own."""

SETTLE = """
update webhook_deliveries set status = $4, answer = $5, problem = $6,
  due_at = now() + make_interval(secs => $7), ended_at = case when $4 = 'pending' then null else now() end
where tenant_id = $1 and run_id = $2 and attempts = $3 and status = 'pending'
"""

OLD = """
delete from webhook_deliveries d using (
  select tenant_id, run_id from webhook_deliveries
  where status <> 'pending' and ended_at < now() - interval '30 days' limit 5000) o
where d.tenant_id = o.tenant_id and d.run_id = o.run_id
"""

RUN = """
select r.run_id, r.thread_id, r.assistant_id, r.status, r.metadata::text as metadata, r.request, r.multitask_strategy,
  r.created_at, r.updated_at, r.started_at, r.ended_at, r.error::text as error
from runs r where r.tenant_id = $1 and r.run_id = $2
"""


async def listed(
    session: Reader, tenant_id: UUID, *, status: str | None, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """The tenant's deliveries, newest first."""
    chosen = sa.select(deliveries).where(deliveries.c.tenant_id == tenant_id)
    if status is not None:
        chosen = chosen.where(deliveries.c.status == status)
    return await session.all(chosen.order_by(deliveries.c.created_at.desc()).limit(limit).offset(offset))


async def again(session: Writer, tenant_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Begin a delivery anew; None for an unknown one."""
    begun = {"status": "pending", "attempts": 0, "due_at": sa.func.now(), "created_at": sa.func.now(), "ended_at": None}
    changed = (
        sa.update(deliveries)
        .where(deliveries.c.tenant_id == tenant_id, deliveries.c.run_id == run_id)
        .values(begun)
        .returning(*deliveries.c)
    )
    return await session.first(changed)
