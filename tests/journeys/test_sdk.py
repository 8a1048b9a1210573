"""``langgraph_sdk`` works unchanged against a real server."""

import asyncio
import re
import uuid
from itertools import pairwise
from typing import Any, cast

import httpx
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from app.base.ids import agent_id
from tests.journeys.conftest import Served, contents

HELLO: Any = {"messages": [{"role": "user", "content": "hello"}]}
SUM: Any = {"messages": [{"role": "user", "content": "what is 12*(3+4)?"}]}


async def test_a_tool_using_conversation_streams_and_is_checkpointed(client: LangGraphClient) -> None:
    thread = await client.threads.create(metadata={"user": "ann"})
    assert thread["status"] == "idle"
    assert thread["values"] is None
    parts = [
        part
        async for part in client.runs.stream(
            thread["thread_id"], "assistant", input=SUM, stream_mode=["updates", "messages-tuple", "values"]
        )
    ]
    events = [part.event for part in parts]
    assert events[0] == "metadata"
    assert events[-1] == "end"
    assert {"updates", "messages", "values"} <= set(events)
    assert [next(iter(part.data)) for part in parts if part.event == "updates"] == ["agent", "tools", "agent"]
    text = "".join(
        p.data[0]["content"] for p in parts if p.event == "messages" and p.data[0]["type"] == "AIMessageChunk"
    )
    assert "84" in text
    ids = [tuple(map(int, str(part.id).split("-"))) for part in parts]
    assert ids == [(1, n) for n in range(1, len(parts) + 1)]
    state = await client.threads.get_state(thread["thread_id"])
    assert state["next"] == []
    assert contents(state["values"])[2] == "84"
    history: Any = await client.threads.get_history(thread["thread_id"])
    assert [entry["metadata"]["step"] for entry in history] == [2, 1, 0, -1, -2]
    assert [entry["next"] for entry in history] == [[], ["agent"], ["tools"], ["agent"], ["__start__"]]
    for newer, older in pairwise(history):
        assert newer["parent_checkpoint"]["checkpoint_id"] == older["checkpoint"]["checkpoint_id"]
    old = await client.threads.get_state(thread["thread_id"], checkpoint=history[-2]["checkpoint"])
    assert contents(old["values"]) == ["what is 12*(3+4)?"]


async def test_a_thread_remembers_over_runs_and_shows_them(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "assistant", input={"messages": "note: buy milk"})
    values: Any = await client.runs.wait(thread_id, "echo", input=HELLO)
    assert contents(values)[-1] == "echo: hello"
    assert values["notes"] == ["buy milk"]
    runs = await client.runs.list(thread_id)
    assert [run["status"] for run in runs] == ["success", "success"]
    assert (await client.threads.get(thread_id))["values"] == values


async def test_a_background_run_is_joined_and_its_stream_read_after_the_end(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "stream100", input=HELLO, stream_mode="messages-tuple")
    assert run["status"] in {"pending", "running"}
    assert len(contents(await client.runs.join(thread_id, run["run_id"]))) == 2
    parts = [part async for part in client.runs.join_stream(thread_id, run["run_id"])]
    assert len([part for part in parts if part.event == "messages"]) == 101
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "success"


async def test_a_broken_stream_resumes_without_gaps_or_duplicates(served: Served, client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "stream100", input=HELLO, stream_mode=["messages-tuple", "values"])
    await client.runs.join(thread_id, run["run_id"])
    address = f"{served.base}/threads/{thread_id}/runs/{run['run_id']}/stream"
    async with httpx.AsyncClient() as http:
        whole = (await http.get(address)).text
        assert (await http.get(address, headers={"Last-Event-ID": "-1"})).text == whole
        frames = re.findall(r"event: .*?\r\n\r\n", whole, re.DOTALL)
        for place in (0, 1, 50, len(frames) - 2):
            last = re.search(r"id: (\S+)", frames[place])
            assert last is not None
            rest = (await http.get(address, headers={"Last-Event-ID": last[1]})).text
            assert rest == "".join(frames[place + 1 :])


async def test_stateless_runs_leave_no_thread_and_can_be_read_again(served: Served, client: LangGraphClient) -> None:
    assert contents(await client.runs.wait(None, "echo", input=HELLO)) == ["hello", "echo: hello"]
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{served.base}/runs/stream", json={"assistant_id": "echo", "input": HELLO})
        again = await http.get(served.base + answer.headers["location"])
        assert again.text == answer.text
        thread_id = answer.headers["content-location"].split("/")[2]
        assert (await http.get(f"{served.base}/threads/{thread_id}")).status_code == 404


async def test_kept_stateless_runs_leave_their_thread(served: Served, client: LangGraphClient) -> None:
    async with httpx.AsyncClient() as http:
        body = {"assistant_id": "echo", "input": HELLO, "on_completion": "keep"}
        answer = await http.post(f"{served.base}/runs/wait", json=body)
    thread_id = answer.headers["content-location"].split("/")[2]
    assert contents((await client.threads.get(thread_id))["values"]) == ["hello", "echo: hello"]


