"""A cron fires as long as the key that created it is valid."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.features.crons.scheduler import KEY_INVALID
from app.features.crons.structs import Cron, CronCreate, CronPatch
from app.infra.db.engine import Database
from app.security.access.structs import Principal
from app.security.access.tables import api_keys, tenants
from tests.crons.replicas import Replica, payload_of, slots_of
from tests.runs.engine import TENANT, fetch

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
FIVE = timedelta(minutes=5)


async def add_keys(database: Database, *key_ids: str) -> None:
    async with database.writing(TENANT) as session:
        await session.execute(sa.insert(tenants).values(tenant_id=TENANT, name="tests"))
        for key_id in key_ids:
            row = {"tenant_id": TENANT, "key_id": key_id, "digest": b"x", "name": key_id}
            await session.execute(sa.insert(api_keys).values(row))


async def made(replica: Replica, key_id: str) -> Cron:
    body = CronCreate(assistant_id="echo", schedule="*/5 * * * *", input=["hello"])
    cron = await replica.crons.create(Principal(TENANT, key_id), None, body)
    assert isinstance(cron, Cron)
    return cron


@pytest.mark.parametrize("how", ["revoked_at = now()", "expires_at = now() - interval '1 second'"])
async def test_a_cron_of_a_revoked_or_expired_key_is_paused_with_a_reason(
    database: Database, replica: Replica, how: str
) -> None:
    await add_keys(database, "first", "second")
    cron, other = await made(replica, "first"), await made(replica, "second")
    assert "key_id" not in payload_of(cron)
    assert await replica.at(NOON + FIVE) == 2
    async with database.writing(TENANT) as session:
        await session.execute(sa.text(f"update api_keys set {how} where key_id = 'first'"))
    assert await replica.at(NOON + 2 * FIVE) == 3
    paused = await replica.get(cron)
    assert (paused.enabled, paused.next_run_date) == (False, None)
    assert (await slots_of(database, cron))[-1] == (NOON + 2 * FIVE, None, KEY_INVALID)
    assert (await replica.get(other)).enabled
    assert await replica.at(NOON + 3 * FIVE) == 4


async def test_another_key_enables_it_again(database: Database, replica: Replica) -> None:
    await add_keys(database, "first", "second")
    cron = await made(replica, "first")
    async with database.writing(TENANT) as session:
        await session.execute(sa.text("update api_keys set revoked_at = now() where key_id = 'first'"))
    assert await replica.at(NOON + FIVE) == 0
    await replica.crons.patch(Principal(TENANT, "second"), cron.cron_id, CronPatch(enabled=True))
    assert await replica.at(NOON + 2 * FIVE) == 1
    assert await fetch(database, "select count(*) as n from crons where enabled") == [{"n": 1}]
