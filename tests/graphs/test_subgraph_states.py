"""States of subgraphs: the newest, older ones, and those of tasks, as ``langgraph_sdk`` asks for them."""

import asyncio
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, NotFoundError


async def _ask(client: LangGraphClient, thread_id: str, text: str) -> str:
    """Run ``nested`` to its question; return the namespace of its subgraph."""
    await client.runs.wait(thread_id, "nested", input={"text": text})
    state = await client.threads.get_state(thread_id)
    (task,) = state["tasks"]
    at: Any = task["checkpoint"]
    assert at["checkpoint_ns"].startswith("child:")
    return str(at["checkpoint_ns"])


async def test_the_state_and_the_history_of_a_subgraph_are_read(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    first = await _ask(client, thread_id, "one")
    await client.runs.wait(thread_id, "nested", command={"resume": "yes"})
    second = await _ask(client, thread_id, "two")
    assert first != second

    at: Any = {"thread_id": thread_id, "checkpoint_ns": second}
    state: Any = await client.threads.get_state(thread_id, checkpoint=at)
    assert (state["values"]["text"], state["next"]) == ("draft", ["ask"])
    assert state["interrupts"][0]["value"]["question"] == "publish?"
    assert state["checkpoint"]["checkpoint_ns"] == second
    ended: Any = {**at, "checkpoint_ns": first}
    old: Any = await client.threads.get_state(thread_id, checkpoint=ended)
    assert old["values"] == {"text": "draft", "answers": ["yes"]}
    assert old["next"] == []

    (entry,) = await client.threads.get_history(thread_id, checkpoint=at)
    again = await client.threads.get_state(thread_id, checkpoint=entry["checkpoint"])
    assert again == entry
    assert await client.threads.get_history(thread_id, checkpoint=at, before=entry["checkpoint"]) == []
    nowhere: Any = {**at, "checkpoint_ns": "child:nowhere"}
    with pytest.raises(NotFoundError, match="no state of the subgraph 'child:nowhere'"):
        await client.threads.get_state(thread_id, checkpoint=nowhere)


async def test_tasks_have_the_states_of_their_subgraphs_on_request(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    namespace = await _ask(client, thread_id, "one")
    plain = state = await client.threads.get_state(thread_id)
    assert plain["tasks"][0]["state"] is None
    both: Any = (None, plain["checkpoint"])
    for checkpoint in both:
        state = await client.threads.get_state(thread_id, checkpoint=checkpoint, subgraphs=True)
        inner: Any = state["tasks"][0]["state"]
        assert (inner["values"]["text"], inner["next"]) == ("draft", ["ask"])
        assert inner["checkpoint"]["checkpoint_ns"] == namespace
        assert state["values"] == plain["values"]
    assert plain["checkpoint"] is not None
    by_id = await client.threads.get_state(
        thread_id, checkpoint_id=plain["checkpoint"]["checkpoint_id"], subgraphs=True
    )
    assert by_id["tasks"] == state["tasks"]


async def test_a_subgraph_that_remembers_has_one_history_for_the_thread(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    for turn in ("one", "two", "three"):
        await client.runs.wait(thread_id, "diary", input={"text": turn})
    at: Any = {"thread_id": thread_id, "checkpoint_ns": "keep"}
    state: Any = await client.threads.get_state(thread_id, checkpoint=at)
    assert state["values"]["pages"] == ["one", "two", "three"]
    history: Any = await client.threads.get_history(thread_id, checkpoint=at)
    assert [len(one["values"]["pages"]) for one in history] == [3, 2, 1]
    before: Any = await client.threads.get_history(thread_id, checkpoint=at, before=history[0]["checkpoint"], limit=1)
    assert before == history[1:2]


async def test_protocol_v2_reads_states_and_checkpoints_of_namespaces(client: LangGraphClient) -> None:
    async with asyncio.timeout(60), client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input={"text": "hi"})
        (child,) = [handle async for handle in thread.subgraphs]
        namespace = list(child.path)
        assert thread.interrupted
        send = thread._send_command
        state = await send("state.get", {"namespace": namespace})
        assert state["values"]["text"] == "draft"
        assert state["checkpoint"]["ns"] == namespace[0]
        listed = await send("state.listCheckpoints", {"namespace": namespace})
        assert [one["id"] for one in listed["checkpoints"]] == [state["checkpoint"]["id"]]


async def test_the_state_of_a_subgraph_that_waits_is_written_and_it_goes_on_from_there(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    at: Any = {"thread_id": thread_id, "checkpoint_ns": await _ask(client, thread_id, "one")}
    asked: Any = await client.threads.get_state(thread_id, checkpoint=at)
    written: Any = await client.threads.update_state(thread_id, {"text": "mine"}, as_node="write", checkpoint=at)
    assert written["checkpoint"]["checkpoint_ns"] == at["checkpoint_ns"]
    state: Any = await client.threads.get_state(thread_id, checkpoint=at)
    assert (state["values"]["text"], state["next"]) == ("mine", ["ask"])
    assert state["checkpoint_id"] == written["checkpoint_id"] != asked["checkpoint_id"]
    with pytest.raises(BadRequestError, match="has a newer checkpoint"):
        await client.threads.update_state(thread_id, {"text": "old"}, checkpoint=asked["checkpoint"])
    asks_again: Any = await client.runs.wait(thread_id, "nested", command={"resume": "yes"})
    assert asks_again["__interrupt__"][0]["value"] == {"question": "publish?", "text": "mine"}
    values = await client.runs.wait(thread_id, "nested", command={"resume": "yes"})
    assert values == {"text": "mine published: yes", "answers": ["yes"]}
    with pytest.raises(BadRequestError, match="is not running at this checkpoint"):
        await client.threads.update_state(thread_id, {"text": "late"}, checkpoint=at)
