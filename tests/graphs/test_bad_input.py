"""What clients get wrong about a hosted graph is refused with a reason, and changes nothing."""

from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

ANSWERED: Any = {"resume": "yes"}


@pytest.mark.parametrize(
    "body, status, words",
    [
        ({"command": {"goto": "nowhere"}}, 422, "nowhere"),
        ({"command": {"goto": {"node": "nowhere", "input": {}}}}, 422, "nowhere"),
        ({"command": {"goto": 5}}, 422, "goto"),
        ({"command": {"resume": {"a" * 32: "yes"}}}, 409, "No question"),
        ({"command": ANSWERED}, 422, "2 interrupts wait"),
        ({"command": ANSWERED, "interrupt_before": ["nowhere"]}, 422, "nowhere"),
        ({"command": ANSWERED, "interrupt_after": ["nowhere"]}, 422, "nowhere"),
        ({"command": ANSWERED, "checkpoint_id": "00000000-0000-4000-8000-000000000000"}, 404, "checkpoint"),
    ],
)
async def test_a_run_of_a_graph_is_refused(
    client: LangGraphClient, hosted: Served, body: dict[str, Any], status: int, words: str
) -> None:
    thread = (await client.threads.create())["thread_id"]
    asked: Any = await client.runs.wait(thread, "parallel", input={"text": "hi"})
    assert len(asked["__interrupt__"]) == 2
    before = await client.threads.get_state(thread)
    async with httpx.AsyncClient(base_url=hosted.base, timeout=30) as http:
        answer = await http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "parallel", **body})
        assert (answer.status_code, words.lower() in answer.text.lower()) == (status, True), answer.text
    assert (await client.threads.get(thread))["status"] == "interrupted"
    assert await client.threads.get_state(thread) == before


async def test_a_state_of_a_graph_is_not_written_as_an_unknown_node(client: LangGraphClient, hosted: Served) -> None:
    thread = (await client.threads.create(graph_id="review"))["thread_id"]
    async with httpx.AsyncClient(base_url=hosted.base, timeout=30) as http:
        answer = await http.post(f"/threads/{thread}/state", json={"values": {"text": "x"}, "as_node": "nowhere"})
    assert (answer.status_code, "nowhere" in answer.text) == (400, True), answer.text
