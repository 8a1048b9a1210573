"""Delivery of webhooks: at least once after the end of a run, signed, by any live process."""

import asyncio
import base64
import hashlib
import hmac
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.features.webhooks import dispatcher
from app.features.webhooks.signing import key_of, signed_headers
from app.infra.secrets.secret import Secret
from tests.runs.engine import fetch
from tests.system.services import API, Service, serving
from tests.waiting import eventually
from tests.webhooks.receiver import Call, receiving

SECRET = "whsec_" + base64.b64encode(b"a key of twenty-four byte").decode()
OTHER = "another secret"
HERE: dict[str, Any] = {"AGENT_AUTH": "none", "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}


async def begin(service: Service, url: str, **body: Any) -> dict[str, Any]:
    """Start a run with a webhook on a new thread."""
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


async def test_a_webhook_reports_the_outcome_of_its_run(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        run = await begin(service, receiver.url, metadata={"order": 17})
        (call,) = await receiver.until(1)
        body = call.read()
        assert (body["run_id"], body["thread_id"], body["status"]) == (run["run_id"], run["thread_id"], "success")
        assert body["values"]["messages"][-1]["content"] == "echo: hi"
        assert body["metadata"]["order"] == 17
        assert body["kwargs"]["webhook"] == receiver.url
        assert body["run_started_at"] <= body["run_ended_at"] <= body["webhook_sent_at"]
        assert "error" not in body
        assert call.headers["content-type"] == "application/json"
        assert call.headers["webhook-id"] == f"run_{run['run_id']}"
        assert "webhook-signature" not in call.headers
        (delivery,) = await eventually(lambda: deliveries(service, "delivered"))
        assert (delivery["run_id"], delivery["attempts"], delivery["answer"]) == (run["run_id"], 1, 200)


async def test_a_failed_or_cancelled_run_is_reported_too(fresh_database_url: str) -> None:
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        failed = await begin(service, receiver.url, config={"recursion_limit": 1}, input={"messages": "what is 1+1?"})
        later = await begin(service, receiver.url, after_seconds=600)
        path = f"{API}/threads/{later['thread_id']}/runs/{later['run_id']}"
        await service.client.post(f"{path}/cancel")
        calls = await receiver.until(2)
        body = {one["run_id"]: one for one in (call.read() for call in calls)}
        assert body[later["run_id"]]["status"] == "interrupted"
        assert body[failed["run_id"]]["status"] in {"error", "success"}


async def test_deliveries_of_a_stopped_process_are_made_by_another(fresh_database_url: str) -> None:
    async with receiving() as receiver:
        async with serving(fresh_database_url, AGENT_ROLE="api", **HERE) as api:
            run = await begin(api, receiver.url)
            async with serving(fresh_database_url, **HERE) as worker:
                await worker.services.engine.dispatcher.aclose()  # it stops between the end of the run and the call
                await worker.client.get(f"{API}/threads/{run['thread_id']}/runs/{run['run_id']}/join")
            assert [one["status"] for one in await deliveries(api)] == ["pending"]
        assert receiver.calls == []
        async with serving(fresh_database_url, **HERE):
            (call,) = await receiver.until(1)
        assert call.read()["run_id"] == run["run_id"]


async def test_a_failing_receiver_is_retried_with_the_same_id_and_body(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "BACKOFF", (0.01,))
    async with receiving(500, 503, 302) as receiver, serving(fresh_database_url, **HERE) as service:
        await begin(service, receiver.url)
        calls = await receiver.until(4)
        assert len({(call.headers["webhook-id"], call.body) for call in calls}) == 1
        (delivery,) = await eventually(lambda: deliveries(service, "delivered"))
        assert (delivery["attempts"], delivery["answer"], delivery["problem"]) == (4, 200, None)


async def test_after_three_days_a_delivery_is_dead_and_can_be_retried(
    fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "GIVE_UP_SECONDS", 0.0)
    async with receiving(500) as receiver, serving(fresh_database_url, **HERE) as service:
        run = await begin(service, receiver.url)
        (dead,) = await eventually(lambda: deliveries(service, "dead"))
        assert (dead["answer"], dead["problem"]) == (500, "It answered 500.")
        again = await service.client.post(f"{API}/webhooks/deliveries/{run['run_id']}/retry")
        assert again.json()["status"] == "pending"
        first, second = await receiver.until(2)
        assert first.body == second.body
        unknown = await service.client.post(f"{API}/webhooks/deliveries/{run['thread_id']}/retry")
        assert unknown.status_code == 404


async def test_a_receiver_that_answers_410_is_not_retried(fresh_database_url: str) -> None:
    async with receiving(410) as receiver, serving(fresh_database_url, **HERE) as service:
        await begin(service, receiver.url)
        (dead,) = await eventually(lambda: deliveries(service, "dead"))
        assert (dead["attempts"], dead["answer"]) == (1, 410)


async def test_both_secrets_sign_during_a_rotation(fresh_database_url: str) -> None:
    secrets: dict[str, Any] = {"AGENT_WEBHOOK_SECRET": SECRET, "AGENT_WEBHOOK_SECRET_SECONDARY": OTHER}
    async with receiving() as receiver, serving(fresh_database_url, **HERE, **secrets) as service:
        await begin(service, receiver.url)
        (call,) = await receiver.until(1)
    assert is_signed(call, b"a key of twenty-four byte")
    assert is_signed(call, OTHER.encode())
    assert not is_signed(call, b"a third")
    for secret in (SECRET, OTHER.encode()):
        assert Webhook(secret).verify(call.body, call.headers) == call.read()
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(b"a third").verify(call.body, call.headers)


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    key = key_of(Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    body = b'{"test": 2432232314}'
    assert signed_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert "webhook-signature" not in signed_headers([], "msg", 1614265330, body)


async def test_a_slow_receiver_delays_only_its_own_webhooks(fresh_database_url: str) -> None:
    async with receiving() as slow, receiving() as quick, serving(fresh_database_url, **HERE) as service:
        slow.slow = asyncio.Event()
        for _ in range(dispatcher.MAX_CALLS_PER_TENANT_AND_HOST + 3):
            await begin(service, slow.url)
        await slow.until(dispatcher.MAX_CALLS_PER_TENANT_AND_HOST)
        await begin(service, quick.url)
        await quick.until(1)
        assert len(slow.calls) == dispatcher.MAX_CALLS_PER_TENANT_AND_HOST


async def test_another_tenant_sees_no_deliveries(fresh_database_url: str) -> None:
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
