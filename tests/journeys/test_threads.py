"""Threads through ``langgraph_sdk``: state updates, copies, pruning, searches, TTL."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError

from tests.journeys.conftest import Served, contents

SUM = "what is 12*(3+4)?"


def said(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


async def talked(client: LangGraphClient, *texts: str, agent: str = "echo", **more: Any) -> str:
    thread_id = (await client.threads.create(**more))["thread_id"]
    for text in texts:
        await client.runs.wait(thread_id, agent, input=said(text))
    return thread_id


async def test_a_state_is_written_as_a_node_and_the_next_run_continues_from_it(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one", agent="assistant")
    before: Any = await client.threads.get_state(thread_id)
    call = {"name": "calculator", "args": {"expression": "20+1"}, "id": "mine"}
    wrote: Any = await client.threads.update_state(
        thread_id,
        {"messages": [{"type": "ai", "content": "let me see", "tool_calls": [call]}], "mood": "good"},
        as_node="agent",
    )
    state: Any = await client.threads.get_state(thread_id)
    assert state["checkpoint_id"] == wrote["checkpoint_id"] == wrote["checkpoint"]["checkpoint_id"]
    assert wrote["configurable"]["thread_id"] == thread_id
    assert state["parent_checkpoint"] == before["checkpoint"]
    assert (state["next"], state["values"]["mood"], state["metadata"]["source"]) == (["tools"], "good", "update")
    assert state["metadata"]["step"] == before["metadata"]["step"] + 1
    assert (await client.threads.get(thread_id))["status"] == "interrupted"
    values: Any = await client.runs.wait(thread_id, "assistant", input=None)
    assert contents(values)[-2] == "21"
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_a_state_is_written_on_any_checkpoint_which_forks(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one", "two")
    history: Any = await client.threads.get_history(thread_id)
    old = history[2]
    await client.threads.update_state(
        thread_id, {"messages": said("else")["messages"]}, as_node="__start__", checkpoint=old["checkpoint"]
    )
    state: Any = await client.threads.get_state(thread_id)
    assert contents(state["values"]) == ["one", "echo: one", "else"]
    assert state["parent_checkpoint"] == old["checkpoint"]
    values: Any = await client.runs.wait(thread_id, "echo", input=None)
    assert contents(values) == ["one", "echo: one", "else", "echo: else"]
    assert len(await client.threads.get_history(thread_id, limit=100)) == len(history) + 2


async def test_a_fork_without_values_and_an_end_without_a_next(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one")
    history: Any = await client.threads.get_history(thread_id)
    await client.threads.update_state(thread_id, None, checkpoint_id=history[-2]["checkpoint"]["checkpoint_id"])
    state: Any = await client.threads.get_state(thread_id)
    assert (state["metadata"]["source"], state["next"]) == ("fork", ["agent"])
    await client.threads.update_state(thread_id, {"messages": []}, as_node="__end__")
    state = await client.threads.get_state(thread_id)
    assert state["next"] == []


async def test_a_message_is_replaced_or_removed_by_its_id(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one")
    state: Any = await client.threads.get_state(thread_id)
    human, ai = state["values"]["messages"]
    await client.threads.update_state(
        thread_id,
        [{"messages": [{**human, "content": "changed"}]}, {"messages": [{"type": "remove", "id": ai["id"]}]}],
        as_node="agent",
    )
    state = await client.threads.get_state(thread_id)
    assert contents(state["values"]) == ["changed"]


async def test_an_invalid_state_update_is_refused_and_changes_nothing(client: LangGraphClient) -> None:
    fresh = (await client.threads.create())["thread_id"]
    with pytest.raises(BadRequestError, match="graph_id"):
        await client.threads.update_state(fresh, said("x"))
    thread_id = await talked(client, "one")
    before = await client.threads.get_history(thread_id)
    with pytest.raises(BadRequestError, match="Node nope does not exist; this agent has agent, tools"):
        await client.threads.update_state(thread_id, said("x"), as_node="nope")
    with pytest.raises(UnprocessableEntityError):
        await client.threads.update_state(thread_id, {"messages": [{"role": "unknown"}]})
    with pytest.raises(NotFoundError):
        await client.threads.update_state(thread_id, said("x"), checkpoint_id=str(uuid.uuid4()))
    with pytest.raises(NotFoundError):
        await client.threads.update_state(str(uuid.uuid4()), said("x"))
    assert await client.threads.get_history(thread_id) == before
    waiting = await client.runs.create(thread_id, "echo", input=said("later"), after_seconds=3600)
    paused: Any = await client.threads.update_state(thread_id, said("x"))  # a run scheduled for tomorrow does not block
    assert paused["checkpoint_id"]
    await client.runs.cancel(thread_id, waiting["run_id"])


async def test_a_history_is_imported_step_by_step(client: LangGraphClient) -> None:
    past: Any = [
        {"updates": [{"values": said("hello"), "as_node": "__start__"}]},
        {"updates": [{"values": {"messages": [{"type": "ai", "content": "hi"}]}, "as_node": "agent"}]},
    ]
    thread = await client.threads.create(graph_id="echo", supersteps=past)
    thread_id = thread["thread_id"]
    assert contents(thread["values"]) == ["hello", "hi"]
    history: Any = await client.threads.get_history(thread_id)
    assert [(entry["metadata"]["step"], entry["next"]) for entry in history[:-1]] == [(0, []), (-1, ["agent"])]
    values: Any = await client.runs.wait(thread_id, "echo", input=said("more"))
    assert contents(values) == ["hello", "hi", "more", "echo: more"]
    with pytest.raises(BadRequestError):
        await client.threads.create(supersteps=past)


async def test_a_copy_has_values_and_history_and_is_independent(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one", "two", metadata={"user": "ann"})
    copying: Any = client.threads
    copied = await copying.copy(thread_id)
    copy_id = copied["thread_id"]
    assert copy_id != thread_id
    assert copied["metadata"]["user"] == "ann"
    original: Any = await client.threads.get_history(thread_id, limit=100)
    copy: Any = await client.threads.get_history(copy_id, limit=100)
    assert [entry["values"] for entry in copy] == [entry["values"] for entry in original]
    assert [entry["checkpoint_id"] for entry in copy[:-1]] == [entry["checkpoint_id"] for entry in original[:-1]]
    await client.runs.wait(copy_id, "echo", input=said("three"))
    assert len(await client.threads.get_history(thread_id, limit=100)) == len(original)
    await client.threads.delete(thread_id)
    assert len((await client.threads.get(copy_id))["values"]["messages"]) == 6  # type: ignore[index]
    with pytest.raises(NotFoundError):
        await client.threads.copy(thread_id)


async def test_a_question_is_copied_with_its_thread(client: LangGraphClient, steered: Served) -> None:
    async with httpx.AsyncClient(base_url=steered.base, timeout=20) as http:
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "careful", "input": SUM}
        asked = (await http.post(f"/threads/{thread_id}/runs/wait", json=body)).json()["__interrupt__"]
        copy_id = (await http.post(f"/threads/{thread_id}/copy")).json()["thread_id"]
        (copied,) = next(iter((await http.get(f"/threads/{copy_id}")).json()["interrupts"].values()))
        assert (copied["value"], copied["id"] != asked[0]["id"]) == (asked[0]["value"], True)
        for one, id_ in ((copy_id, copied["id"]), (thread_id, asked[0]["id"])):
            answer = {"assistant_id": "careful", "command": {"resume": {id_: "approve"}}}
            values = (await http.post(f"/threads/{one}/runs/wait", json=answer)).json()
            assert contents(values)[-2] == "84"


async def test_pruning_keeps_the_newest_or_nothing(client: LangGraphClient) -> None:
    kept, gone = await talked(client, "one", "two"), await talked(client, "one")
    newest: Any = await client.threads.get_state(kept)
    pruned: Any = await client.threads.prune([kept, str(uuid.uuid4())], strategy="keep_latest")
    assert pruned["pruned_count"] == 1
    (entry,) = await client.threads.get_history(kept)
    assert entry["values"] == newest["values"]
    assert entry["parent_checkpoint"] is None
    values: Any = await client.runs.wait(kept, "echo", input=said("three"))
    assert len(values["messages"]) == 6
    assert (await client.threads.prune([gone]))["pruned_count"] == 1
    with pytest.raises(NotFoundError):
        await client.threads.get(gone)


async def test_a_run_that_waits_for_its_time_keeps_the_checkpoint_that_it_forks_from(client: LangGraphClient) -> None:
    thread_id = await talked(client, "one", "two")
    history: Any = await client.threads.get_history(thread_id)
    first = next(one for one in history if len(one["values"].get("messages", [])) == 2)
    run = await client.runs.create(
        thread_id, "echo", input=said("other"), checkpoint=first["checkpoint"], after_seconds=60
    )
    for strategy in ("keep_latest", "delete"):
        assert (await client.threads.prune([thread_id], strategy=strategy))["pruned_count"] == 0
    assert len(await client.threads.get_history(thread_id)) == len(history)
    await client.runs.cancel(thread_id, run["run_id"])
    assert (await client.threads.prune([thread_id], strategy="keep_latest"))["pruned_count"] == 1


async def test_large_states_are_read_by_every_route(client: LangGraphClient) -> None:
    """They are read and encoded in a thread."""
    thread_id, text = await talked(client, "one"), "x" * 1_000_000
    await client.threads.update_state(thread_id, {"text": text}, as_node="agent")
    threads: Any = client.threads
    latest = await threads.get_state(thread_id)
    views = [
        await threads.copy(thread_id),
        await threads.get(thread_id),
        await threads.update(thread_id, metadata={"a": 1}),
        await threads.create(thread_id=thread_id, if_exists="do_nothing"),
        latest,
        await threads.get_state(thread_id, checkpoint_id=latest["checkpoint_id"]),
    ]
    assert [view["values"]["text"] == text for view in views] == [True] * 6


async def test_threads_are_found_by_their_values(client: LangGraphClient) -> None:
    mark = str(uuid.uuid4())
    one = await talked(client, metadata={"mark": mark, "graph_id": "echo"})
    await client.threads.update_state(one, {"topic": {"name": "birds", "tags": ["a", "b"]}, **said("hello")})
    await talked(client, "other", metadata={"mark": mark})
    for wanted in ({"topic": {"tags": ["b"]}}, {"messages": [{"content": "hello"}]}):
        found = await client.threads.search(metadata={"mark": mark}, values=wanted)
        assert [thread["thread_id"] for thread in found] == [one]
        assert await client.threads.count(metadata={"mark": mark}, values=wanted) == 1
    assert await client.threads.search(metadata={"mark": mark}, values={"topic": {"tags": ["c"]}}) == []


async def test_parts_of_the_values_are_extracted(client: LangGraphClient, served: Served) -> None:
    thread_id = await talked(client, "one")
    async with httpx.AsyncClient(base_url=served.base, timeout=20) as http:
        wanted = {"last": "values.messages[-1].content", "none": "values.a[3].b", "graph": "metadata.graph_id"}
        body = {"ids": [thread_id], "select": ["thread_id", "status"], "extract": wanted}
        (found,) = (await http.post("/threads/search", json=body)).json()
        assert found == {
            "thread_id": thread_id,
            "status": "idle",
            "extracted": {"last": "echo: one", "none": None, "graph": "echo"},
        }
        for bad in ({"x": "nonsense"}, {"x": "values..a"}, {str(n): "values" for n in range(11)}):
            assert (await http.post("/threads/search", json={"extract": bad})).status_code == 422
        refused = await http.post("/threads/search", json={"select": ["nonsense"]})
        assert refused.status_code == 422
        assert "thread_id" in refused.json()["detail"]


async def test_a_ttl_is_set_shown_and_changed(client: LangGraphClient, served: Served) -> None:
    thread = await client.threads.create(ttl=60)
    thread_id = thread["thread_id"]
    shown: Any = await client.threads.get(thread_id, include=["ttl"])
    assert (shown["ttl"]["strategy"], shown["ttl"]["ttl_minutes"]) == ("delete", 60)
    left = datetime.fromisoformat(shown["ttl"]["expires_at"]) - datetime.fromisoformat(shown["updated_at"])
    assert left == timedelta(minutes=60)
    await client.threads.update(thread_id, metadata={}, ttl=5)
    shown = await client.threads.get(thread_id, include=["ttl"])
    assert shown["ttl"]["ttl_minutes"] == 5
    await client.threads.update(thread_id, metadata={}, ttl={"ttl": 7, "strategy": "keep_latest"})
    shown = await client.threads.get(thread_id, include=["ttl"])
    assert (shown["ttl"]["strategy"], shown["ttl"]["ttl_minutes"]) == ("keep_latest", 7)
    await client.threads.update(thread_id, metadata={}, ttl=5)
    shown = await client.threads.get(thread_id, include=["ttl"])
    assert (shown["ttl"]["strategy"], shown["ttl"]["ttl_minutes"]) == ("delete", 5)
    async with httpx.AsyncClient(base_url=served.base, timeout=20) as http:
        kept = (await http.post("/threads", json={"ttl": {"ttl": 7, "strategy": "keep_latest"}})).json()["thread_id"]
        copy = (await http.post(f"/threads/{kept}/copy")).json()["thread_id"]
        shown = (await http.get(f"/threads/{copy}", params={"include": "ttl"})).json()
        assert (shown["ttl"]["strategy"], shown["ttl"]["ttl_minutes"]) == ("keep_latest", 7)
        for bad in (0, -1, "soon", {"ttl": 1, "strategy": "forget"}, {"strategy": "keep_latest"}):
            assert (await http.post("/threads", json={"ttl": bad})).status_code == 422


async def test_a_thread_reports_its_storage(client: LangGraphClient, served: Served) -> None:
    thread_id = await talked(client, "one", "two")
    async with httpx.AsyncClient(base_url=served.base, timeout=20) as http:
        storage = (await http.get(f"/threads/{thread_id}/storage")).json()
        assert storage["checkpoints"]["count"] == 4
        assert storage["channel_values"]["by_channel"]["messages"]["versions"] == 4
        assert storage["total_bytes"] == storage["checkpoints"]["bytes"] + storage["channel_values"]["bytes"]
        assert (await http.get(f"/threads/{uuid.uuid4()}/storage")).status_code == 404


async def test_an_assistant_has_no_subgraphs(client: LangGraphClient) -> None:
    (assistant, *_) = await client.assistants.search(graph_id="echo")
    assert await client.assistants.get_subgraphs(assistant["assistant_id"]) == {}
    with pytest.raises(NotFoundError):
        await client.assistants.get_subgraphs(str(uuid.uuid4()))


async def test_a_busy_thread_is_not_written_and_not_pruned(client: LangGraphClient, steered: Served) -> None:
    async with httpx.AsyncClient(base_url=steered.base, timeout=20) as http:
        thread_id = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "slow", "input": "what time is it?"}
        run = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()
        refused = await http.post(f"/threads/{thread_id}/state", json={"values": {"a": 1}})
        assert refused.status_code == 409
        pruned = await http.post("/threads/prune", json={"thread_ids": [thread_id]})
        assert pruned.json() == {"pruned_count": 0}
        await http.post(f"/threads/{thread_id}/runs/{run['run_id']}/cancel?wait=true")
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=(await client.threads.create())["thread_id"])


async def test_states_and_histories_are_shown_in_part_on_request(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create(graph_id="echo"))["thread_id"]
    await client.threads.update_state(thread_id, {"mood": "good", "messages": []}, as_node="__input__")
    both: Any = await client.threads.get_state(thread_id, params={"select": "next,values.mood"})
    assert both == {"next": ["agent"], "values": {"mood": "good"}}
    (entry,) = await client.http.post(f"/threads/{thread_id}/history", json={"limit": 1, "select": ["values.mood"]})
    assert entry == {"values": {"mood": "good"}}
    with pytest.raises(UnprocessableEntityError, match="Invalid select field: nothing"):
        await client.threads.get_state(thread_id, params={"select": "nothing"})
