"""Every stream mode, through ``langgraph_sdk``: events, their order, and identical replays."""

from itertools import pairwise
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from app.engine.streams.frames import MODES
from tests.journeys.conftest import Served

SUM: Any = {"messages": [{"role": "user", "content": "what is 12*(3+4)?"}]}


async def streamed(client: LangGraphClient, modes: Any, agent: str = "assistant", **more: Any) -> list[Any]:
    thread_id = (await client.threads.create())["thread_id"]
    parts = [p async for p in client.runs.stream(thread_id, agent, input=SUM, stream_mode=modes, **more)]
    assert parts[0].event == "metadata"
    assert parts[-1].event == "end"
    return parts[1:-1]


async def test_messages_mode_streams_each_growing_message(client: LangGraphClient) -> None:
    parts = await streamed(client, "messages")
    described = [part for part in parts if part.event == "messages/metadata"]
    partial = [part.data[0] for part in parts if part.event == "messages/partial"]
    complete = [part.data[0] for part in parts if part.event == "messages/complete"]
    ids = [next(iter(part.data)) for part in described]
    assert len(set(ids)) == len(ids) == 3
    metadata = described[0].data[ids[0]]["metadata"]
    assert metadata["langgraph_node"] == "agent"
    assert metadata["graph_id"] == "assistant"
    first = [message for message in partial if message["id"] == ids[0]]
    assert all(later["content"].startswith(earlier["content"]) for earlier, later in pairwise(first))
    assert first[-1]["type"] == "ai"
    assert first[-1]["tool_calls"][0]["args"] == {"expression": "12*(3+4)"}
    assert [(message["type"], message["content"]) for message in complete] == [("tool", "84")]


async def test_a_message_is_shown_before_the_values_that_hold_it(client: LangGraphClient) -> None:
    """React's hook appends a message that it meets after its values, and shows it twice."""
    shown = set()
    for part in await streamed(client, ["values", "messages-tuple"]):
        if part.event == "messages":
            shown.add(part.data[0]["id"])
        else:
            assert {one["id"] for one in part.data["messages"] if one["type"] != "human"} <= shown
    assert len(shown) == 3


async def test_tasks_mode_reports_start_and_result_of_nodes(client: LangGraphClient) -> None:
    tasks = [part.data for part in await streamed(client, "tasks")]
    assert [(task["name"], "input" in task) for task in tasks] == [
        ("agent", True),
        ("agent", False),
        ("tools", True),
        ("tools", False),
        ("agent", True),
        ("agent", False),
    ]
    for begun, ended in zip(tasks[::2], tasks[1::2], strict=True):
        assert begun["id"] == ended["id"]
        assert begun["triggers"] == [f"branch:to:{begun['name']}"]
        assert (ended["error"], ended["interrupts"]) == (None, [])
    assert tasks[3]["result"]["messages"][0]["content"] == "84"
    assert len(tasks[4]["input"]["messages"]) == 3


