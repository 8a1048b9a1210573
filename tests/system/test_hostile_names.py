"""Positions in a stream, and names of agents, that no client should send."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.system.services import API, Service, serving

INPUT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url, AGENT_AUTH="none") as service:
        yield service


async def posted(service: Service, path: str, body: Any) -> Any:
    return await service.client.post(path, json=body)


async def test_a_position_beyond_every_stream_is_refused(service: Service) -> None:
    thread = f"{API}/threads/{(await posted(service, f'{API}/threads', {})).json()['thread_id']}"
    made = await posted(service, f"{thread}/runs", {"assistant_id": "echo", "input": INPUT})
    run = f"{thread}/runs/{made.json()['run_id']}"
    await service.client.get(f"{run}/join")
    for number in ("2147483648", "9223372036854775808", "9" * 400):
        for path, value in (
            (f"{run}/stream", f"{number}-1"),
            (f"{run}/stream", f"1-{number}"),
            (f"{thread}/stream", f"{number}.1-1"),
            (f"{thread}/stream", f"1.1-{number}"),
        ):
            answer = await service.client.get(path, headers={"last-event-id": value})
            assert (answer.status_code, "Last-Event-ID" in answer.json()["detail"]) == (422, True), (path, value)


async def test_no_client_runs_the_agent_of_ingestions(service: Service) -> None:
    headers = {"content-type": "text/plain"}
    added = (await service.client.post(f"{API}/documents", content=b"one two", headers=headers)).json()
    runs = (await posted(service, f"{API}/runs/search", {})).json()
    own = next(one["assistant_id"] for one in runs if one["run_id"] == added["run_id"])
    for name in ("_ingest", own):
        body = {"assistant_id": name, "input": INPUT}
        thread = (await posted(service, f"{API}/threads", {})).json()["thread_id"]
        for path, given in (
            (f"{API}/runs/wait", body),
            (f"{API}/threads/{thread}/runs", body),
            (f"{API}/runs/crons", {**body, "schedule": "0 0 * * *"}),
            (f"{API}/assistants", {"graph_id": name}),
            ("/v1/responses", {"model": name, "input": "x"}),
            ("/v1/chat/completions", {"model": name, "messages": INPUT["messages"]}),
        ):
            answer = await posted(service, path, given)
            assert answer.status_code == 404, (name, path, answer.text)
