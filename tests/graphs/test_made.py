"""Graphs that functions make, and pauses where a graph or a run asks for them."""

from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

LONG: Any = {"configurable": {"long": True}}
INPUT: Any = {"messages": []}
PAUSE: dict[str, list[Any]] = {"__interrupt__": []}


async def test_a_graph_that_needs_a_configuration_is_not_drawn_without_one(
    client: LangGraphClient, hosted: Served
) -> None:
    async with httpx.AsyncClient(base_url=hosted.base, timeout=30) as http:
        for what in ("graph", "graph?xray=true", "schemas", "subgraphs"):
            answer = await http.get(f"/assistants/needy/{what}")
            assert answer.status_code == 400, answer.text
            assert "'needy' cannot be made with this configuration: KeyError: 'node'" in answer.json()["detail"]
    assistant = await client.assistants.create("needy", config={"configurable": {"node": "first"}})
    drawn: Any = await client.assistants.get_graph(assistant["assistant_id"])
    assert "first" in {node["id"] for node in drawn["nodes"]}


async def updates(client: LangGraphClient, graph: str, **asked: Any) -> list[Any]:
    """Return the updates of a run, and its error."""
    parts = [part async for part in client.runs.stream(None, graph, input=INPUT, stream_mode=["updates"], **asked)]
    found: list[Any] = [part.data for part in parts if part.event in {"updates", "error"}]
    return [one if one == PAUSE or "error" in one else next(iter(one)) for one in found]


async def test_a_pause_without_a_question_is_an_update(client: LangGraphClient) -> None:
    assert await updates(client, "halting") == ["first", PAUSE]
    assert await updates(client, "growing", interrupt_before=["first"]) == [PAUSE]
    assert await updates(client, "growing", config=LONG, interrupt_before=["second"]) == ["first", PAUSE]
    assert await updates(client, "growing", config=LONG, interrupt_after=["second"]) == ["first", "second", PAUSE]
    assert await updates(client, "growing", config=LONG) == ["first", "second"]
    values = [part async for part in client.runs.stream(None, "halting", input=INPUT, stream_mode=["values"])]
    assert PAUSE not in [part.data for part in values], "updates were not asked for"


@pytest.mark.parametrize(
    "asked, field",
    [
        ({"interrupt_before": ["second"]}, "interrupt_before"),
        ({"interrupt_after": ["second"]}, "interrupt_after"),
        ({"command": {"goto": "second"}}, "command.goto"),
        ({"command": {"goto": [{"node": "second", "input": {}}]}}, "command.goto"),
    ],
)
async def test_a_run_that_names_a_node_which_it_does_not_have_fails(
    client: LangGraphClient, asked: dict[str, Any], field: str
) -> None:
    thread = (await client.threads.create())["thread_id"]
    asked = asked if "command" in asked else {"input": INPUT, **asked}
    failed: Any = await client.runs.wait(thread, "growing", raise_error=False, **asked)
    assert failed["__error__"] == {
        "error": "ValueError",
        "message": f"{field} names 'second', which is not a node of this graph: use first.",
    }
    grown: Any = await client.runs.wait(thread, "growing", config=LONG, **asked)
    assert "second" in grown["messages"][-1]["content"] or field == "interrupt_before"
