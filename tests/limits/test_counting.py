"""Runs, tokens and bytes are counted wherever they originate: batches, uploads, crons, embeddings."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.base.errors import Limited
from app.infra.db.engine import Database
from app.infra.settings import LimitSettings
from app.infra.telemetry.meters import Meters
from app.security.access.structs import tenant_id_of
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices
from app.security.limits.structs import TenantLimits
from tests.crons.conftest import clock, database, replica
from tests.crons.replicas import Clock, Replica
from tests.embed.server import Embeddings
from tests.runs.engine import TENANT
from tests.system.services import API, Service, serving

__all__ = ["clock", "database", "replica"]

RUN = {"assistant_id": "assistant", "input": {"messages": [{"role": "user", "content": "hello"}]}}
MODEL = """
[[store.index]]
embedder = "openai:text-embed-1"
dimensions = 64
"""
BEFORE_MIDNIGHT = datetime(2026, 3, 2, 23, 59, tzinfo=UTC)
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def count(service: Service, table: str) -> int:
    async with service.services.persistence.database.engine_connection() as connection:
        return int(await connection.fetchval(f"select count(*) from {table}"))


async def test_a_batch_counts_each_of_its_runs_and_is_taken_or_refused_whole(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="10") as service:
        headers = {"x-api-key": await service.key("batches")}

        async def post(path: str, body: Any) -> Any:
            return await service.client.post(API + path, json=body, headers=headers)

        taken = await post("/runs/batch", [RUN] * 7)
        assert taken.status_code == 200, taken.text
        assert taken.headers["ratelimit"].startswith('"llm";r=3;t=')
        refused = await post("/runs/batch", [RUN] * 4)
        assert refused.status_code == 429
        assert "this request has 4: try again in" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) <= 60
        assert await count(service, "runs where assistant_id is not null") == 7
        huge = await post("/runs/batch", [RUN] * 11)
        assert (huge.status_code, "send it in parts" in huge.json()["detail"]) == (429, True)
        assert [(await post("/runs/wait", RUN)).status_code for _ in range(4)] == [200, 200, 200, 429]


async def test_an_upload_counts_as_the_run_that_reads_it(fresh_database_url: str) -> None:
    async with serving(fresh_database_url, AGENT_AUTH="api_key", AGENT_RATE_PER_MINUTE="2") as service:
        headers = {"x-api-key": await service.key("uploads"), "content-type": "text/plain"}
        statuses = [
            (await service.client.post(f"{API}/documents", content=f"text {number}", headers=headers)).status_code
            for number in range(3)
        ]
        assert statuses == [202, 202, 429]


async def test_a_budget_of_dollars_lasts_until_midnight_utc(database: Database, clock: Clock) -> None:
    clock.at = BEFORE_MIDNIGHT
    limiter = Limiter(LimitSettings(reserve_tokens=1_000_000))
    budgets = Budgets(database, limiter, Prices(), lambda _: "openai:gpt-4o", Meters(), clock)
    own = TenantLimits(cost_per_day=1.5 * max(Prices().of("openai:gpt-4o")))
    assert await budgets.reserve(TENANT, own, "echo") is not None
    with pytest.raises(Limited, match="try again tomorrow") as refused:
        await budgets.reserve(TENANT, own, "echo")
    assert refused.value.retry_after == 60
    clock.at += MINUTE
    assert await budgets.reserve(TENANT, own, "echo") is not None


async def test_crons_beyond_the_rate_of_their_tenant_run_later_and_stop_no_other_tenant_s(replica: Replica) -> None:
    def seconds() -> float:
        return replica.clock.at.timestamp()

    limiter = Limiter(LimitSettings(rate_per_minute=2), clock=seconds)
    replica.engine.parts.budgets._limiter = limiter
    for _ in range(4):
        await replica.create("0 0 * * *")
    runs = await replica.at(NOON + timedelta(hours=12))
    assert runs == 2
    assert await replica.at(NOON + timedelta(hours=12, seconds=1)) == 2
    assert await replica.at(NOON + timedelta(hours=12, seconds=31)) == 3
    assert await replica.at(NOON + timedelta(hours=12, seconds=62)) == 4, "each of its times has had its run"
    assert await replica.at(NOON + timedelta(hours=13)) == 4


@pytest.fixture
async def server() -> AsyncIterator[Embeddings]:
    async with Embeddings() as server:
        yield server


@pytest.fixture
def embedding(server: Embeddings, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "agents.toml"
    file.write_text(MODEL)
    return {
        "AGENT_AUTH": "api_key",
        "AGENT_CONFIG": str(file),
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": "sk-test",
    }


async def put(service: Service, key: str, name: str, text: str) -> Any:
    body = {"namespace": ["notes"], "key": name, "value": {"text": text}}
    return await service.client.put(f"{API}/store/items", json=body, headers={"x-api-key": key})


async def search(service: Service, key: str, query: str) -> Any:
    body = {"namespace_prefix": ["notes"], "query": query}
    return await service.client.post(f"{API}/store/items/search", json=body, headers={"x-api-key": key})


async def test_embeddings_are_charged_to_the_tenant_whose_texts_they_are(
    fresh_database_url: str, embedding: dict[str, Any]
) -> None:
    async with serving(fresh_database_url, **embedding) as service:
        key = await service.key("embedding")
        assert (await put(service, key, "one", "word " * 400)).status_code < 300
        assert (await search(service, key, "ship " * 200)).status_code == 200
        await service.services.limits.budgets.flush()
        async with service.services.persistence.database.reading(tenant_id_of("embedding")) as session:
            row = await session.first(sa.text("select spent, tokens from spending"))
        assert row is not None
        assert 740 <= row.tokens <= 760
        assert row.spent > 0


@pytest.mark.parametrize("limits", [TenantLimits(tokens_per_minute=400), TenantLimits(cost_per_day=0.005)])
async def test_embeddings_beyond_the_budget_of_a_tenant_are_429_and_of_another_are_not(
    fresh_database_url: str, embedding: dict[str, Any], server: Embeddings, limits: TenantLimits
) -> None:
    async with serving(fresh_database_url, **embedding) as service:
        key, other = await service.key("limited"), await service.key("other")
        await service.services.auth.keys.set_limits("limited", limits)
        assert (await put(service, key, "one", "word " * 400)).status_code < 300
        await service.services.limits.budgets.flush()
        asked = len(server.asked)
        for refused in (await put(service, key, "two", "another"), await search(service, key, "ship")):
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
        assert len(server.asked) == asked
        assert (await put(service, other, "one", "other words")).status_code < 300


async def test_an_ingestion_stops_between_two_batches_once_the_budget_is_spent(
    fresh_database_url: str, embedding: dict[str, Any], server: Embeddings
) -> None:
    text = "\n\n".join(f"Paragraph {number}: {'word ' * 300}" for number in range(400)).encode()
    async with serving(fresh_database_url, **embedding, AGENT_RESERVE_TOKENS="1") as service:
        key = await service.key("poor")
        headers = {"x-api-key": key, "content-type": "text/plain"}
        await service.services.auth.keys.set_limits("poor", TenantLimits(cost_per_day=0.05))
        taken = await service.client.post(f"{API}/documents", content=text, headers=headers)
        assert taken.status_code == 202, taken.text
        document = taken.json()
        of = f"{API}/threads/{document['thread_id']}/runs/{document['run_id']}"
        await service.client.get(f"{of}/join", headers=headers, timeout=40)
        run = (await service.client.get(of, headers=headers)).json()
        found = (await service.client.get(f"{API}/documents/{document['document_id']}", headers=headers)).json()
        assert run["status"] == "error"
        assert found["status"] == "failed"
        assert "has spent its 0.05 dollars per day" in found["error"]
        assert 0 < found["chunks"] < 400, "what was indexed stays"
        await service.services.auth.keys.set_limits("poor", TenantLimits(cost_per_day=1000))
        at = f"{API}/documents/{document['document_id']}"
        async with asyncio.timeout(40):
            while found["status"] != "ready":  # new limits are in force after some seconds
                await asyncio.sleep(0.5)
                again = await service.client.post(f"{API}/documents", content=text, headers=headers)
                if again.is_success:
                    of = f"{API}/threads/{again.json()['thread_id']}/runs/{again.json()['run_id']}"
                    await service.client.get(f"{of}/join", headers=headers, timeout=40)
                found = (await service.client.get(at, headers=headers)).json()


async def test_bytes_of_bodies_are_counted_also_of_those_that_do_not_say_how_long_they_are(
    fresh_database_url: str,
) -> None:
    settings: dict[str, Any] = {"AGENT_AUTH": "api_key", "AGENT_BYTES_PER_MINUTE": "20000"}
    async with serving(fresh_database_url, **settings) as service:
        key, other = await service.key("bytes"), await service.key("other")
        assert (await put(service, key, "one", "x" * 15_000)).status_code < 300
        refused = await put(service, key, "two", "x" * 15_000)
        assert refused.status_code == 429
        assert "may send 20000 bytes a minute: try again in" in refused.json()["detail"]
        assert "send less" in (await put(service, key, "two", "x" * 30_000)).json()["detail"]
        assert (await put(service, other, "one", "x" * 15_000)).status_code < 300

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x" * 5_000

        headers = {"x-api-key": other, "content-type": "text/plain"}
        assert (await service.client.post(f"{API}/documents", content=pieces(), headers=headers)).status_code == 202
        assert (await put(service, other, "two", "x")).status_code == 429
