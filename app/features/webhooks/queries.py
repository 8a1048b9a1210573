"""SQL of the webhook outbox."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import insert

from app.engine.structs import SHOWN
from app.engine.tables import runs
from app.features.webhooks.tables import push_configs as configs
from app.features.webhooks.tables import webhook_deliveries as deliveries
from app.infra.db.columns import select_list
from app.infra.db.session import Reader, Writer

CLAIM_DUE = """
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
returning d.*, extract(epoch from now() - d.created_at)::float8 as age
"""
"""Claim one due delivery for $1 seconds, except hosts $2, tenants $3, and pairs of tenants $4 and hosts $5.

A recursive CTE steps through the tenants along an index and reads the oldest 2000 deliveries of each, so a backlog of
one tenant costs the others nothing. ``tenant_id >= x and tenant_id <= x`` instead of an equality keeps the order by
tenant, so that the planner does not choose the index by time, which would read every backlog."""

NEXT_DUE = "select extract(epoch from min(due_at) - now())::float8 from webhook_deliveries where status = 'pending'"

STORE_BODY = """
update webhook_deliveries set body = coalesce(body, $3) where tenant_id = $1 and run_id = $2 returning body
"""
"""The first stored body wins: all attempts send it, whichever process built another one concurrently."""

SETTLE = """
update webhook_deliveries set status = $4, answer = $5, problem = $6,
  due_at = now() + make_interval(secs => $7), ended_at = case when $4 = 'pending' then null else now() end
where tenant_id = $1 and run_id = $2 and attempts = $3 and status = 'pending'
"""

DELETE_EXPIRED = """
delete from webhook_deliveries d using (
  select tenant_id, run_id from webhook_deliveries
  where status <> 'pending' and ended_at < now() - interval '30 days' limit 5000) o
where d.tenant_id = o.tenant_id and d.run_id = o.run_id
"""


class OutboxStatements(NamedTuple):
    """The statements of an outbox."""

    claim_due: str
    next_due: str
    store_body: str
    settle: str
    delete_expired: str


def statements_of(table: str) -> OutboxStatements:
    """Return the statements of the outbox ``table``, which has the columns of ``webhook_deliveries``."""
    texts = (CLAIM_DUE, NEXT_DUE, STORE_BODY, SETTLE, DELETE_EXPIRED)
    return OutboxStatements(*(text.replace("webhook_deliveries", table) for text in texts))


RUN = f"""
select {select_list(runs, SHOWN, "r")}, r.request, r.started_at as run_started_at, r.ended_at as run_ended_at,
  r.error::text as error
from runs r where r.tenant_id = $1 and r.run_id = $2
"""


async def list_page(
    session: Reader, tenant_id: UUID, *, status: str | None, limit: int, offset: int
) -> Sequence[Row[Any]]:
    """Return a page of the tenant's deliveries, newest first."""
    statement = sa.select(deliveries).where(deliveries.c.tenant_id == tenant_id)
    if status is not None:
        statement = statement.where(deliveries.c.status == status)
    return await session.all(statement.order_by(deliveries.c.created_at.desc()).limit(limit).offset(offset))


async def reset(session: Writer, tenant_id: UUID, run_id: UUID) -> Row[Any] | None:
    """Reset a delivery for retry; None if it does not exist."""
    now = sa.func.now()
    initial = {"status": "pending", "attempts": 0, "due_at": now, "created_at": now, "ended_at": None}
    statement = (
        sa.update(deliveries)
        .where(deliveries.c.tenant_id == tenant_id, deliveries.c.run_id == run_id)
        .values(initial)
        .returning(*deliveries.c)
    )
    return await session.first(statement)


def _configs_of(tenant_id: UUID, thread_id: UUID, task_id: UUID) -> sa.ColumnElement[bool]:
    columns = configs.c
    return sa.and_(columns.tenant_id == tenant_id, columns.thread_id == thread_id, columns.task_id == task_id)


async def put_config(session: Writer, tenant_id: UUID, values: dict[str, Any]) -> None:
    """Add a push configuration, or replace the one with its id."""
    statement = insert(configs).values(tenant_id=tenant_id, **values)
    changed = {name: statement.excluded[name] for name in ("url", "token", "scheme", "credentials")}
    await session.execute(statement.on_conflict_do_update(index_elements=configs.primary_key.columns, set_=changed))


async def push_configs_of(session: Reader, tenant_id: UUID, thread_id: UUID, task_id: UUID) -> Sequence[Row[Any]]:
    """Return the push configurations of a task, the oldest first."""
    of_task = _configs_of(tenant_id, thread_id, task_id)
    return await session.all(sa.select(configs).where(of_task).order_by(configs.c.created_at, configs.c.config_id))


async def delete_config(session: Writer, tenant_id: UUID, thread_id: UUID, task_id: UUID, config_id: str) -> None:
    """Delete a push configuration, if it exists."""
    of_task = _configs_of(tenant_id, thread_id, task_id)
    await session.execute(sa.delete(configs).where(of_task, configs.c.config_id == config_id))


_PUSH_ENDED = sa.text("""
    with ended as (select run_id, status from runs where tenant_id = :tenant and run_id = :run for share)
    insert into push_deliveries (tenant_id, run_id, thread_id, ended_run, task_id, config_id, url, host)
    select c.tenant_id, md5(r.run_id::text || c.task_id::text || c.config_id)::uuid, c.thread_id, r.run_id,
      c.task_id, c.config_id, c.url, coalesce(substring(c.url from '://([^/?#]+)'), '')
    from push_configs c cross join ended r
    where c.tenant_id = :tenant and c.thread_id = :thread and c.task_id = :task and c.config_id = :config
      and r.status not in ('pending', 'running')
    on conflict do nothing
""")
"""The same delivery as that of the trigger ``push_fill``. The lock makes an end in progress either finish first, and be
seen here, or wait until the configuration is committed, and be seen by the trigger."""


async def push_ended(session: Writer, parameters: dict[str, Any]) -> None:
    """Fill the outbox for a run that ended before its configuration was stored.

    ``parameters``: ``tenant``, ``thread``, ``task``, ``config``, ``run``.
    """
    await session.execute(_PUSH_ENDED, parameters)


PUSH_CONFIG = """
select url, token, scheme, credentials from push_configs
where tenant_id = $1 and thread_id = $2 and task_id = $3 and config_id = $4
"""
