"""Long threads: requests to the model stay within the token budget, the thread keeps all messages."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import pytest
from aiohttp import web
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.database import clone, drop
from tests.journeys.conftest import Served, contents
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Replay, Stage
from tests.llm.wires import Say, events
from tests.outages import children_of
from tests.waiting import until

FILE = """
[agents.guide]
model = "openai:large"
instructions = "Be kind."
memory = { tokens = 600, keep = 4, model = "openai:small" }
"""
LONG = "and so on " * 30
"""75 tokens."""


class Provider(FakeProvider):
    """A provider: the small model returns numbered summaries, others answer. ``let`` delays summaries."""

    def __init__(self) -> None:
        super().__init__(models=["large", "small"])
        self.let = asyncio.Event()
        self.let.set()
        self.held = asyncio.Event()

    async def _play(self, stage: Stage) -> web.StreamResponse:
        body = self.requests[-1].body
        if body["model"] == "small":
            said = Say(text=f"summary {len(self.asked('small'))}")
        else:
            if not self.let.is_set():
                self.held.set()
                await self.let.wait()
            said = Say(text=f"answer to {body['messages'][-1]['content'][:20]}")
        return await stage.send(Replay(data=b"".join(events(stage.vendor, said))))

    def asked(self, model: str) -> list[Any]:
        """Return the requests to ``model``, oldest first."""
        return [one.body for one in self.requests if one.body and one.body["model"] == model]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest.fixture
async def database_url(server_url: str) -> AsyncIterator[str]:
    url = await clone(server_url)
    yield url
    await drop(server_url, url)


def serve(url: str, folder: Path, provider: Provider, **environment: str) -> Served:
    (folder / "agents.toml").write_text(FILE)
    own = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "k", "AGENT_LEASE_SECONDS": "3"}
    return Served(url, folder, AGENT_CONFIG=str(folder / "agents.toml"), **own, **environment)


@pytest.fixture
async def served_long(database_url: str, tmp_path: Path, provider: Provider) -> AsyncIterator[Served]:
    server = serve(database_url, tmp_path, provider)
    await asyncio.to_thread(server.wait_until_ready)
    yield server
    await asyncio.to_thread(server.stop)


async def long_thread(client: LangGraphClient) -> str:
    """Create a thread with six questions and answers."""
    thread_id = (await client.threads.create(graph_id="guide"))["thread_id"]
    messages = [
        {"role": role, "content": f"{role} {turn} {LONG}", "id": f"{role}{turn}"}
        for turn in range(6)
        for role in ("user", "assistant")
    ]
    await client.threads.update_state(thread_id, {"messages": messages}, as_node="agent")
    return str(thread_id)


def question(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


async def test_the_model_is_asked_with_a_summary_and_the_thread_keeps_every_message(
    served_long: Served, provider: Provider, database_url: str
) -> None:
    async with get_client(url=served_long.base) as client:
        thread_id = await long_thread(client)
        before = contents((await client.threads.get_state(thread_id))["values"])
        parts = [
            part
            async for part in client.runs.stream(
                thread_id,
                "guide",
                input=question("hi"),
                stream_mode=["updates", "values", "messages-tuple", "tasks", "events"],
            )
        ]
        state = await client.threads.get_state(thread_id)
        history = await client.threads.get_history(thread_id, limit=10)
    assert contents(state["values"]) == [*before, "hi", "answer to hi"]
    (asked,) = provider.asked("large")
    shown = [message["content"] for message in asked["messages"]]
    assert shown[0] == "Be kind."
    assert "summary" in shown[1]
    assert shown[-1] == "hi"
    assert len(json.dumps(asked["messages"])) < 4 * 600
    # clients see only that the node ran
    assert "summary" not in str(state)
    assert "summary" not in str(history)
    assert "summary" not in str(parts)
    updates = [part.data for part in parts if part.event == "updates"]
    assert [list(update) for update in updates][-2:] == [["memory"], ["agent"]]
    tasks = [part.data for part in parts if part.event == "tasks"]
    begun = [task["id"] for task in tasks if "input" in task]
    ended = [task["id"] for task in tasks if "result" in task]
    assert sorted(begun) == sorted(ended)
    # each call is charged to its model
    connection = await asyncpg.connect(database_url)
    used = await connection.fetch("select node, (usage->>'total_tokens')::int > 0 as paid from steps order by step")
    await connection.close()
    assert list(map(dict, used)) == [{"node": "memory", "paid": True}] * len(provider.asked("small")) + [
        {"node": "agent", "paid": True}
    ]


def status(run: str) -> str:
    """Return the status of the run; empty while its server is down."""
    with contextlib.suppress(httpx.HTTPError):
        return str(httpx.get(run).json()["status"])
    return ""


async def test_a_server_that_is_killed_after_the_summary_does_not_ask_for_it_again(
    database_url: str, tmp_path: Path, provider: Provider
) -> None:
    server = serve(database_url, tmp_path, provider)
    await asyncio.to_thread(server.wait_until_ready)
    async with get_client(url=server.base) as client:
        thread_id = await long_thread(client)
    await asyncio.to_thread(server.stop)
    server = serve(database_url, tmp_path, provider, AGENT_CRASH_AT="after_commit", PORT=str(server.port))
    await asyncio.to_thread(server.wait_until_ready)
    workers = children_of(server.process.pid)
    try:
        async with get_client(url=server.base) as client:
            run = await client.runs.create(thread_id, "guide", input=question("hi"))
            asked = f"{server.base}/threads/{thread_id}/runs/{run['run_id']}"
            await asyncio.to_thread(until, lambda: status(asked) == "success", 60)
            state = await client.threads.get_state(thread_id)
        assert children_of(server.process.pid) != workers
        assert contents(state["values"])[-2:] == ["hi", "answer to hi"]
        read = [body["messages"][-1]["content"] for body in provider.asked("small")]
        assert sum("person: user 0 " in text for text in read) == 1
        assert all(sum(f"person: user {turn} " in text for text in read) <= 1 for turn in range(6))
        assert len(provider.asked("large")) == 1
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_fork_and_a_rollback_continue_from_the_summary_of_their_time(
    served_long: Served, provider: Provider
) -> None:
    async with get_client(url=served_long.base) as client:
        thread_id = await long_thread(client)
        await client.runs.wait(thread_id, "guide", input=question("hi"))
        made = len(provider.asked("small"))
        fork = (await client.threads.get_state(thread_id))["checkpoint"]
        for turn in range(8):
            await client.runs.wait(thread_id, "guide", input=question(f"more {turn} {LONG}"))
        assert len(provider.asked("small")) > made
        latest = provider.asked("large")[-1]["messages"][1]["content"]
        # a fork from the earlier checkpoint
        await client.runs.wait(thread_id, "guide", input=question("elsewhere"), checkpoint=fork)
        assert f"summary {made}\n" in provider.asked("large")[-1]["messages"][1]["content"]
        assert "more" not in str(provider.asked("large")[-1])
        # a rollback also removes the summary of its run
        copy = cast("Any", await client.threads.copy(thread_id))["thread_id"]  # the SDK declares None
        before = provider.asked("large")[-1]["messages"][1]
        provider.let.clear()
        gone = await client.runs.create(copy, "guide", input=question(f"gone {LONG * 5}"))
        await asyncio.wait_for(provider.held.wait(), 20)
        await client.runs.cancel(copy, gone["run_id"], wait=True, action="rollback")
        provider.let.set()
        await client.runs.wait(copy, "guide", input=question("instead"))
        assert provider.asked("large")[-1]["messages"][1] == before
        assert "gone" not in str(provider.asked("large")[-1])
    assert latest != before["content"]


async def test_an_edit_of_an_old_message_renews_the_summary(served_long: Served, provider: Provider) -> None:
    async with get_client(url=served_long.base) as client:
        thread_id = await long_thread(client)
        await client.runs.wait(thread_id, "guide", input=question("hi"))
        made = len(provider.asked("small"))
        edit = {"messages": [{"role": "user", "content": "I am called Ada.", "id": "user0"}]}
        await client.threads.update_state(thread_id, edit, as_node="agent")
        await client.runs.wait(thread_id, "guide", input=question("and now?"))
        regenerated = provider.asked("small")[made]["messages"][-1]["content"]
        assert "person: I am called Ada." in regenerated
        assert "<memory>" not in regenerated
