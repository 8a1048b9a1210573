"""Connections are shared fairly between tenants; waiting for another request holds none."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import sqlalchemy as sa

from app.base.errors import Unavailable
from app.base.fair_semaphore import FairSemaphore
from app.infra.db.engine import Database
from app.security.access.structs import tenant_id_of
from tests.runs.engine import TENANT
from tests.system.services import API, Service, serving

OTHER = UUID(int=77)
SHORT_ENOUGH = 2.0
"""Seconds of an innocent request on a machine that does much else; under attack it took ten, and was 503."""


async def hold(slots: FairSemaphore, party: str, until: asyncio.Event, order: list[str]) -> None:
    async with slots.slot(party):
        order.append(party)
        await until.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_party_that_is_alone_holds_all_but_the_spare_and_others_still_find_a_slot() -> None:
    slots, release, order = FairSemaphore(10, spare=2), asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(hold(slots, "hostile", release, order))
        await settle()
        assert order == ["hostile"] * 8
        for _ in range(2):
            group.create_task(hold(slots, "innocent", release, order))
        await settle()
        assert order[8:] == ["innocent"] * 2, "at once"
        release.set()
    assert len(order) == 32
    assert (slots._held, slots._waiting, slots._free) == ({}, {}, 10)


async def test_waiters_are_served_round_robin_by_party() -> None:
    slots, order = FairSemaphore(1, spare=0), list[str]()
    first = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(slots, "hostile", first, order))
        await settle()
        done = asyncio.Event()
        done.set()
        for _ in range(5):
            group.create_task(hold(slots, "hostile", done, order))
        await settle()
        for party in ("one", "two"):
            group.create_task(hold(slots, party, done, order))
        await settle()
        first.set()
    assert order[:4] == ["hostile", "hostile", "one", "two"]


async def test_cancelled_waits_leave_nothing_behind() -> None:
    slots, release, order = FairSemaphore(2, spare=0), asyncio.Event(), list[str]()
    holders = [asyncio.ensure_future(hold(slots, "a", release, order)) for _ in range(2)]
    waiters = [asyncio.ensure_future(hold(slots, party, release, order)) for party in "ababab"]
    await settle()
    waiters[0].cancel()
    waiters[1].cancel()
    await settle()
    release.set()
    holders[0].cancel()
    waiters[2].cancel()  # at the very moment in which a slot comes
    await asyncio.gather(*holders, *waiters, return_exceptions=True)
    assert (slots._held, slots._waiting, slots._free) == ({}, {}, 2)


async def test_a_tenant_with_all_its_connections_in_use_leaves_one_for_another(database_url: str) -> None:
    database = Database(database_url, requests=5, engine=1)
    release = asyncio.Event()
    held: list[int] = []

    async def read() -> None:
        async with database.reading(TENANT) as reader:
            held.append(await reader.scalar(sa.text("select 1")))
            await release.wait()

    crowd = [asyncio.ensure_future(read()) for _ in range(20)]
    try:
        async with asyncio.timeout(20):
            while len(held) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with database.reading(OTHER) as reader:
                assert await reader.scalar(sa.text("select 2")) == 2
            async with database.tuned(OTHER, "") as connection:
                assert await connection.fetchval("select 3") == 3
        assert len(held) == 4
    finally:
        release.set()
        await asyncio.gather(*crowd, return_exceptions=True)  # some have timed out
        await database.aclose()


async def test_a_request_waits_for_a_lock_with_a_timeout(fresh_database_url: str) -> None:
    database = Database(fresh_database_url, requests=2, engine=1)
    try:
        async with locked(fresh_database_url, "lock table threads in access exclusive mode"):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="Other requests are changing the same data"):
                async with database.reading(TENANT) as reader:
                    await reader.scalar(sa.text("select count(*) from threads"))
            assert time.monotonic() - began < 8
    finally:
        await database.aclose()


@contextlib.asynccontextmanager
async def locked(url: str, statement: str) -> AsyncIterator[None]:
    """Hold the locks of ``statement``, as a slow process would."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


PAST = [
    {"updates": [{"values": {"messages": [{"type": "human", "content": f"{n}"}]}, "as_node": "__start__"}]}
    for n in range(200)
]


