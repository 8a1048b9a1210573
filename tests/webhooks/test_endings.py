"""Webhooks for every way in which a run ends, also after crashes and deletions."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.features.webhooks import dispatcher
from tests.runs.engine import fetch
from tests.system.services import API, serving
from tests.waiting import eventually
from tests.webhooks.receiver import Receiver, receiving
from tests.webhooks.test_delivery import HERE, begin, deliveries

AGENTS = {**HERE, "AGENT_CONFIG": str(Path(__file__).parent / "agents" / "agents.toml")}


async def received(receiver: Receiver) -> dict[str, Any]:
    (call,) = await receiver.until(1)
    body: dict[str, Any] = call.read()
    return body


def at(run: dict[str, Any]) -> str:
    return f"{API}/threads/{run['thread_id']}/runs/{run['run_id']}"


@pytest.mark.parametrize(
    "agent, status, error",
    [("fails", "error", "RuntimeError"), ("late", "timeout", "RunTimeout"), ("asks", "interrupted", None)],
)
async def test_the_webhook_reports_how_a_run_ended(
    fresh_database_url: str, agent: str, status: str, error: str | None
) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **AGENTS) as service:
        run = await begin(service, receiver.url, assistant_id=agent)
        body = await received(receiver)
        shown = (await service.client.get(at(run))).json()
    assert (body["run_id"], body["status"], shown["status"]) == (run["run_id"], status, status)
    assert ("error" in body) == (error is not None)
    if error is not None:
        assert body["error"]["error"] == error
        assert body["error"]["message"]


@pytest.mark.parametrize("after_seconds", [0, 600])
async def test_the_webhook_reports_a_run_cancelled_before_or_during_its_work(
    fresh_database_url: str, after_seconds: int
) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **AGENTS) as service:
        run = await begin(service, receiver.url, assistant_id="waits", after_seconds=after_seconds)
        shown = (await service.client.get(at(run))).json()
        assert shown["status"] == ("pending" if after_seconds else "running")
        await service.client.post(f"{at(run)}/cancel")
        body = await received(receiver)
    assert (body["run_id"], body["status"]) == (run["run_id"], "interrupted")


async def test_the_webhook_reports_a_run_that_killed_every_process(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, AGENT_ROLE="api", **HERE) as api:
        run = await begin(api, receiver.url)
        await fetch(
            api.services.persistence.database,
            "update runs set status = 'running', attempts = 99, owner = run_id,"
            " lease_until = now() - interval '1 second'",
        )
        async with serving(fresh_database_url, **HERE):
            body = await received(receiver)
    assert (body["run_id"], body["status"], body["error"]["error"]) == (run["run_id"], "error", "PoisonError")


async def test_a_call_interrupted_by_a_crash_is_repeated_with_the_same_body(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        receiver.slow = asyncio.Event()
        async with serving(fresh_database_url, **HERE) as first:
            await begin(first, receiver.url)
            await receiver.until(1)  # the first process is stopped while it waits for the answer
        async with serving(fresh_database_url, AGENT_ROLE="api", **HERE) as api:
            (left,) = await deliveries(api)
            assert (left["status"], left["attempts"]) == ("pending", 1)
            await fetch(
                api.services.persistence.database, "update webhook_deliveries set due_at = now()"
            )  # expire its lease
            receiver.slow.set()
            async with serving(fresh_database_url, **HERE):
                first_call, second_call = await receiver.until(2)
                await eventually(lambda: deliveries(api, "delivered"))
    assert first_call.body == second_call.body
    assert first_call.headers["webhook-id"] == second_call.headers["webhook-id"]


async def test_the_webhook_of_a_deleted_run_is_not_called_and_has_no_answer(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, AGENT_ROLE="api", **HERE) as api:
        run = await begin(api, receiver.url, after_seconds=600)
        await api.client.post(f"{at(run)}/cancel")
        assert (await api.client.delete(at(run))).is_success
        async with serving(fresh_database_url, **HERE):
            (dead,) = await eventually(lambda: deliveries(api, "dead"))
    assert (dead["answer"], dead["attempts"]) == (None, 1)
    assert "deleted" in dead["problem"]
    assert receiver.calls == []


async def test_a_call_that_cannot_be_made_backs_off_and_becomes_dead(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise LookupError("no such thing")

    monkeypatch.setattr(dispatcher, "payload", broken)
    monkeypatch.setattr(dispatcher, "GIVE_UP_SECONDS", 0.0)
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        await begin(service, receiver.url)
        (dead,) = await eventually(lambda: deliveries(service, "dead"))
    assert dead["problem"] == "The call could not be made: LookupError."


@pytest.mark.parametrize("secret, warned", [("", True), ("a secret", False)])
async def test_production_warns_about_unsigned_webhooks(fresh_database_url: str, secret: str, warned: bool) -> None:
    settings = {**HERE, "APP_ENV": "production", "AGENT_WEBHOOK_SECRET": secret}
    with structlog.testing.capture_logs() as lines:
        async with serving(fresh_database_url, **settings):
            pass
    assert any(line["event"] == "webhooks_unsigned" for line in lines) == warned
