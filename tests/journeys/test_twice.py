"""A repeated request with an ``Idempotency-Key`` creates one resource and replays the first response."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.journeys.conftest import Served


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.base, timeout=30) as http:
        yield http


async def test_repeated_requests_with_one_key_create_one_run(http: httpx.AsyncClient) -> None:
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"assistant_id": "echo", "input": "hello"}
    path = f"/threads/{thread_id}/runs"
    answers = await asyncio.gather(*(http.post(path, json=body, headers=key) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len((await http.get(path)).json()) == 1
    other = await http.post(path, json={**body, "input": "other"}, headers=key)
    assert other.status_code == 422
    elsewhere = await http.post(f"{path}/wait", json=body, headers=key)
    assert elsewhere.status_code == 200
    assert len((await http.get(path)).json()) == 2


async def test_a_repeated_wait_joins_its_run(http: httpx.AsyncClient) -> None:
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    key = {"Idempotency-Key": "again"}
    body = {"assistant_id": "echo", "input": "hello"}
    answers = [await http.post(f"/threads/{thread_id}/runs/wait", json=body, headers=key) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["content-location"] for answer in answers}) == 1


async def test_a_repeated_stream_resumes_where_it_was(http: httpx.AsyncClient) -> None:
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    key = {"Idempotency-Key": "again"}
    body = {"assistant_id": "echo", "input": "hello", "stream_mode": ["values", "messages-tuple"]}
    path = f"/threads/{thread_id}/runs/stream"
    whole = (await http.post(path, json=body, headers=key)).text
    assert (await http.post(path, json=body, headers=key)).text == whole
    rest = (await http.post(path, json=body, headers={**key, "Last-Event-ID": "1-2"})).text
    assert whole.endswith(rest)
    assert rest.startswith("event: ")
    assert whole.count("\r\nid: ") == rest.count("\r\nid: ") + 2


async def test_every_creating_route_accepts_idempotency_keys(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    body = {"assistant_id": "echo", "input": "x"}
    cron = {"assistant_id": "echo", "schedule": "0 0 1 1 *"}
    thread_id = (await http.post("/threads", json={"metadata": {"graph_id": "echo"}})).json()["thread_id"]
    for path, sent in (
        (f"/threads/{thread_id}/state", {"values": {"messages": "written once"}}),
        (f"/threads/{thread_id}/copy", {}),
        (f"/threads/{thread_id}/runs/crons", cron),
        ("/runs/crons", cron),
        ("/runs", body),
        ("/runs/batch", [body, body]),
        ("/threads", {"metadata": {"a": 1}}),
        ("/assistants", {"graph_id": "echo"}),
    ):
        first, second = [await http.post(path, json=sent, headers=key) for _ in range(2)]
        assert first.status_code == 200, path
        assert first.text == second.text, path
    values = (await http.get(f"/threads/{thread_id}/state")).json()["values"]
    assert [message["content"] for message in values["messages"]] == ["written once"]
    for found in (await http.post("/runs/crons/search", json={})).json():
        await http.delete(f"/runs/crons/{found['cron_id']}")


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_invalid_key_is_refused(http: httpx.AsyncClient, key: str) -> None:
    answer = await http.post("/runs", json={"assistant_id": "echo"}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422


async def test_a_refused_request_does_not_use_up_its_key(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    thread_id = str(uuid.uuid4())
    body = {"assistant_id": "echo", "input": "x"}
    assert (await http.post(f"/threads/{thread_id}/runs", json=body, headers=key)).status_code == 404
    await http.post("/threads", json={"thread_id": thread_id})
    assert (await http.post(f"/threads/{thread_id}/runs", json=body, headers=key)).status_code == 200
