"""Caches in the whole program: requests to providers, sharing between processes, charges."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from redis.asyncio import Redis

from app.security.access.structs import tenant_id_of
from tests.cli.commands import run_command
from tests.embed.server import Embeddings
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.llm.wires import Say
from tests.redis import RedisServer
from tests.store.conftest import Tenant, store_on
from tests.system.services import API, Service, serving
from tests.waiting import eventually

AGENTS = """
[agents.kept]
model = "openai:tiny-chat"
tools = ["calculator"]
cache = { ttl = 600 }

[agents.plain]
model = "openai:tiny-chat"

[agents.function]
function = "./asks.py:run"
model = "openai:tiny-chat"
cache = {}

[store]
embedder = "openai:small"
dimensions = 64
"""
ASKS = """
async def run(context, question: str):
    return {"said": await context.model.text(question)}
"""


@pytest.fixture
def settings(provider: FakeProvider, redis: RedisServer, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "asks.py").write_text(ASKS)
    return {
        "AGENT_AUTH": "api_key",
        "AGENT_RATE_PER_MINUTE": "0",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "AGENT_COST_PER_DAY": "5",
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": "sk-test",
        "REDIS_CACHE_URL": redis.url,
    }


async def ask(
    service: Service, key: str, agent: str = "kept", text: str = "hello", how: str = "wait"
) -> httpx.Response:
    given: dict[str, Any] = {"messages": [{"role": "user", "content": text, "id": str(uuid.uuid4())}]}
    body = {
        "assistant_id": agent,
        "input": text if agent == "function" else given,
        "stream_mode": ["messages-tuple", "values"],
    }
    answer = await service.client.post(f"{API}/runs/{how}", json=body, headers={"x-api-key": key})
    assert answer.status_code == 200, answer.text
    return answer


async def said(service: Service, key: str, agent: str = "kept", text: str = "hello") -> Any:
    return (await ask(service, key, agent, text)).json()["messages"][-1]


def asked(provider: FakeProvider) -> int:
    return sum(request.path.endswith("completions") for request in provider.requests)


async def test_an_agent_that_asks_for_it_has_its_answers_kept_for_its_tenant_in_all_processes(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    provider.plan(Say(text="first"), Say(text="for another"))
    async with serving(fresh_database_url, **settings) as one, serving(fresh_database_url, **settings) as two:
        key, other = await one.key("acme"), await one.key("other")
        first, second = await said(one, key), await said(two, key)
        assert first["content"] == second["content"] == "first"
        assert first["id"] != second["id"]
        assert "cached" not in first["response_metadata"]
        assert second["response_metadata"]["cached"] is True
        assert second["usage_metadata"]["total_tokens"] == 0
        assert second["usage_metadata"]["input_token_details"]["response_cache"] > 0
        assert (await said(two, other))["content"] == "for another"
    assert asked(provider) == 2


async def test_an_agent_without_the_cache_calls_the_model_again(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")
        for _ in range(2):
            assert "cached" not in (await said(service, key, "plain"))["response_metadata"]
    assert asked(provider) == 2


async def test_a_kept_answer_streams_and_its_tools_run_again_under_ids_of_their_own(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    provider.plan(Say(text="", calls=[("calculator", '{"expression":"6*7"}')]), Say(text="It is 42."))
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")
        runs = [(await ask(service, key)).json()["messages"] for _ in range(3)]
        stream = (await ask(service, key, how="stream")).text
    assert asked(provider) == 2, "both questions of the run are the same in every run"
    for messages in runs:
        assert [message["type"] for message in messages] == ["human", "ai", "tool", "ai"]
        assert messages[2]["content"] == "42"
        assert messages[2]["tool_call_id"] == messages[1]["tool_calls"][0]["id"]
        assert messages[3]["content"] == "It is 42."
    assert len({messages[1]["tool_calls"][0]["id"] for messages in runs}) == 3
    assert len({message["id"] for messages in runs for message in messages}) == 12
    assert "It is 42." in stream
    assert "event: messages" in stream


async def test_function_agents_have_it_too(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")
        answers = [(await ask(service, key, "function")).json()["said"] for _ in range(2)]
    assert answers == ["Hello there"] * 2
    assert asked(provider) == 1


async def test_a_cached_response_costs_nothing(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")

        async def tokens() -> int:
            await service.services.limits.budgets.flush()
            async with service.services.persistence.database.reading(tenant_id_of("acme")) as session:
                return int(await session.scalar(sa.text("select tokens from spending")))

        usage = (await said(service, key))["usage_metadata"]
        assert await tokens() == usage["total_tokens"] > 0
        await said(service, key)
        assert await tokens() == usage["total_tokens"]
        saved = sum(service.services.telemetry.meters.cache_tokens.series.values())
        assert saved == usage["total_tokens"]
        page = (await service.client.get("/metrics")).text
    assert 'agent_cache_requests_total{cache="answers",outcome="hit"} 1' in page.replace('worker="1",', "")


async def test_failures_are_not_cached(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    provider.plan(Fault.BAD_REQUEST, Say(text="better"))
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")
        assert (await ask(service, key)).json()["__error__"]["error"] == "ModelRejected"
        assert (await said(service, key))["content"] == "better"


async def test_concurrent_runs_share_one_request(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")
        answers = await asyncio.gather(*(said(service, key) for _ in range(8)))
    assert {answer["content"] for answer in answers} == {"Hello there"}
    assert len({answer["id"] for answer in answers}) == 8
    assert sum("cached" not in answer["response_metadata"] for answer in answers) == asked(provider) == 1


async def test_keys_contain_no_words_of_a_request(
    fresh_database_url: str, settings: dict[str, Any], redis: RedisServer
) -> None:
    async with serving(fresh_database_url, **settings) as service, Redis.from_url(redis.url) as direct:
        await said(service, await service.key("acme"), text="canary-4711")
        keys = await direct.keys("*")
        assert len(keys) == 1
        assert b"canary" not in keys[0]
        assert 0 < await direct.ttl(keys[0]) <= 600


@pytest.mark.parametrize("trouble", ["stop", "freeze"])
async def test_without_its_cache_a_process_is_degraded_and_works(
    fresh_database_url: str, settings: dict[str, Any], redis: RedisServer, trouble: str
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("acme")

        async def status() -> Any:
            return (await service.get("/health", key)).json()["checks"]["cache"]

        await said(service, key)
        assert await status() == {"status": "healthy"}
        getattr(redis, trouble)()
        assert "cached" not in (await said(service, key))["response_metadata"]
        found = await status()
        assert found["status"] == "degraded"
        assert "does not answer" in found["reason"]
        assert str(redis.port) not in str(found)
        health = await service.get("/health", key)
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert (await service.get("/health/ready")).status_code == 200
        if trouble == "freeze":
            redis.thaw()
        else:
            redis.start()
        await eventually(lambda: not service.services.persistence.caches.cache.trouble)
        assert await status() == {"status": "healthy"}


async def test_texts_of_items_and_queries_are_embedded_once(
    fresh_database_url: str, settings: dict[str, Any], redis: RedisServer
) -> None:
    async with Embeddings() as server:
        mine = {**settings, "OPENAI_BASE_URL": server.url}
        async with store_on(fresh_database_url, **mine) as store, store_on(fresh_database_url, **mine) as second:

            async def use(tenant: Tenant) -> list[str]:
                await tenant.put("docs", "a", {"text": "a kitten"})
                await tenant.put("docs", "b", {"text": "a physician"})
                return await tenant.keys("docs", query="feline", limit=1)

            async with store.tenant("ours") as ours, second.tenant("ours") as again, store.tenant("theirs") as theirs:
                assert await use(ours) == ["a"]
                assert server.texts == 3
                assert await use(again) == await use(ours) == ["a"]
                assert server.texts == 3, "what is there is not asked for again, in any process"
                await use(theirs)
                assert server.texts == 6, "what another tenant has stored tells itself by nothing"
                redis.stop()
                assert await use(ours) == ["a"]


async def test_deleting_a_tenant_deletes_its_cached_values(
    fresh_database_url: str, settings: dict[str, Any], redis: RedisServer, tmp_path: Path
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        for tenant in ("acme", "other"):
            await said(service, await service.key(tenant))
    command = ("data", "delete", "--tenant", "acme", "--yes")
    done = run_command(tmp_path, *command, DATABASE_URL=fresh_database_url, REDIS_CACHE_URL=redis.url)
    assert done.returncode == 0, done.stderr
    async with Redis.from_url(redis.url) as direct:
        (left,) = await direct.keys("*")
    assert tenant_id_of("other").hex.encode() in left
    redis.stop()
    again = run_command(tmp_path, *command, DATABASE_URL=fresh_database_url, REDIS_CACHE_URL=redis.url)
    assert again.returncode == 1
    assert "REDIS_CACHE_URL does not answer" in again.stderr
