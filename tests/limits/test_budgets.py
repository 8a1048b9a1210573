"""Budgets of tenants: reserved before a run, settled after it, never exceeded unnoticed."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from app.base.errors import UsageError
from app.security.access.structs import tenant_id_of
from app.security.limits.prices import Price, Prices
from app.security.limits.structs import TenantLimits
from tests.llm.fake_provider import FakeProvider
from tests.llm.wires import Say
from tests.system.services import API, Service, serving

AGENTS = """
[agents.priced]
model = "openai:tiny-chat"

[agents.looping]
model = "openai:tiny-chat"
tools = ["clock"]
"""
PRICES = '"openai:tiny" = [10.0, 100.0]\n'


@pytest.fixture
def settings(provider: FakeProvider, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "prices.toml").write_text(PRICES)
    return {
        "AGENT_AUTH": "api_key",
        "AGENT_RATE_PER_MINUTE": "0",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "AGENT_PRICES": str(tmp_path / "prices.toml"),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": "sk-test",
    }


async def run(service: Service, key: str, agent: str = "priced", how: str = "wait", **more: Any) -> httpx.Response:
    body = {"assistant_id": agent, "input": {"messages": [{"role": "user", "content": "hello"}]}, **more}
    return await service.client.post(
        f"{API}/runs/{how}" if how else f"{API}/runs", json=body, headers={"x-api-key": key}
    )


async def spending(service: Service, tenant: str) -> tuple[float, float, int]:
    """What is reserved, spent (dollars), and the tokens, once everything is written."""
    await service.services.limits.budgets.flush()
    async with service.services.persistence.database.reading(tenant_id_of(tenant)) as session:
        row = await session.first(sa.text("select reserved, spent, tokens from spending"))
    assert row is not None
    return float(row.reserved), float(row.spent), row.tokens


async def rejected(service: Service, limit: str) -> int:
    """Rejections by this limit according to the metrics."""
    page = (await service.client.get("/metrics")).text
    found = re.search(rf'agent_ratelimit_rejected_total{{limit="{limit}"}} (\d+)', page)
    return int(found[1]) if found else 0


async def test_spending_is_recorded_and_the_rest_of_the_reservation_released(
    fresh_database_url: str, settings: dict[str, Any]
) -> None:
    async with serving(fresh_database_url, AGENT_COST_PER_DAY="5", **settings) as service:
        key = await service.key("spender")
        answer = await run(service, key)
        assert answer.status_code == 200, answer.text
        usage = answer.json()["messages"][-1]["usage_metadata"]
        cost = (usage["input_tokens"] * 10 + usage["output_tokens"] * 100) / 1e6
        reserved, spent, tokens = await spending(service, "spender")
        assert (round(reserved, 9), round(spent, 9), tokens) == (0.0, round(cost, 9), usage["total_tokens"])
        costs = service.services.telemetry.meters.model_cost.series
        assert {who: round(dollars, 9) for who, dollars in costs.items()} == {("openai", "tiny-chat"): round(cost, 9)}
        assert round(service.services.limits.budgets.highest_usage, 6) == 0.04, "the run had reserved 0.2 of 5 dollars"


async def test_a_tenant_that_has_spent_its_dollars_is_429_until_tomorrow(
    fresh_database_url: str, settings: dict[str, Any]
) -> None:
    """A run reserves 2,000 tokens at the dearer price: 20 cents."""
    async with serving(fresh_database_url, AGENT_COST_PER_DAY="0.2", **settings) as service:
        key, other = await service.key("poor"), await service.key("not so poor")
        assert (await run(service, key)).status_code == 200
        refused = await run(service, key)
        assert refused.status_code == 429
        assert "has spent its 0.2 dollars per day" in refused.json()["detail"]
        assert service.services.telemetry.meters.ratelimit_rejected.series == {("cost",): 1}
        assert service.services.limits.budgets.highest_usage == 1
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        assert await rejected(service, "cost") == 1
        assert (await run(service, other)).status_code == 200
        await service.services.auth.keys.set_limits("poor", TenantLimits(cost_per_day=100))
        assert (await run(service, await service.key("poor"))).status_code == 200


async def test_runs_at_once_reserve_together_no_more_than_there_is(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    async with serving(fresh_database_url, AGENT_COST_PER_DAY="1", **settings) as service:
        key = await service.key("crowd")
        answers = await asyncio.gather(*(run(service, key, how="") for _ in range(20)))
        granted = sum(answer.status_code == 200 for answer in answers)
        assert 5 <= granted <= 6, "five fit; one that has ended already may make room for another"
        assert {answer.status_code for answer in answers} == {200, 429}


async def test_a_run_that_uses_up_what_it_reserved_asks_for_more_and_stops_where_there_is_none(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    """Ten tokens at the dearer price are a tenth of a cent, an answer costs 0.027 cents: four answers."""
    provider.plan(*(Say(text="One moment.", calls=[("clock", "{}")]) for _ in range(8)))
    more = {"AGENT_COST_PER_DAY": "0.0015", "AGENT_RESERVE_TOKENS": "10"}
    async with serving(fresh_database_url, **{**settings, **more}) as service:
        key = await service.key("looper")
        answer = await run(service, key, "looping")
        assert answer.json().get("__error__", answer.json())["error"] == "BudgetSpent"
        assert "dollars per day, so the run was stopped" in answer.json()["__error__"]["message"]
        asked = sum(request.path.endswith("completions") for request in provider.requests)
        assert asked == 4
        reserved, spent, _ = await spending(service, "looper")
        assert round(reserved, 9) == 0
        assert round(spent, 9) == 0.00108


async def test_tokens_a_minute_are_reserved_and_settled(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider
) -> None:
    """Of 3,000 tokens a run reserves 2,000 and uses a few: the next one may come when the rest is back."""
    async with serving(fresh_database_url, AGENT_TOKENS_PER_MINUTE="3000", **settings) as service:
        key = await service.key("tokens")
        assert (await run(service, key)).status_code == 200
        await service.services.limits.budgets.flush()
        assert (await run(service, key)).status_code == 200
        at_once = await asyncio.gather(*(run(service, key) for _ in range(3)))
        refusals = [answer.status_code for answer in at_once].count(429)
        assert refusals > 0
        assert service.services.telemetry.meters.ratelimit_rejected.series == {("tokens",): refusals}
        refused = next(answer for answer in at_once if answer.status_code == 429)
        assert "3000 tokens per minute" in refused.json()["detail"]
        assert await rejected(service, "tokens") == [answer.status_code for answer in at_once].count(429)


async def test_a_request_that_makes_no_run_gives_back_what_was_reserved_for_it(
    fresh_database_url: str, settings: dict[str, Any]
) -> None:
    async with serving(fresh_database_url, AGENT_COST_PER_DAY="0.3", **settings) as service:
        key = await service.key("careful")
        thread = "00000000-0000-0000-0000-000000000007"
        body = {"assistant_id": "priced", "input": {"messages": [{"role": "user", "content": "hello"}]}}
        for _ in range(5):
            answer = await service.client.post(f"{API}/threads/{thread}/runs", json=body, headers={"x-api-key": key})
            assert answer.status_code == 404
            await service.services.limits.budgets.flush()
        headers = {"x-api-key": key, "idempotency-key": "once"}
        answers = []
        for _ in range(3):
            answers.append(await service.client.post(f"{API}/runs/wait", json=body, headers=headers))
            await service.services.limits.budgets.flush()
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert (await spending(service, "careful"))[0] == 0


async def test_runs_that_are_not_ended_and_those_that_wait_are_counted_exactly(
    fresh_database_url: str, settings: dict[str, Any]
) -> None:
    """By the database, under a lock of the tenant: twenty requests to two servers get five runs."""
    more = {"AGENT_TENANT_RUNS": "5", "AGENT_TENANT_QUEUE": "5"}
    async with (
        serving(fresh_database_url, **{**settings, **more}) as one,
        serving(fresh_database_url, **{**settings, **more}) as two,
    ):
        key = await one.key("queue")
        asked = (run(server, key, how="", after_seconds=600) for _ in range(10) for server in (one, two))
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "5 active runs" in refused.json()["detail"]
        batch = [{"assistant_id": "priced", "input": {"messages": []}}] * 2
        refused = await one.client.post(f"{API}/runs/batch", json=batch, headers={"x-api-key": key})
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert await rejected(one, "runs") + await rejected(two, "runs") == 16


def test_the_longest_matching_name_prices_a_model_and_unknown_ones_are_expensive(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('"openai:gpt-5-mini" = [1, 2]\n"openai:llama" = [0, 0]\n')
    prices = Prices(str(own))
    assert prices.of("openai:gpt-5-mini-2025-08-07") == Price(1, 2)
    assert prices.of("openai:gpt-5") == Price(1.25, 10)
    assert prices.of("openai:llama3.3") == Price(0, 0)
    assert prices.of("scripted:demo") == Price(0, 0)
    assert prices.of("unknown:model") == Price(15, 75)
    assert prices.cost("openai:gpt-5", 1_000_000, 500_000) == pytest.approx(6.25)


@pytest.mark.parametrize(
    "text", ["not toml", '"a" = 1', '"a" = [1]', '"a" = ["x", 1]', '"a" = [-1, 1]', '"a" = [nan, 1]']
)
def test_a_file_without_prices_stops_the_start(tmp_path: Path, text: str) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(UsageError, match="AGENT_PRICES"):
        Prices(str(own))
    with pytest.raises(UsageError, match="AGENT_PRICES"):
        Prices(str(tmp_path / "nothing.toml"))
