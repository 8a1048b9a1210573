"""All runs of a thread as one stream, through ``langgraph_sdk``."""

import asyncio
import re
import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from app.features.runs.run_views import OPENED
from tests.journeys.conftest import Served

HELLO: Any = {"messages": [{"role": "user", "content": "hello"}]}


async def collect(client: LangGraphClient, thread_id: str, runs: int, **more: Any) -> list[Any]:
    """Read the thread's stream until ``runs`` runs are done."""
    parts = []
    async for part in await client.threads.join_stream(thread_id, **more):
        parts.append(part)
        runs -= part.event == "metadata" and part.data.get("status") == "run_done"
        if not runs:
            break
    return parts


def place(part: Any) -> tuple[int, ...]:
    return tuple(map(int, re.split(r"[.-]", part.id)))


async def test_a_thread_stream_carries_later_runs_one_after_the_other(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "echo", input=HELLO)  # ended before the stream is opened
    over = await asyncio.wait_for(collect(client, thread_id, 1, last_event_id="-1"), 20)
    following = asyncio.create_task(collect(client, thread_id, 2, last_event_id=over[-1].id))
    runs = []
    for _ in range(2):
        runs.append(await client.runs.create(thread_id, "echo", input=HELLO))
        await client.runs.join(thread_id, runs[-1]["run_id"])
    parts = await asyncio.wait_for(following, 20)
    assert [part.event for part in parts] == ["metadata", "values", "values", "metadata"] * 2
    assert [part.data["run_id"] for part in parts if part.event == "metadata"] == [
        run["run_id"] for run in runs for _ in range(2)
    ]
    assert [place(part) for part in parts] == sorted({place(part) for part in parts})


async def test_a_thread_stream_resumes_from_any_event_across_runs(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    for _ in range(3):
        await client.runs.wait(thread_id, "echo", input=HELLO)
    whole = await asyncio.wait_for(collect(client, thread_id, 3, last_event_id="-1"), 20)
    assert [part.event for part in whole] == ["metadata", "values", "values", "metadata"] * 3
    assert [place(part)[0] for part in whole] == [1] * 4 + [2] * 4 + [3] * 4
    for cut, part in enumerate(whole[:-1]):
        left = sum(p.event == "metadata" and p.data.get("status") == "run_done" for p in whole[cut + 1 :])
        rest = await asyncio.wait_for(collect(client, thread_id, left, last_event_id=part.id), 20)
        assert rest == whole[cut + 1 :]


async def test_lifecycle_mode_shows_starts_and_ends_only(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "echo", input=HELLO)
    parts = await asyncio.wait_for(collect(client, thread_id, 1, last_event_id="-1", stream_mode="lifecycle"), 20)
    assert [part.event for part in parts] == ["metadata", "metadata"]


async def test_state_update_mode_shows_states_only(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    async for _ in client.runs.stream(thread_id, "echo", input=HELLO, stream_mode=["messages-tuple", "values"]):
        pass
    parts = await asyncio.wait_for(collect(client, thread_id, 1, last_event_id="-1", stream_mode="state_update"), 20)
    assert [part.event for part in parts] == ["metadata", "values", "values", "metadata"]


async def test_a_quiet_thread_is_followed_at_once_or_refused(client: LangGraphClient, served: Served) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    with pytest.raises(NotFoundError):
        await collect(client, str(uuid.uuid4()), 1)
    async with httpx.AsyncClient(base_url=served.base, timeout=10) as http:
        async with http.stream("GET", f"/threads/{thread_id}/stream") as quiet:
            assert await anext(quiet.aiter_raw()) == OPENED, "clients wait for it: it does not wait for a first run"
        bad_mode = await http.get(f"/threads/{thread_id}/stream?stream_modes=bogus")
        bad_id = await http.get(f"/threads/{thread_id}/stream", headers={"Last-Event-ID": "bad id"})
    assert (bad_mode.status_code, bad_id.status_code) == (422, 422)
    assert "run_modes" in bad_mode.json()["detail"]


async def test_a_thread_stream_ends_with_its_thread(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "echo", input=HELLO)
    seen: list[str] = []

    async def follow() -> None:
        async for part in await client.threads.join_stream(thread_id, last_event_id="-1"):
            seen.append(part.event)
            if len(seen) == 4:
                await client.threads.delete(thread_id)

    await asyncio.wait_for(follow(), 30)
    assert seen == ["metadata", "values", "values", "metadata"]