async def test_runs_on_one_thread_wait_for_each_other(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    runs = [await client.runs.create(thread_id, "echo", input=cast("Any", {"messages": [str(n)]})) for n in range(5)]
    await asyncio.gather(*(client.runs.join(thread_id, run["run_id"]) for run in runs))
    values = (await client.threads.get(thread_id))["values"]
    assert contents(values) == [text for n in range(5) for text in (str(n), f"echo: {n}")]


async def test_a_thread_is_found_changed_and_deleted(client: LangGraphClient) -> None:
    mark = str(uuid.uuid4())
    thread = await client.threads.create(metadata={"mark": mark})
    thread_id = thread["thread_id"]
    assert [t["thread_id"] for t in await client.threads.search(metadata={"mark": mark})] == [thread_id]
    assert await client.threads.count(metadata={"mark": mark}) == 1
    await client.threads.update(thread_id, metadata={"more": 1})
    assert (await client.threads.get(thread_id))["metadata"] == {"mark": mark, "more": 1}
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=thread_id)
    assert (await client.threads.create(thread_id=thread_id, if_exists="do_nothing"))["thread_id"] == thread_id
    await client.threads.delete(thread_id)
    with pytest.raises(NotFoundError):
        await client.threads.get(thread_id)


async def test_every_agent_has_a_system_assistant_and_clients_make_their_own(client: LangGraphClient) -> None:
    found = await client.assistants.search(metadata={"created_by": "system"})
    assert {a["graph_id"]: a["assistant_id"] for a in found} == {
        name: str(agent_id(name)) for name in ("assistant", "echo", "stream100")
    }
    own = await client.assistants.create("echo", name="Mine", metadata={"owner": "me"}, config={"tags": ["t"]})
    changed = await client.assistants.update(own["assistant_id"], name="Ours", metadata={"x": 1})
    assert (changed["version"], changed["metadata"]) == (2, {"owner": "me", "x": 1})
    versions = await client.assistants.get_versions(own["assistant_id"])
    assert [v["version"] for v in versions] == [2, 1]
    assert (await client.assistants.set_latest(own["assistant_id"], 1))["name"] == "Mine"
    values = await client.runs.wait(None, own["assistant_id"], input=HELLO)
    assert contents(values)[-1] == "echo: hello"
    assert (await client.assistants.get_schemas(own["assistant_id"]))["graph_id"] == "echo"
    assert (await client.assistants.get_graph(own["assistant_id"]))["edges"]
    await client.assistants.delete(own["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get(own["assistant_id"])
    with pytest.raises(ConflictError):
        await client.assistants.delete(str(agent_id("echo")))


async def test_unknown_and_invalid_requests_get_an_explanation(client: LangGraphClient) -> None:
    with pytest.raises(UnprocessableEntityError, match="Invalid thread ID: must be a UUID"):
        await client.threads.get("abc")
    with pytest.raises(NotFoundError, match="not found"):
        await client.threads.get_state(str(uuid.uuid4()))
    with pytest.raises(NotFoundError, match="Graph 'nope' not found"):
        await client.assistants.create("nope")
    thread_id = (await client.threads.create())["thread_id"]
    with pytest.raises(UnprocessableEntityError, match="One of the registered graphs: assistant, echo"):
        await client.runs.create(thread_id, "nope", input=HELLO)
    unknown = str(uuid.uuid4())
    with pytest.raises(NotFoundError, match=f"Thread with ID {unknown} not found"):
        await client.runs.create(unknown, "echo", input=HELLO)
    with pytest.raises(NotFoundError, match=f"Assistant with ID {unknown} not found"):
        await client.runs.create(thread_id, unknown, input=HELLO)
    with pytest.raises(NotFoundError, match=f"Thread with ID {unknown} not found"):
        await client.crons.create_for_thread(unknown, "echo", schedule="0 0 1 1 *", input=HELLO)
    with pytest.raises(UnprocessableEntityError, match="stream_mode"):
        await client.runs.create(thread_id, "echo", input=HELLO, stream_mode="bogus")  # type: ignore[arg-type]
    with pytest.raises(UnprocessableEntityError, match="role"):
        await client.runs.create(thread_id, "echo", input=cast("Any", {"messages": [{"content": "x"}]}))
    assert await client.runs.list(thread_id) == []


def test_the_sync_client_works_as_well(served: Served) -> None:
    with get_sync_client(url=served.base) as client:
        thread_id = client.threads.create()["thread_id"]
        parts = list(client.runs.stream(thread_id, "echo", input=HELLO, stream_mode="updates"))
        assert [part.event for part in parts] == ["metadata", "updates", "end"]
        assert contents(client.runs.wait(thread_id, "echo", input=HELLO))[-1] == "echo: hello"
