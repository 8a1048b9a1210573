"""LangGraph's protocol v2 through ``langgraph_sdk``, against a real server."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.journeys.conftest import Served, contents, serving

SUM: Any = {"messages": [{"role": "user", "content": "what is 12*(3+4)?"}]}
ALL = ["values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"]


@pytest.fixture
async def client(steered: Served) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=steered.base) as client:
        yield client


@pytest.fixture
async def http(steered: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=steered.base, timeout=20) as http:
        yield http


async def events_of(client: LangGraphClient, thread_id: str, **body: Any) -> list[Any]:
    """Return the events of a thread up to the end of its run."""
    found: list[Any] = []
    async with client.threads.stream(thread_id, assistant_id="careful") as thread:
        assert thread._transport is not None
        stream = thread._transport.open_event_stream({"channels": ALL, **body})
        async with asyncio.timeout(20):
            async for event in stream.events:
                found.append(event)
                data = event["params"]["data"]
                if event["method"] == "lifecycle" and data["event"] != "running" and not event["params"]["namespace"]:
                    break
    return found


async def test_a_question_is_answered_and_the_thread_goes_on(client: LangGraphClient) -> None:
    async with asyncio.timeout(30), client.threads.stream(assistant_id="careful") as thread:
        await thread.run.start(input=SUM, metadata={"a": 1})
        snapshots = [snapshot async for snapshot in thread.values]
        assert contents(snapshots[-1])[0] == "what is 12*(3+4)?"
        assert thread.interrupted
        (asked,) = thread.interrupts
        assert asked["value"]["type"] == "tool_approval"
        await thread.run.respond(True)
        output = await thread.output
        assert "84" in contents(output)
        assert not thread.interrupted


async def test_every_channel_is_filled_and_a_stream_resumes_at_any_event(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    live = asyncio.create_task(events_of(client, thread_id))
    started = await command(client, thread_id, "run.start", assistant_id="curious", input=SUM)
    events = await live
    assert await events_of(client, thread_id) == events  # the replay, which another process would give too
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    assert seqs[0] > started["meta"]["applied_through_seq"]
    assert {event["method"] for event in events} == set(ALL) - {"input", "custom"}
    for at in range(0, len(events) - 1, 7):
        assert await events_of(client, thread_id, since=seqs[at]) == events[at + 1 :]

    def data(method: str) -> list[Any]:
        return [event["params"]["data"] for event in events if event["method"] == method]

    assert [one["event"] for one in data("lifecycle")] == ["running", "completed"]
    assert [one["event"] for one in data("tools")] == ["tool-started", "tool-finished"]
    assert data("tools")[0]["input"] == {"expression": "12*(3+4)"}
    assert data("tools")[1]["output"]["content"] == "84"
    assert [one["node"] for one in data("updates")] == ["agent", "tools", "agent"]
    assert contents(data("values")[-1])[2] == "84"
    assert [one["step"] for one in data("checkpoints")] == [-1, 0, 1, 2]
    origin = (await client.threads.get_history(thread_id))[-1]["checkpoint"]["checkpoint_id"]
    assert [one["parent_id"] for one in data("checkpoints")] == [
        origin,
        *(one["id"] for one in data("checkpoints")[:-1]),
    ]
    assert [(one["name"], "result" in one) for one in data("tasks")] == [
        ("agent", False), ("agent", True), ("tools", False), ("tools", True), ("agent", False), ("agent", True),
    ]  # fmt: skip
    said = data("messages")
    assert [one["event"] for one in said if "delta" not in one][:5] == [
        "message-start", "content-block-start", "content-block-finish", "content-block-start", "content-block-finish",
    ]  # fmt: skip
    calls = [one["content"] for one in said if one["event"] == "content-block-finish" and "args" in one["content"]]
    assert calls == [
        {"type": "tool_call", "id": calls[0]["id"], "name": "calculator", "args": {"expression": "12*(3+4)"}}
    ]
    assert [one["usage"]["total_tokens"] > 0 for one in said if one["event"] == "message-finish"] == [True, True]


async def test_an_answer_is_told_to_every_client_and_a_late_one_is_refused(client: LangGraphClient) -> None:
    thread_id, question, answer = "", "", dict[str, Any]()
    edited = {"type": "edit", "edited_action": {"name": "calculator", "args": {"expression": "1+1"}}}
    for decision, expression in ((edited, "1+1"), ({"type": "approve"}, "12*(3+4)")):
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, "careful", input=SUM)
        asked = await events_of(client, thread_id)
        (question,) = [
            event["params"]["data"]["interrupt_id"] for event in asked if event["method"] == "input.requested"
        ]
        answer = {"interrupt_id": question, "namespace": [], "response": {"decisions": [decision]}}
        assert (await command(client, thread_id, "input.respond", **answer))["type"] == "success"
        events = await events_of(client, thread_id, since=asked[-1]["seq"])
        assert [event["method"] for event in events[:2]] == ["lifecycle", "input.answered"]
        assert events[1]["params"]["namespace"] == []
        assert events[1]["params"]["data"] == {"interrupt_ids": [question]}
        called = [event["params"]["data"] for event in events if event["method"] == "tools"]
        assert [one["event"] for one in called] == ["tool-started", "tool-finished"]
        assert called[0]["input"] == {"expression": expression}
    late = await command(client, thread_id, "input.respond", **answer)
    assert late["error"] == "no_such_interrupt"
    assert f"{question!r} (it was answered" in late["message"]
    with pytest.raises(ConflictError, match="it was answered"):
        await client.runs.create(thread_id, "careful", command={"resume": {question: True}})


async def command(client: LangGraphClient, thread_id: str, method: str, **params: Any) -> Any:
    return await client.http.post(f"/threads/{thread_id}/commands", json={"id": 7, "method": method, "params": params})


@pytest.mark.parametrize(
    "body, pointer",
    [
        ({"channels": []}, "/channels"),
        ({"channels": ["values", "nothing"]}, "/channels/1"),
        ({"channels": ["values"], "depth": 65}, "/depth"),
        ({"channels": ["values"], "namespaces": [["a"] * 65]}, "/namespaces"),
        ({"channels": ["values"], "since": -1}, "/since"),
    ],
)
async def test_invalid_subscriptions_are_refused(http: httpx.AsyncClient, body: Any, pointer: str) -> None:
    thread_id = (await http.post("/threads", json={})).json()["thread_id"]
    for path in ("stream/events", "stream"):
        refused = await http.post(f"/threads/{thread_id}/{path}", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert (await http.post(f"/threads/{uuid.uuid4()}/stream", json={"channels": ["values"]})).status_code == 404


async def test_refused_commands_have_error_codes(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]

    async def code(method: str, **params: Any) -> str:
        answer = await command(client, thread_id, method, **params)
        assert (answer["type"], answer["id"]) == ("error", 7)
        return str(answer["error"])

    assert await code("run.stop") == "unknown_command"
    assert await code("subscription.subscribe", channels=["values"]) == "not_supported"
    assert await code("run.start") == "invalid_argument"
    assert await code("run.start", assistant_id="echo", config={"recursion_limit": "x"}) == "invalid_argument"
    for spelling in ("multitask_strategy", "multitaskStrategy"):
        assert await code("run.start", assistant_id="echo", **{spelling: "never"}) == "invalid_argument"
    assert await code("agent.getTree") == "no_such_run"
    assert await code("input.respond", interrupt_id="a" * 32, response=1, namespace=[]) == "no_such_interrupt"
    assert await code("input.respond") == "invalid_argument"
    assert await code("state.get", namespace=["child"]) == "no_such_namespace"
    await command(client, thread_id, "run.start", assistant_id="echo", input=SUM)
    assert await code("state.fork", checkpoint_id=str(uuid.uuid4())) == "no_such_checkpoint"


async def test_states_are_read_forked_and_injected_into(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]

    async def result(method: str, **params: Any) -> Any:
        answer = await command(client, thread_id, method, **params)
        assert answer["type"] == "success", answer
        return answer["result"]

    run_id = (await result("run.start", assistant_id="echo", input=SUM))["run_id"]
    await client.runs.join(thread_id, run_id)
    state = await result("state.get", namespace=[], keys=["messages"])
    assert contents(state["values"]) == ["what is 12*(3+4)?", "echo: what is 12*(3+4)?"]
    listed = (await result("state.listCheckpoints", limit=10))["checkpoints"]
    assert [one["step"] for one in listed] == [0, -1, -2]
    assert listed[0]["id"] == state["checkpoint"]["id"]
    assert (await result("state.listCheckpoints", limit=1, before=listed[0]["id"]))["checkpoints"] == listed[1:2]
    fork = await result("state.fork", checkpoint_id=listed[-1]["id"], input={"messages": ["other"]})
    assert contents(await client.runs.join(thread_id, fork["run_id"])) == ["other", "echo: other"]
    assert await result("input.inject", namespace=[], message={"role": "user", "content": "more"}) == {}
    await client.runs.join(thread_id, (await client.runs.list(thread_id))[0]["run_id"])
    state = await result("state.get", namespace=[])
    assert contents(state["values"]) == ["other", "echo: other", "more", "echo: more"]
    tree = (await result("agent.getTree"))["tree"]
    assert (tree["status"], tree["graph_name"], tree["namespace"]) == ("completed", "echo", [])


async def test_a_websocket_is_a_client_of_the_same_routes(client: LangGraphClient, steered: Served) -> None:
    async with (
        asyncio.timeout(30),
        client.threads.stream(assistant_id="careful", transport="websocket") as thread,
    ):
        await thread.run.start(input=SUM)
        assert [snapshot async for snapshot in thread.values]
        assert thread.interrupted
        await thread.run.respond(True)
        assert "84" in contents(await thread.output)
        thread_id = thread.thread_id
    address = f"{steered.base.replace('http', 'ws')}/threads/{thread_id}/stream"
    replayed = await events_of(client, thread_id)
    async with asyncio.timeout(30), connect(address) as socket:

        async def ask(method: str, **params: Any) -> Any:
            await socket.send(json.dumps({"id": 1, "method": method, "params": params}))
            while "id" not in (answer := json.loads(await socket.recv())):
                pass
            return answer

        assert (await ask("state.get", keys=["messages"]))["result"]["values"]["messages"]
        assert (await ask("nothing"))["error"] == "unknown_command"
        assert (await ask("subscription.subscribe", channels=["nothing"]))["error"] == "invalid_argument"
        await socket.send(b"oops")
        assert json.loads(await socket.recv())["error"] == "invalid_argument"
        subscribed = (await ask("subscription.subscribe", channels=ALL, since=replayed[3]["seq"]))["result"]
        assert [json.loads(await socket.recv()) for _ in replayed[4:]] == replayed[4:]
        ended = {"subscription_id": subscribed["subscription_id"]}
        assert (await ask("subscription.reconnect", run_id="", subscriptions=list(ended.values())))["result"][
            "restored"
        ]
        assert (await ask("subscription.unsubscribe", **ended))["type"] == "success"
        assert (await ask("subscription.unsubscribe", **ended))["error"] == "no_such_subscription"
    for refused in (address.replace(thread_id, "not-an-id"), address.replace("/threads", "/others")):
        with pytest.raises(InvalidStatus):
            await connect(refused)


async def test_a_websocket_is_open_before_its_thread_exists_and_ends_runs_last(steered: Served) -> None:
    address = f"{steered.base.replace('http', 'ws')}/threads/{uuid.uuid4()}/stream/events"
    async with asyncio.timeout(30), connect(address) as socket:

        async def ask(number: int, method: str, **params: Any) -> Any:
            await socket.send(json.dumps({"id": number, "method": method, "params": params}))
            return json.loads(await socket.recv())

        assert "not found" in (await ask(1, "subscription.subscribe", channels=ALL))["message"]
        assert (await ask(2, "run.start", assistant_id="curious", input=SUM))["type"] == "success"
        for number, channel in enumerate(["lifecycle", "values", "messages", "tools"], 3):
            asked = {"channels": [channel, "lifecycle", "input"]}
            await socket.send(json.dumps({"id": number, "method": "subscription.subscribe", "params": asked}))
        frames = [json.loads(await socket.recv()) for _ in range(4)]
        ended = 0
        while ended < 4:
            frames.append(json.loads(await socket.recv()))
            ended += frames[-1].get("params", {}).get("data", {}).get("event") == "completed"
    assert sum(frame["type"] == "success" for frame in frames) == 4
    sent = [frame["method"] for frame in frames if frame["type"] == "event"]
    assert {"values", "messages", "tools"} <= set(sent)
    assert set(sent[-4:]) == {"lifecycle"}, "the end of a run is news to no subscription before the others are there"


@pytest.fixture
def ending(server_url: str, tmp_path: Path) -> Iterator[Served]:
    """A server that the test stops."""
    with serving(server_url, tmp_path) as server:
        yield server.wait_until_ready()


async def test_a_server_that_stops_cuts_its_streams_so_that_clients_come_back(ending: Served) -> None:
    async with httpx.AsyncClient(base_url=ending.base, timeout=20) as http:
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        address = f"{ending.base.replace('http', 'ws')}/threads/{thread_id}/stream"
        stream = http.stream("POST", f"/threads/{thread_id}/stream", json={"channels": ["values"]})
        async with connect(address) as socket, stream as response:
            await socket.send('{"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}}')
            assert json.loads(await socket.recv())["type"] == "success"
            ending.process.terminate()
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
    assert await asyncio.to_thread(ending.process.wait, 20) == 0