async def test_checkpoints_mode_matches_the_history(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    parts = [p.data async for p in client.runs.stream(thread_id, "assistant", input=SUM, stream_mode="checkpoints")]
    said: Any = [one for one in parts if "config" in one]
    history: Any = await client.threads.get_history(thread_id)
    assert [one["config"]["configurable"]["checkpoint_id"] for one in reversed(said)] == [
        entry["checkpoint"]["checkpoint_id"] for entry in history[:-1]
    ]
    for one, entry in zip(reversed(said), history[:-1], strict=True):
        assert one["values"] == entry["values"]
        assert one["next"] == entry["next"]
        assert one["metadata"] == {name: entry["metadata"][name] for name in ("source", "step", "parents")}
        assert [task["id"] for task in one["tasks"]] == [task["id"] for task in entry["tasks"]]
        parent = one["parent_config"] and one["parent_config"]["configurable"]["checkpoint_id"]
        assert parent == (entry["parent_checkpoint"] and entry["parent_checkpoint"]["checkpoint_id"])


async def test_debug_mode_covers_checkpoints_tasks_and_results(client: LangGraphClient) -> None:
    parts = [part.data for part in await streamed(client, "debug")]
    assert [part["type"] for part in parts] == ["checkpoint", "task", "task_result"] * 3 + ["checkpoint"]
    assert [part["step"] for part in parts] == [-1, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(part["timestamp"] for part in parts)


async def test_events_mode_matches_langchains_events(client: LangGraphClient) -> None:
    events = [part.data for part in await streamed(client, "events")]
    kinds = [event["event"] for event in events]
    assert kinds[:3] == ["on_chain_start", "on_chain_start", "on_chat_model_start"]
    assert kinds[-1] == "on_chain_end"
    assert events[0]["name"] == "assistant"
    assert events[0]["data"]["input"] == SUM
    assert events[0]["parent_ids"] == []
    assert events[1]["parent_ids"] == [events[0]["run_id"]]
    assert kinds.count("on_chat_model_start") == kinds.count("on_chat_model_end") == 2
    text = "".join(e["data"]["chunk"]["content"] for e in events if e["event"] == "on_chat_model_stream")
    output = [e["data"]["output"]["content"] for e in events if e["event"] == "on_chat_model_end"]
    assert text == "".join(output)
    assert events[-1]["data"]["output"]["messages"][-1]["content"] == output[-1]


async def test_a_question_and_a_failure_end_their_task(client: LangGraphClient, steered: Served) -> None:
    async with httpx.AsyncClient(base_url=steered.base, timeout=20) as http:
        body = {"assistant_id": "careful", "input": SUM, "stream_mode": ["tasks"]}
        text = (await http.post("/runs/stream", json=body)).text
    assert text.count('"name":"tools"') == 2
    assert '"interrupts":[{"value":{"action_requests":[{"name":"calculator"' in text
    assert '"type":"tool_approval"' in text
    failed = [p.data for p in await streamed(client, "tasks", config={"recursion_limit": 1}) if "id" in p.data]
    assert failed[-1]["name"] == "tools"
    assert failed[-1]["error"].startswith("StepLimit(")


@pytest.mark.parametrize("modes", [[mode] for mode in MODES] + [list(MODES)])
async def test_a_replay_from_any_event_is_identical_byte_for_byte(served: Served, modes: list[str]) -> None:
    async with httpx.AsyncClient(base_url=served.base, timeout=20) as http:
        body = {"assistant_id": "assistant", "input": SUM, "stream_mode": modes, "on_completion": "keep"}
        answer = await http.post("/runs/stream", json=body)
        place = answer.headers["location"]
        frames = [frame + "\r\n\r\n" for frame in answer.text.split("\r\n\r\n") if frame]
        assert len(frames) >= 2
        for cut in range(0, len(frames), max(1, len(frames) // 12)):
            last = frames[cut].split("\r\nid: ")[1].strip()
            rest = await http.get(place, headers={"Last-Event-ID": last})
            assert rest.text == "".join(frames[cut + 1 :])
        whole = await http.get(place, headers={"Last-Event-ID": "-1"})
        assert whole.text == answer.text


@pytest.mark.parametrize("asked", ["?stream_mode=updates&stream_mode=tasks", '?stream_mode=["updates","tasks"]'])
async def test_a_subscriber_may_select_among_the_modes_of_a_run(served: Served, asked: str) -> None:
    async with httpx.AsyncClient(base_url=served.base, timeout=20) as http:
        body = {"assistant_id": "echo", "input": "x", "stream_mode": ["values", "updates", "tasks"]}
        place = (await http.post("/runs/stream", json=body)).headers["location"]
        text = (await http.get(place + asked)).text
        assert [line[7:] for line in text.split("\r\n") if line.startswith("event: ")] == [
            "metadata",
            "tasks",
            "updates",
            "tasks",
            "end",
        ]
        refused = await http.get(place + "?stream_mode=nonsense")
        assert refused.status_code == 422
        assert "messages-tuple" in refused.json()["detail"]
