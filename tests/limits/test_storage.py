"""Storage quota: measured in the background, enforced on every route that adds data."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
import sqlalchemy as sa

from app.features.access.guard import WRITES
from app.features.store.tables import WIDTHS
from app.infra.db.engine import Database
from app.infra.settings import LimitSettings
from app.security.access.structs import tenant_id_of
from app.security.limits import queries, storage_quota
from app.security.limits.limiter import Limiter
from app.security.limits.storage_quota import StorageQuota, StorageSweep
from app.security.limits.structs import TenantLimits
from app.server.routes import CONTROLLERS
from app.server.schema import metadata
from tests.crons.conftest import clock, database, replica
from tests.crons.replicas import Replica
from tests.runs.engine import TENANT
from tests.system.services import API, Service, serving

__all__ = ["clock", "database", "replica"]

RUN = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "hello"}]}}
CRON = {"assistant_id": "assistant", "schedule": "0 0 1 1 *", "input": {}}
KIB = 1024


def item(key: str, size: int) -> dict[str, Any]:
    """A put of an item with ``size`` random bytes, which no compression makes smaller than half of their digits."""
    return {"namespace": ["notes"], "key": key, "value": {"text": os.urandom(size).hex()}, "index": False}


class Tenant:
    """A client with a key of one tenant."""

    def __init__(self, service: Service, name: str, key: str) -> None:
        self.name = name
        self._service = service
        self._headers = {"x-api-key": key}

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = {**self._headers, **headers}
        return await self._service.client.request(method, API + path, headers=headers, **content)

    async def fill(self, size: int = 100 * KIB) -> None:
        assert (await self.ask("PUT", "/store/items", item("large", size))).status_code == 204


async def tenant(service: Service, name: str) -> Tenant:
    return Tenant(service, name, await service.key(name))


async def settle(service: Service) -> None:
    """Measure everything and read the results, without waiting for the background."""
    await service.services.limits.quota.sweep.aclose()
    await service.services.limits.quota.sweep.find()
    async with service.services.persistence.database.engine_connection() as connection:
        await connection.execute("update storage_usage set next_at = now()")
    while await service.services.limits.quota.sweep.measure_slice():
        pass
    await service.services.limits.quota.refresh()


def keyed(**settings: str) -> dict[str, Any]:
    return {"AGENT_AUTH": "api_key", "AGENT_RATE_PER_MINUTE": "0", **settings}


async def test_a_full_tenant_adds_nothing_reads_and_deletes_and_another_is_not_touched(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, **keyed()) as service:
        full, other = await tenant(service, "full"), await tenant(service, "other")
        await service.services.auth.keys.set_limits("full", TenantLimits(bytes=64 * KIB))
        await service.services.auth.keys.set_limits("other", TenantLimits(bytes=10**9))
        thread = (await full.ask("POST", "/threads", {})).json()["thread_id"]
        cron = (await full.ask("POST", "/runs/crons", CRON)).json()["cron_id"]
        await full.fill()
        await other.fill()
        await settle(service)
        doors = [
            ("POST", "/runs", RUN),
            ("POST", "/runs/wait", RUN),
            ("POST", "/runs/stream", RUN),
            ("POST", "/runs/batch", [RUN]),
            ("POST", "/runs/crons", CRON),
            ("POST", "/threads", {}),
            ("PATCH", f"/threads/{thread}", {"metadata": {"a": 1}}),
            ("POST", f"/threads/{thread}/state", {"values": {"messages": []}}),
            ("POST", f"/threads/{thread}/copy", None),
            ("POST", f"/threads/{thread}/runs", RUN),
            ("POST", f"/threads/{thread}/runs/wait", RUN),
            ("POST", f"/threads/{thread}/runs/crons", CRON),
            ("POST", "/assistants", {"graph_id": "assistant"}),
            ("PUT", "/store/items", item("small", 1)),
        ]
        for method, path, body in doors:
            refused = await full.ask(method, path, body)
            assert refused.status_code == 429, (path, refused.text)
            assert refused.headers["content-type"] == "application/problem+json"
            assert (refused.headers["retry-after"], refused.json()["title"]) == ("60", "Too many requests")
            assert refused.json()["detail"].startswith("This tenant stores ")
            assert "its limit is 64 KiB: delete threads" in refused.json()["detail"]
        upload = await full.ask("POST", "/documents", b"text", **{"content-type": "text/plain"})
        assert upload.status_code == 429
        rejected = service.services.telemetry.meters.ratelimit_rejected.series
        assert rejected == {("storage",): len(doors) + 1}
        assert (await other.ask("POST", "/runs/wait", RUN)).status_code == 200
        assert (await other.ask("PUT", "/store/items", item("small", 1))).status_code == 204
        assert (await full.ask("GET", "/store/items?namespace=notes&key=large")).status_code == 200
        assert (await full.ask("POST", "/threads/search", {})).status_code == 200
        assert (await full.ask("PATCH", f"/threads/{thread}", {"ttl": 5})).status_code == 200
        assert (await full.ask("PATCH", f"/runs/crons/{cron}", {"enabled": False})).status_code == 200
        assert (await full.ask("DELETE", f"/runs/crons/{cron}")).status_code < 300
        assert (await full.ask("POST", "/threads/prune", {"thread_ids": [thread]})).status_code == 200
        assert (await full.ask("DELETE", "/store/items", {"namespace": ["notes"], "key": "large"})).status_code == 204
        await settle(service)
        assert (await full.ask("POST", "/runs/wait", RUN)).status_code == 200


async def test_runs_that_were_accepted_end_although_their_tenant_is_full(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, **keyed()) as service:
        one = await tenant(service, "one")
        await one.fill()
        run = (await one.ask("POST", "/runs", {**RUN, "after_seconds": 2, "on_completion": "keep"})).json()
        await service.services.auth.keys.set_limits("one", TenantLimits(bytes=KIB))
        await settle(service)
        assert (await one.ask("POST", "/runs", RUN)).status_code == 429
        path = f"/threads/{run['thread_id']}/runs/{run['run_id']}"
        assert (await one.ask("GET", f"{path}/join")).status_code == 200
        assert (await one.ask("GET", path)).json()["status"] == "success"


async def test_every_kind_of_data_is_measured_under_its_name(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, **keyed(AGENT_TENANT_BYTES=str(10**9))) as service:
        one = await tenant(service, "one")
        body = {**RUN, "on_completion": "keep"}
        assert (await one.ask("POST", "/runs/wait", body)).status_code == 200
        assert (await one.ask("POST", "/assistants", {"graph_id": "assistant"})).status_code == 200
        await one.fill(32 * KIB)
        content = os.urandom(64 * KIB).hex().encode()
        uploaded = await one.ask("POST", "/documents", content, **{"content-type": "text/plain"})
        assert uploaded.status_code == 202
        await settle(service)
        stored = await service.services.auth.keys.stored("one")
        assert stored is not None
        assert set(stored.by_kind) == set(queries.KINDS)
        assert min(stored.by_kind.values()) > 0, stored
        assert stored.bytes == sum(stored.by_kind.values())
        assert 32 * KIB <= stored.by_kind["store"] < 512 * KIB
        assert 64 * KIB <= stored.by_kind["documents"] < 256 * KIB
        assert service.services.limits.quota.highest_usage == pytest.approx(stored.bytes / 10**9)


async def test_the_setting_limits_every_tenant_and_a_limit_of_its_own_replaces_it_within_a_refresh(
    fresh_database_url: str,
) -> None:
    async with serving(fresh_database_url, **keyed(AGENT_TENANT_BYTES=str(64 * KIB))) as service:
        tenants = [await tenant(service, name) for name in ("plain", "free", "small")]
        await service.services.auth.keys.set_limits("free", TenantLimits(bytes=0))
        for one in tenants:
            await one.fill()
        await settle(service)

        async def statuses() -> list[int]:
            return [(await one.ask("POST", "/threads", {})).status_code for one in tenants]

        assert await statuses() == [429, 200, 429]
        await service.services.auth.keys.set_limits("small", TenantLimits(bytes=10**6))
        await service.services.limits.quota.refresh()
        assert await statuses() == [429, 200, 200], "more is felt without a measurement"
        await service.services.auth.keys.set_limits("small", TenantLimits(bytes=KIB))
        await service.services.limits.quota.sweep.find()
        await service.services.limits.quota.refresh()
        assert await statuses() == [429, 200, 429], "so is less"


async def test_nothing_is_measured_of_tenants_without_a_limit(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, **keyed()) as service:
        one = await tenant(service, "one")
        await one.fill()
        await service.services.auth.keys.set_limits("one", TenantLimits(bytes=KIB))
        await settle(service)
        assert await service.services.auth.keys.stored("one") is not None
        await service.services.auth.keys.set_limits("one", TenantLimits())
        await settle(service)
        assert await service.services.auth.keys.stored("one") is None
        assert (await one.ask("POST", "/threads", {})).status_code == 200


async def test_a_refusal_asks_the_database_nothing(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, **keyed(AGENT_TENANT_BYTES="1")) as service:
        one = await tenant(service, "one")
        await one.fill(KIB)
        await settle(service)
        await one.ask("POST", "/threads", {})  # the key is known from here on
        async with service.services.persistence.database.engine_connection() as connection:
            before = await connection.fetchval("select count(*) from threads")
        service.services.persistence.database.abort()
        assert (await one.ask("POST", "/threads", {})).status_code == 429
        assert before == 0


async def insert_items(database: Database, tenant_id: UUID, count: int) -> None:
    async with database.engine_connection() as connection:
        await connection.execute(
            "insert into checkpoint_items (tenant_id, thread_id, number, body)"
            " select $1, $1, n, '\\x00' from generate_series(1, $2::int) n",
            tenant_id,
            count,
        )


@pytest.fixture
async def sweeps(fresh_database_url: str) -> AsyncIterator[tuple[Database, list[StorageSweep]]]:
    """Sweeps of two processes, on one database, where two tenants have a limit."""
    database = Database(fresh_database_url, requests=2, engine=4)
    limiter = Limiter(LimitSettings())
    for name in ("first", "second"):
        tenant_id = tenant_id_of(name)
        async with database.writing(tenant_id) as session:
            statement = "insert into tenants (tenant_id, name, limits) values (:id, :name, '{\"bytes\": 100000}')"
            await session.execute(sa.text(statement), {"id": tenant_id, "name": name})
    yield database, [StorageSweep(database, limiter) for _ in range(2)]
    await database.aclose()


async def test_a_measurement_goes_page_by_page_over_processes_and_counts_each_row_once(
    sweeps: tuple[Database, list[StorageSweep]], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, both = sweeps
    first, second = tenant_id_of("first"), tenant_id_of("second")
    rows = 2 * queries.PAGE_ROWS + 7
    await insert_items(database, first, rows)
    await insert_items(database, second, 10)
    await both[0].find()
    monkeypatch.setattr(storage_quota, "SLICE_SECONDS", 1e-9)  # a page each
    slices = 0
    while await both[slices % 2].measure_slice():
        slices += 1
    assert slices == 2 * len(queries.MEASURED) + 2
    async with database.engine_connection() as connection:
        found = {row["tenant_id"]: row["bytes"] for row in await connection.fetch("select * from storage_usage")}
        each = found[second] // 10
        assert 48 < each < 96
        assert found == {first: rows * each, second: 10 * each}
        assert await connection.fetchval("select count(*) from storage_usage where next_at > now()") == 2


async def test_one_process_measures_at_a_time(sweeps: tuple[Database, list[StorageSweep]]) -> None:
    database, both = sweeps
    await both[0].find()
    async with database.engine_connection() as connection, connection.transaction():
        assert await connection.fetchval(queries.LOCK)
        assert not await both[1].measure_slice()
        assert not await both[1].find()
    assert await both[1].measure_slice()


async def test_a_measurement_that_fails_does_not_hold_up_other_tenants(
    sweeps: tuple[Database, list[StorageSweep]],
) -> None:
    database, both = sweeps
    await both[0].find()
    async with database.engine_connection() as connection:
        statement = "update storage_usage set next_at = '2000-01-01', walk = $2::jsonb where tenant_id = $1"
        await connection.execute(statement, tenant_id_of("first"), '{"table": "steps", "after": "[\\"no id\\", 1]"}')
    with pytest.raises(asyncpg.DataError):
        await both[0].measure_slice()
    while await both[0].measure_slice():
        pass
    async with database.engine_connection() as connection:
        measured = await connection.fetch("select tenant_id from storage_usage where measured_at is not null")
    assert [row["tenant_id"] for row in measured] == [tenant_id_of("second")]


async def test_a_tenant_sees_its_own_usage_alone(sweeps: tuple[Database, list[StorageSweep]]) -> None:
    database, both = sweeps
    await both[0].find()
    while await both[0].measure_slice():
        pass
    async with database.reading(tenant_id_of("first")) as session:
        assert [row.tenant_id for row in await session.all(sa.text("select * from storage_usage"))] == [
            tenant_id_of("first")
        ]


async def test_a_cron_of_a_full_tenant_is_skipped_and_says_why(replica: Replica) -> None:
    cron = await replica.create()
    replica.quota._full[TENANT] = storage_quota.OverQuota(2 * KIB, KIB)
    assert cron.next_run_date is not None
    assert await replica.at(cron.next_run_date) == 0
    async with replica.database.engine_connection() as connection:
        assert "stores 2 KiB, its limit is 1 KiB" in await connection.fetchval("select problem from cron_slots")
    replica.quota._full.clear()
    following = (await replica.get(cron)).next_run_date
    assert following is not None
    assert await replica.at(following) == 1


def test_a_process_that_does_not_know_the_limit_reads_the_others() -> None:
    class Before(msgspec.Struct, frozen=True, omit_defaults=True):
        """Limits of an older process, which ignores those of later versions."""

        runs: int | None = None

    written = msgspec.to_builtins(TenantLimits(runs=3, bytes=10))
    assert written == {"runs": 3, "bytes": 10}
    assert msgspec.convert(written, Before) == Before(runs=3)
    assert msgspec.convert({"runs": 3}, TenantLimits) == TenantLimits(runs=3)


async def test_every_column_of_any_length_is_counted(database: Database) -> None:
    assert queries.WIDTHS == WIDTHS
    lengths = "select attname, attlen from pg_attribute where attrelid = $1::text::regclass and attnum > 0"
    async with database.engine_connection() as connection:
        for one in queries.MEASURED.values():
            length = {row["attname"]: row["attlen"] for row in await connection.fetch(lengths, one.table)}
            fixed, sized = queries.sizes_of(one.table)
            assert set(sized) == {name for name, bytes_ in length.items() if bytes_ < 0}, one.table
            assert fixed == sum(bytes_ for bytes_ in length.values() if bytes_ > 0), one.table
            key = [column for column in one.key if column in metadata.tables[one.table].columns]
            assert key == list(one.key), one.table


def test_routes_that_write_and_are_not_held_up_are_these() -> None:
    free = {
        handler.handler_name
        for controller in CONTROLLERS
        for handler in vars(controller).values()
        if getattr(handler, "opt", {}).get("stores") is False
    }
    assert free == {"change", "prune", "cancel", "cancel_many", "latest"}
    assert "stores" not in WRITES


async def test_a_quota_without_limits_costs_one_query(database: Database) -> None:
    quota = StorageQuota(database, Limiter(LimitSettings()))
    await asyncio.wait_for(quota.refresh(), 10)
    quota.check(TENANT)
    assert quota.highest_usage == 0
