"""Requests of LangGraph's ``RemoteGraph`` and of front ends that edit messages."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.journeys.conftest import Served, contents

SUM = "what is 12*(3+4)?"


@pytest.fixture
async def http(steered: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=steered.base, timeout=20) as http:
        yield http


async def begun(http: httpx.AsyncClient, agent: str, *texts: str) -> str:
    thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
    for text in texts:
        await waited(http, thread_id, {"assistant_id": agent, "input": said(text)})
    return thread_id


async def waited(http: httpx.AsyncClient, thread_id: str, body: Any) -> Any:
    answer = await http.post(f"/threads/{thread_id}/runs/wait", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(text: str) -> Any:
    return {"messages": [{"type": "human", "content": text}]}


@pytest.mark.parametrize("empty", [{"goto": []}, {"update": {}}, {"update": None, "goto": [], "graph": None}])
async def test_an_answer_with_additional_empty_members_is_accepted(http: httpx.AsyncClient, empty: Any) -> None:
    thread_id = await begun(http, "careful", SUM)
    values = await waited(http, thread_id, {"assistant_id": "careful", "command": {"resume": True, **empty}})
    assert "84" in contents(values)
    assert "__interrupt__" not in values


async def test_a_reference_without_a_checkpoint_is_the_latest_state(http: httpx.AsyncClient) -> None:
    thread_id = await begun(http, "echo", "one", "two")
    latest = (await http.get(f"/threads/{thread_id}/state")).json()
    for reference in ({"thread_id": thread_id}, {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": None}):
        body = {"checkpoint": reference, "subgraphs": False}
        answer = await http.post(f"/threads/{thread_id}/state/checkpoint", json=body)
        assert (answer.status_code, answer.json()) == (200, latest)
    unknown = {"checkpoint": {"thread_id": str(uuid.uuid4())}}
    assert (await http.post(f"/threads/{uuid.uuid4()}/state/checkpoint", json=unknown)).status_code == 404


@pytest.mark.parametrize("what", ["", "/graph", "/schemas", "/subgraphs", "/subgraphs/some"])
async def test_an_assistant_is_read_by_the_name_of_its_agent(http: httpx.AsyncClient, what: str) -> None:
    (found,) = (await http.post("/assistants/search", json={"graph_id": "echo"})).json()
    by_id = await http.get(f"/assistants/{found['assistant_id']}{what}")
    by_name = await http.get(f"/assistants/echo{what}")
    assert (by_name.status_code, by_name.json()) == (200, by_id.json())
    refused = await http.get(f"/assistants/nothing{what}")
    assert refused.status_code == 422
    assert "echo" in refused.json()["detail"]


async def test_versions_are_listed_by_the_name_of_the_agent(http: httpx.AsyncClient) -> None:
    (version,) = (await http.post("/assistants/echo/versions", json={})).json()
    assert version["version"] == 1


async def test_a_history_is_imported_as_langgraph_exports_it(http: httpx.AsyncClient) -> None:
    past = [
        {"updates": [{"values": said("hello"), "as_node": "__input__"}]},
        {"updates": [{"values": {"messages": [{"type": "ai", "content": "hi"}]}, "as_node": "agent"}]},
    ]
    body = {"metadata": {"graph_id": "echo"}, "supersteps": past}
    thread_id = (await http.post("/threads", json=body)).json()["thread_id"]
    newest, oldest, _ = (await http.get(f"/threads/{thread_id}/history")).json()
    assert (oldest["metadata"]["source"], oldest["metadata"]["step"], oldest["next"]) == ("input", -1, ["agent"])
    assert (contents(newest["values"]), newest["next"]) == (["hello", "hi"], [])
    written = await http.post(f"/threads/{thread_id}/state", json={"values": said("more"), "as_node": "__input__"})
    assert written.status_code == 200
    state = (await http.get(f"/threads/{thread_id}/state")).json()
    assert (contents(state["values"]), state["next"]) == (["hello", "hi", "more"], ["agent"])


async def test_the_first_message_is_edited_from_the_checkpoint_before_it(http: httpx.AsyncClient) -> None:
    thread_id = await begun(http, "echo", "one", "two")
    history = (await http.get(f"/threads/{thread_id}/history", params={"limit": 100})).json()
    *_, first, origin = history
    assert [entry["parent_checkpoint"] for entry in history] == [entry["checkpoint"] for entry in history[1:]] + [None]
    assert (origin["values"], origin["next"], origin["metadata"]["source"]) == ({}, ["__start__"], "input")
    assert contents(first["values"]) == ["one"]
    pages, before = [], None
    while page := (await http.post(f"/threads/{thread_id}/history", json={"limit": 1, "before": before})).json():
        pages += page
        before = page[-1]["checkpoint"]
    assert pages == history
    by_id = await http.get(f"/threads/{thread_id}/state/{origin['checkpoint_id']}")
    by_reference = await http.post(
        f"/threads/{thread_id}/state/checkpoint", json={"checkpoint": first["parent_checkpoint"]}
    )
    assert by_id.json() == by_reference.json() == origin
    edit = {"assistant_id": "echo", "input": said("uno"), "checkpoint": first["parent_checkpoint"]}
    assert contents(await waited(http, thread_id, edit)) == ["uno", "echo: uno"]
    after = (await http.get(f"/threads/{thread_id}/history", params={"limit": 100})).json()
    assert after[1]["parent_checkpoint"] == origin["checkpoint"]
    assert after[2:] == history
    values = await waited(http, thread_id, {"assistant_id": "echo", "input": said("due")})
    assert contents(values) == ["uno", "echo: uno", "due", "echo: due"]


async def test_a_state_is_written_on_the_checkpoint_before_the_first(http: httpx.AsyncClient) -> None:
    thread_id = await begun(http, "echo", "one")
    origin = (await http.get(f"/threads/{thread_id}/history")).json()[-1]
    body = {"values": said("other"), "as_node": "__start__", "checkpoint": origin["checkpoint"]}
    assert (await http.post(f"/threads/{thread_id}/state", json=body)).status_code == 200
    state = (await http.get(f"/threads/{thread_id}/state")).json()
    assert (contents(state["values"]), state["parent_checkpoint"]) == (["other"], origin["checkpoint"])
    foreign = await http.get(f"/threads/{await begun(http, 'echo', 'x')}/state/{origin['checkpoint_id']}")
    assert foreign.status_code == 404  # another thread has another
