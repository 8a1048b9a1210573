"""Work that one tenant has had accepted never takes the engine's connections from the others."""

import asyncio
import contextlib
import time

import asyncpg

from app.infra.db.engine import Database
from app.infra.settings import LimitSettings
from app.infra.telemetry.meters import Meters
from app.security.access.structs import tenant_id_of
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices
from app.security.limits.structs import TenantLimits
from tests.db.test_fairness import SHORT_ENOUGH, locked, post_all, thread_of
from tests.system.services import API, Service, serving

ASKED = {"messages": [{"role": "user", "content": "hello"}]}
LOCK_WAITS = """
select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
"""


async def later_run(service: Service, key: str) -> tuple[str, str]:
    """A thread, and a run of it that waits for its time."""
    thread = await thread_of(service, key)
    body = {"assistant_id": "assistant", "input": ASKED, "after_seconds": 3600}
    made = await service.client.post(f"{API}/threads/{thread}/runs", json=body, headers={"x-api-key": key})
    assert made.status_code == 200, made.text
    return thread, made.json()["run_id"]


async def innocent_runs(service: Service, key: str, count: int = 3) -> list[tuple[int, float]]:
    found = []
    for _ in range(count):
        began = time.monotonic()
        body = {"assistant_id": "assistant", "input": ASKED}
        answer = await service.client.post(f"{API}/runs/wait", json=body, headers={"x-api-key": key}, timeout=60)
        found.append((answer.status_code, time.monotonic() - began))
    return found


async def lock_waits(url: str, count: int) -> None:
    """Wait until ``count`` statements wait for a lock."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(30):
            while await connection.fetchval(LOCK_WAITS) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


async def seconds_to_renew(service: Service) -> float:
    """How long a statement of the engine takes that waits for no tenant, as the renewal of leases."""
    began = time.monotonic()
    async with service.services.persistence.database.engine_connection() as connection:
        await connection.fetchval("select 1")
    return time.monotonic() - began


async def test_states_that_load_slowly_leave_the_engine_its_connections(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        headers = {"x-api-key": await service.key("hostile")}
        body = {"assistant_id": "assistant", "input": ASKED}
        threads = [await thread_of(service, headers["x-api-key"]) for _ in range(6)]
        for thread in threads:
            await post_all(service, 1, f"/threads/{thread}/runs/wait", body, **headers)
        service.services.engine.supervisor._cache.forget([tenant_id_of("hostile")])
        async with locked(fresh_database_url, "lock table checkpoints in access exclusive mode"):
            for thread in threads:
                (made,) = await post_all(service, 1, f"/threads/{thread}/runs", body, **headers)
                assert made.status_code == 200, made.text
            await lock_waits(fresh_database_url, 3)
            assert await seconds_to_renew(service) < SHORT_ENOUGH


async def test_cancels_that_wait_for_a_lock_leave_the_engine_its_connections(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        await innocent_runs(service, innocent, 1)
        thread, run = await later_run(service, hostile)
        async with locked(fresh_database_url, f"select from threads where thread_id = '{thread}' for update"):
            path = f"/threads/{thread}/runs/{run}/cancel"
            attack = asyncio.ensure_future(post_all(service, 12, path, {}, **{"x-api-key": hostile}))
            await lock_waits(fresh_database_url, 1)
            runs = await innocent_runs(service, innocent)
            renewal = await seconds_to_renew(service)
        answers = await attack
        assert [status for status, _ in runs] == [200] * 3
        assert max(seconds for _, seconds in runs) < SHORT_ENOUGH
        assert renewal < SHORT_ENOUGH
        assert {answer.status_code for answer in answers} <= {202, 404, 503}


async def test_runs_that_wait_for_a_lock_of_their_thread_do_not_block_those_of_others(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        await innocent_runs(service, innocent, 1)
        threads = [await thread_of(service, hostile) for _ in range(4)]
        names = ",".join(f"'{thread}'" for thread in threads)
        body = {"assistant_id": "assistant", "input": ASKED}
        async with locked(fresh_database_url, f"select from threads where thread_id in ({names}) for update"):
            attack = [
                asyncio.ensure_future(post_all(service, 1, f"/threads/{one}/runs", body, **{"x-api-key": hostile}))
                for one in threads
            ]
            await lock_waits(fresh_database_url, 1)
            runs = await innocent_runs(service, innocent)
        await asyncio.gather(*attack)
        assert [status for status, _ in runs] == [200] * 3
        assert max(seconds for _, seconds in runs) < SHORT_ENOUGH


async def test_an_admission_leaves_its_tenant_a_connection_while_others_hold_theirs(database_url: str) -> None:
    """A run that is accepted within it may have to wait for a lock, on a connection of its own."""
    database = Database(database_url)
    budgets = Budgets(database, Limiter(LimitSettings()), Prices(), lambda _: "", Meters())
    tenant, *others = (tenant_id_of(name) for name in ("busy", "first", "second"))
    try:
        async with contextlib.AsyncExitStack() as stack:
            for other in others:
                await stack.enter_async_context(database.tenant_connection(other))
            await stack.enter_async_context(budgets.admission(tenant, TenantLimits(runs=5)))
            async with asyncio.timeout(5):
                await stack.enter_async_context(database.tenant_connection(tenant))
    finally:
        await database.aclose()
