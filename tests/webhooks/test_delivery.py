"""A webhook is called once its run has ended: at least once, signed, and by whoever lives."""

import asyncio
import base64
import hashlib
import hmac
from typing import Any

import httpx
import pytest

from app.features.webhooks import dispatcher
from tests.runs.engine import fetch
from tests.system.services import API, Service, serving
from tests.webhooks.receiver import Call, comes_true, receiving

SECRET = "whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()
OTHER = "another secret"
HERE: dict[str, Any] = {"AGENT_AUTH": "none", "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}


async def begin(service: Service, url: str, **body: Any) -> dict[str, Any]:
    """Start a run on a thread of its own."""
    thread = (await service.client.post(f"{API}/threads", json={})).json()
    run = {"assistant_id": "echo", "input": {"messages": "hi"}, "webhook": url, **body}
    answer = await service.client.post(f"{API}/threads/{thread['thread_id']}/runs", json=run)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def deliveries(service: Service, status: str = "") -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = (await service.get(f"/webhooks/deliveries{status and '?status='}{status}")).json()
    return answer


def is_signed(call: Call, key: bytes) -> bool:
    text = b".".join((call.headers["webhook-id"].encode(), call.headers["webhook-timestamp"].encode(), call.body))
    wanted = "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    return wanted in call.headers["webhook-signature"].split()


async def test_a_webhook_hears_how_its_run_ended(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        run = await begin(service, receiver.url, metadata={"order": 17})
        (call,) = await receiver.until(1)
        told = call.read()
        assert (told["run_id"], told["thread_id"], told["status"]) == (run["run_id"], run["thread_id"], "success")
        assert told["values"]["messages"][-1]["content"] == "echo: hi"
        assert told["metadata"]["order"] == 17
        assert told["kwargs"]["webhook"] == receiver.url
        assert told["run_started_at"] <= told["run_ended_at"] <= told["webhook_sent_at"]
        assert "error" not in told
        assert call.headers["content-type"] == "application/json"
        assert call.headers["webhook-id"] == f"run_{run['run_id']}"
        assert "webhook-signature" not in call.headers
        (delivery,) = await comes_true(lambda: deliveries(service, "delivered"))
        assert (delivery["run_id"], delivery["attempts"], delivery["answer"]) == (run["run_id"], 1, 200)


async def test_a_run_that_failed_or_was_cancelled_is_told_too(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        failed = await begin(service, receiver.url, config={"recursion_limit": 1}, input={"messages": "what is 1+1?"})
        later = await begin(service, receiver.url, after_seconds=600)
        place = f"{API}/threads/{later['thread_id']}/runs/{later['run_id']}"
        await service.client.post(f"{place}/cancel")
        calls = await receiver.until(2)
        told = {one["run_id"]: one for one in (call.read() for call in calls)}
        assert told[later["run_id"]]["status"] == "interrupted"
        assert told[failed["run_id"]]["status"] in {"error", "success"}


async def test_what_one_process_has_left_another_delivers(fresh_database_url: str) -> None:
    async with receiving() as receiver:
        async with serving(fresh_database_url, AGENT_ROLE="api", **HERE) as api:
            run = await begin(api, receiver.url)
            async with serving(fresh_database_url, **HERE) as worker:
                await worker.services.engine.dispatcher.aclose()  # it dies between the end of the run and the call
                await worker.client.get(f"{API}/threads/{run['thread_id']}/runs/{run['run_id']}/join")
            assert [one["status"] for one in await deliveries(api)] == ["pending"]
        assert receiver.calls == []
        async with serving(fresh_database_url, **HERE):
            (call,) = await receiver.until(1)
        assert call.read()["run_id"] == run["run_id"]


async def test_a_receiver_that_fails_is_called_again_with_the_same_id_and_body(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "BACK_OFF", (0.01,))
    async with receiving(500, 503, 302) as receiver, serving(fresh_database_url, **HERE) as service:
        await begin(service, receiver.url)
        calls = await receiver.until(4)
        assert len({(call.headers["webhook-id"], call.body) for call in calls}) == 1
        (delivery,) = await comes_true(lambda: deliveries(service, "delivered"))
        assert (delivery["attempts"], delivery["answer"], delivery["problem"]) == (4, 200, None)


async def test_after_three_days_it_is_dead_and_can_be_sent_again(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "GIVE_UP_SECONDS", 0.0)
    async with receiving(500) as receiver, serving(fresh_database_url, **HERE) as service:
        run = await begin(service, receiver.url)
        (dead,) = await comes_true(lambda: deliveries(service, "dead"))
        assert (dead["answer"], dead["problem"]) == (500, "It answered 500.")
        again = await service.client.post(f"{API}/webhooks/deliveries/{run['run_id']}/retry")
        assert again.json()["status"] == "pending"
        first, second = await receiver.until(2)
        assert first.body == second.body
        unknown = await service.client.post(f"{API}/webhooks/deliveries/{run['thread_id']}/retry")
        assert unknown.status_code == 404


async def test_a_receiver_that_wants_no_more_is_left_alone(fresh_database_url: str) -> None:
    async with receiving(410) as receiver, serving(fresh_database_url, **HERE) as service:
        await begin(service, receiver.url)
        (dead,) = await comes_true(lambda: deliveries(service, "dead"))
        assert (dead["attempts"], dead["answer"]) == (1, 410)


async def test_both_secrets_sign_while_one_takes_over_from_the_other(fresh_database_url: str) -> None:
    secrets: dict[str, Any] = {"AGENT_WEBHOOK_SECRET": SECRET, "AGENT_WEBHOOK_SECRET_SECONDARY": OTHER}
    async with receiving() as receiver, serving(fresh_database_url, **HERE, **secrets) as service:
        await begin(service, receiver.url)
        (call,) = await receiver.until(1)
    assert is_signed(call, b"a key of twenty-four byte")
    assert is_signed(call, OTHER.encode())
    assert not is_signed(call, b"a third")


async def test_a_slow_receiver_holds_up_none_but_itself(fresh_database_url: str) -> None:
    async with receiving() as slow, receiving() as quick, serving(fresh_database_url, **HERE) as service:
        slow.slow = asyncio.Event()
        for _ in range(dispatcher.AT_ONCE_A_TENANT_AND_HOST + 3):
            await begin(service, slow.url)
        await slow.until(dispatcher.AT_ONCE_A_TENANT_AND_HOST)
        await begin(service, quick.url)
        await quick.until(1)
        assert len(slow.calls) == dispatcher.AT_ONCE_A_TENANT_AND_HOST


async def test_another_tenant_sees_nothing_of_it(fresh_database_url: str) -> None:
    settings = {**HERE, "AGENT_AUTH": "api_key"}
    async with receiving() as receiver, serving(fresh_database_url, **settings) as service:
        ours, theirs = await service.key("default"), await service.key("other")
        service.client.headers["x-api-key"] = ours
        run = await begin(service, receiver.url)
        await receiver.until(1)
        service.client.headers["x-api-key"] = theirs
        assert await deliveries(service) == []
        answer: httpx.Response = await service.client.post(f"{API}/webhooks/deliveries/{run['run_id']}/retry")
        assert answer.status_code == 404
        rows = await fetch(service.services.persistence.database, "select status from webhook_deliveries")
        assert len(rows) == 1
