"""The quota of crons holds for concurrent requests to several processes."""

import asyncio

import pytest

from app.base.errors import Conflict
from app.features.crons.structs import Cron, CronCreate, CronSearch
from app.infra.db.engine import Database
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey
from app.security.limits.structs import TenantLimits
from tests.crons.replicas import PRINCIPAL, Clock, Replica
from tests.runs.engine import TENANT

MAX_CRONS = 5
BODY = CronCreate(assistant_id="echo", schedule="0 0 1 1 *", input=["hello"])


async def count(replica: Replica) -> int:
    return await replica.crons.count(PRINCIPAL, CronSearch())


async def test_concurrent_requests_to_two_processes_do_not_exceed_the_cap(database: Database, clock: Clock) -> None:
    replicas = [Replica(database, clock, max_crons=MAX_CRONS) for _ in range(2)]
    asked = [replicas[n % 2].crons.create(Principal(TENANT), None, BODY) for n in range(4 * MAX_CRONS)]
    made = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, Cron) for one in made) == MAX_CRONS
    assert {str(one) for one in made if not isinstance(one, Cron)} == {
        f"This tenant has reached its limit of {MAX_CRONS} crons: delete one first."
    }
    assert await count(replicas[0]) == MAX_CRONS


async def test_a_deleted_cron_frees_quota_and_a_repeated_request_needs_none(database: Database, clock: Clock) -> None:
    replica = Replica(database, clock, max_crons=1)
    key = IdempotencyKey(route="POST /runs/crons", key="1", fingerprint=b"f")
    cron = await replica.crons.create(Principal(TENANT), None, BODY, key)
    assert isinstance(cron, Cron)
    assert await replica.crons.create(Principal(TENANT), None, BODY, key) is not cron
    with pytest.raises(Conflict):
        await replica.create()
    await replica.crons.delete(PRINCIPAL, cron.cron_id)
    await replica.create()


async def test_a_tenants_own_cap_counts_and_zero_is_none(database: Database, clock: Clock) -> None:
    replica = Replica(database, clock, max_crons=1)
    for _ in range(3):
        await replica.crons.create(Principal(TENANT, limits=TenantLimits(crons=0)), None, BODY)
    with pytest.raises(Conflict, match="limit of 2 crons"):
        await replica.crons.create(Principal(TENANT, limits=TenantLimits(crons=2)), None, BODY)
    free = Replica(database, clock)
    await free.create()
    assert await count(free) == 4
