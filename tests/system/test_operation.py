"""What operators see: usage and prices, the queue, the workers, the configuration in effect."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.security.access.structs import READ, ROLES, WRITE
from tests.system.services import API, Service, serving
from tests.waiting import eventually

AGENTS = """
[agents.priced]
model = "scripted:demo"
tools = ["./code.py:wait"]
[agents.echo2]
model = "scripted:echo"
[agents.broken]
function = "./code.py:broken"
"""
CODE = '''
import asyncio

from app.agents.function import Context


async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: how long
    """
    await asyncio.sleep(seconds)
    return "done"


async def broken(context: Context, topic: dict) -> str:
    raise ValueError("broken")
'''
PRICES = '"scripted:demo" = [1000.0, 2000.0]'


@pytest.fixture
async def service(fresh_database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "prices.toml").write_text(PRICES)
    settings: dict[str, Any] = {
        "AGENT_AUTH": "api_key",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "AGENT_PRICES": str(tmp_path / "prices.toml"),
        "AGENT_JWT_JWKS_URL": "https://user:hidden/@hidden@127.0.0.1:1/keys?token=hidden&n=hidden",
        "OPENAI_API_KEY": "sk-hidden",
    }
    async with serving(fresh_database_url, **settings) as service:
        yield service


async def post(service: Service, key: str, path: str, body: Any) -> Any:
    answer = await service.client.post(API + path, json=body, headers={"x-api-key": key})
    assert answer.is_success, answer.text
    return answer


async def test_usage_is_counted_by_day_agent_requester_and_model(service: Service) -> None:
    one, other, stranger = await service.key("acme"), await service.key("acme"), await service.key("rival")
    threads = [(await post(service, key, "/threads", {})).json()["thread_id"] for key in (one, one, other)]
    for key, thread, agent in zip((one, one, other), threads, ("priced", "echo2", "priced"), strict=True):
        await post(service, key, f"/threads/{thread}/runs/wait", {"assistant_id": agent, "input": "What is 2+3?"})
    await post(service, one, f"/threads/{threads[0]}/runs/wait", {"assistant_id": "broken", "input": {"topic": {}}})
    states = (await post(service, one, "/runs/search", {"limit": 10})).json()
    used = [run["usage"] or dict.fromkeys(("input_tokens", "output_tokens"), 0) for run in states]

    async def counted() -> Any:
        return sum(row["runs"] for row in (await service.get("/usage", one)).json()) == len(states)

    await eventually(counted)
    today = datetime.now(UTC).date()
    rows = (await service.get("/usage", one)).json()
    assert {row["agent"]: row["failed"] for row in rows} == {"priced": 0, "echo2": 0, "broken": 1}
    assert {row["day"] for row in rows} <= {str(today), str(today - timedelta(days=1))}
    for name in ("input_tokens", "output_tokens"):
        assert sum(row[name] for row in rows) == sum(usage[name] for usage in used)
    priced = next(row for row in rows if row["agent"] == "priced")
    assert priced["total_tokens"] == priced["input_tokens"] + priced["output_tokens"]
    assert priced["dollars"] == pytest.approx(priced["input_tokens"] * 1e-3 + priced["output_tokens"] * 2e-3)
    assert priced["dollars"] > 0
    keys = (await service.get("/usage?by=requested_by", one)).json()
    assert {row["requested_by"] for row in keys} == {key.split("_")[1] for key in (one, other)}
    assert {row["key_name"] for row in keys} == {"test"}
    models = (await service.get("/usage?by=model", one)).json()
    assert {row["model"] for row in models} == {"scripted:demo", "scripted:echo"}
    assert "agent" not in models[0]
    assert (await service.get(f"/usage?until={today - timedelta(days=3)}", one)).json() == []
    assert (await service.get("/usage", stranger)).json() == []
    assert (await service.get("/usage?by=cost", one)).status_code == 422


async def test_prices_are_those_of_the_list_and_of_the_operator(service: Service) -> None:
    key = await service.key("acme", READ)
    prices = {one.pop("model"): one for one in (await service.get("/prices", key)).json()}
    assert prices["scripted:demo"] == {"input": 1000.0, "output": 2000.0}
    assert prices["*"]["input"] > 0


async def test_the_queue_and_the_workers_show_what_waits_and_what_runs(service: Service) -> None:
    key, stranger = await service.key("acme"), await service.key("rival")
    thread = (await post(service, key, "/threads", {})).json()["thread_id"]
    later = {"assistant_id": "priced", "input": "x", "after_seconds": 3600}
    await post(service, key, "/runs", later)
    running = {"assistant_id": "priced", "input": "call wait seconds=30"}
    run = (await post(service, key, f"/threads/{thread}/runs", running)).json()["run_id"]
    waiting = {"assistant_id": "echo2", "input": "x", "multitask_strategy": "enqueue"}
    await post(service, key, f"/threads/{thread}/runs", waiting)
    queue = (await service.get("/queue", key)).json()
    assert [queue[name] for name in ("pending", "scheduled", "running")] == [1, 1, 1]
    agents = {one.pop("agent"): one for one in queue["agents"]}
    assert agents["echo2"]["pending"] == 1
    assert agents["echo2"]["oldest_due"] == queue["oldest_due"]
    assert agents["priced"]["scheduled"] == 1
    assert (await service.get("/queue", stranger)).json()["agents"] == []
    workers = (await service.get("/admin/workers", stranger)).json()
    assert (workers["processes"], workers["alive"]) == (1, 1)
    [holder] = workers["holders"]
    assert holder["runs"] == 1
    assert holder["worker"] == str(service.services.engine.parts.claims.owner)
    assert holder["worker"].startswith(holder["server"])
    await post(service, key, f"/threads/{thread}/runs/{run}/cancel", None)


async def test_the_configuration_in_effect_hides_secrets(service: Service) -> None:
    answer = await service.get("/admin/configuration", await service.key("acme"))
    settings = {one["name"]: one for one in answer.json()}
    assert "hidden" not in answer.text
    assert settings["OPENAI_API_KEY"]["value"] == settings["DATABASE_URL"]["value"] == "***"
    assert settings["AGENT_JWT_JWKS_URL"]["value"] == "https://***@127.0.0.1:1/keys?token=***&n=***"
    assert settings["AGENT_AUTH"]["value"] == "api_key"
    assert settings["PORT"] == settings["PORT"] | {"value": 8000, "is_default": True, "secret": False}
    assert not settings["AGENT_CONFIG"]["is_default"]
    member = await service.key("acme", READ, WRITE)
    operator = await service.key("acme", *ROLES["operator"])
    for path in ("/usage", "/queue"):
        assert (await service.get(path, member)).status_code == 403
        assert (await service.get(path, operator)).status_code == 200
    for path in ("/admin/workers", "/admin/configuration"):
        assert (await service.get(path, operator)).status_code == 403
