"""A stream can be replayed for a day after the end of its run; then it is 410."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.database import age, clone, drop, execute
from tests.journeys.conftest import Served


@pytest.fixture
async def old_run(server_url: str, tmp_path: Path) -> AsyncIterator[tuple[Served, str, str]]:
    """A server on which a run ended 25 hours ago: (server, thread, run)."""
    url = await clone(server_url)
    server = await asyncio.to_thread(Served(url, tmp_path).wait_until_ready)
    async with httpx.AsyncClient(base_url=server.base, timeout=20) as http:
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "echo", "input": {"messages": "hi"}}
        run_id = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()["run_id"]
        await http.get(f"/threads/{thread_id}/runs/{run_id}/join")
    await age(url, run_id)
    await execute(url, f"delete from events where run_id = '{run_id}'")
    yield server, thread_id, run_id
    await asyncio.to_thread(server.stop)
    await drop(server_url, url)


async def test_an_expired_stream_is_410(old_run: tuple[Served, str, str]) -> None:
    server, thread_id, run_id = old_run
    async with httpx.AsyncClient(base_url=server.base, timeout=20) as http:
        run = f"/threads/{thread_id}/runs/{run_id}"
        for headers in ({}, {"Last-Event-ID": "1-1"}):
            answer = await http.get(f"{run}/stream", headers=headers)
            assert (answer.status_code, answer.json()["title"]) == (410, "Gone")
            assert "24 hours" in answer.json()["detail"]
        answer = await http.get(f"/threads/{thread_id}/stream", headers={"Last-Event-ID": "1.1-1"})
        assert answer.status_code == 410
        events = {"channels": ["lifecycle", "values"], "since": (1 << 32) + 2}
        answer = await http.post(f"/threads/{thread_id}/stream/events", json=events)
        assert (answer.status_code, answer.json()["title"]) == (410, "Gone"), "protocol v2, behind its second event"
        assert await shown(http, f"/threads/{thread_id}/stream/events", {**events, "since": 1 << 32}) == 2
        del events["since"]
        assert await shown(http, f"/threads/{thread_id}/stream/events", events) == 2, "from its steps and checkpoints"
        assert (await http.get(f"{run}/join")).json()["messages"][-1]["content"] == "echo: hi"
        assert (await http.get(f"/threads/{thread_id}/runs/{uuid4()}/stream")).status_code == 404


async def shown(http: httpx.AsyncClient, path: str, body: object) -> int:
    """Return how many events of the lifecycle a stream begins with, up to the end of the run."""
    found = 0
    async with http.stream("POST", path, json=body) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            found += '"method":"lifecycle"' in line
            if '"completed"' in line:
                break
    return found