async def thread_of(service: Service, key: str) -> str:
    made = await service.client.post(f"{API}/threads", json={}, headers={"x-api-key": key})
    return str(made.json()["thread_id"])


async def innocent_gets(service: Service, key: str, thread: str, count: int = 5) -> list[tuple[int, float]]:
    """Statuses and durations of requests by an ordinary tenant."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        answer = await service.client.get(f"{API}/threads/{thread}", headers={"x-api-key": key})
        found.append((answer.status_code, time.monotonic() - began))
    return found


async def post_all(service: Service, count: int, path: str, body: Any, **headers: str) -> list[httpx.Response]:
    sent = [service.client.post(API + path, json=body, headers=headers, timeout=60) for _ in range(count)]
    return await asyncio.gather(*sent)


async def test_long_threads_of_one_tenant_do_not_block_another(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        thread = await thread_of(service, innocent)
        body = {"metadata": {"graph_id": "assistant"}, "supersteps": PAST}
        async with locked(fresh_database_url, "lock table checkpoints in exclusive mode"):
            attack = asyncio.ensure_future(post_all(service, 12, "/threads", body, **{"x-api-key": hostile}))
            async with asyncio.timeout(30):
                while len(service.services.persistence.database._gate._waiting) == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            gets = await innocent_gets(service, innocent, thread)
            assert [status for status, _ in gets] == [200] * 5
            assert max(seconds for _, seconds in gets) < SHORT_ENOUGH
            answers = await attack
        assert {answer.status_code for answer in answers} <= {200, 503}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused, "the lock did not come"
        assert all(answer.headers["retry-after"] for answer in refused)


async def test_equal_idempotency_keys_wait_without_a_connection(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        thread = await thread_of(service, innocent)
        headers = {"x-api-key": hostile, "idempotency-key": "the same"}
        async with locked(fresh_database_url, "lock table threads in exclusive mode"):
            attack = asyncio.ensure_future(post_all(service, 12, "/threads", {}, **headers))
            held = service.services.persistence.database._gate._held
            async with asyncio.timeout(30):
                while not held.get(tenant_id_of("hostile")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            gets = await innocent_gets(service, innocent, thread)
            assert held[tenant_id_of("hostile")] == 1, "one is served, the others wait in memory"
            assert [status for status, _ in gets] == [200] * 5
            assert max(seconds for _, seconds in gets) < SHORT_ENOUGH
        answers = await attack
        made = [answer for answer in answers if answer.status_code == 200]
        assert len({answer.json()["thread_id"] for answer in made}) == 1
        assert {answer.status_code for answer in answers} <= {200, 409, 503}


async def test_a_key_that_another_process_has_under_way_is_409_and_to_be_tried_again(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key") as service:
        key = await service.key("ours")
        headers = {"x-api-key": key, "idempotency-key": "theirs"}
        statement = (
            "insert into idempotency_keys (tenant_id, route, key, fingerprint) "
            f"values ('{tenant_id_of('ours')}', 'POST {API}/threads', 'theirs', '')"
        )
        async with locked(fresh_database_url, statement):
            answer = await service.client.post(f"{API}/threads", json={}, headers=headers, timeout=60)
        assert answer.status_code == 409, answer.text
        assert answer.headers["retry-after"] == "1"
        assert "in progress" in answer.json()["detail"]


async def test_a_past_beyond_its_bounds_is_refused_with_a_sentence(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="none") as service:
        body: dict[str, Any] = {"metadata": {"graph_id": "assistant"}, "supersteps": PAST * 6}
        answer = await service.client.post(f"{API}/threads", json=body)
        assert answer.status_code == 422
        assert "at most 1000 supersteps" in answer.json()["detail"]
        body["supersteps"] = PAST * 5
        began = time.monotonic()
        made = await service.client.post(f"{API}/threads", json=body, timeout=60)
        assert made.status_code == 200, made.text
        assert time.monotonic() - began < 20
        history = await service.client.post(f"{API}/threads/{made.json()['thread_id']}/history", json={"limit": 3})
        assert [one["values"]["messages"][-1]["content"] for one in history.json()] == ["199", "198", "197"]
