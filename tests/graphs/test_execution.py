"""What LangGraph's execution offers, through the ordinary API: sends, caches, retries, questions, context."""

from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(150)


def effects(hosted: Served, thread: str) -> list[str]:
    """Return the nodes that ran on a thread, in order."""
    file = Path(hosted.environment["EFFECTS"])
    return [line.split()[1] for line in file.read_text().splitlines() if line.startswith(thread)]


async def new_thread(client: LangGraphClient) -> str:
    return str((await client.threads.create())["thread_id"])


async def test_of_many_sends_only_those_that_asked_run_again(client: LangGraphClient, hosted: Served) -> None:
    thread = await new_thread(client)
    given: Any = {"numbers": list(range(10))}
    values: Any = await client.runs.wait(thread, "sends", input=given)
    asked = {one["value"]: one["id"] for one in values["__interrupt__"]}
    assert set(asked) == {"3?", "7?"}
    values = await client.runs.wait(thread, "sends", command={"resume": {asked["3?"]: "three"}})
    assert [one["value"] for one in values["__interrupt__"]] == ["7?"]
    last = values["__interrupt__"][0]["id"]
    values = await client.runs.wait(thread, "sends", command={"resume": {last: "seven"}})
    assert values["done"] == [0, 1, 2, "three", 4, 5, 6, "seven", 8, 9], "in the order of the sends"
    ran = effects(hosted, thread)
    assert sorted({one: ran.count(one) for one in ran if ran.count(one) > 1}) == ["work-3", "work-7"]
    assert ran.count("work-3") == 2


async def test_the_state_inside_of_a_step_has_what_its_tasks_have_done(client: LangGraphClient) -> None:
    """As ``aget_state`` of LangGraph: each task has its own result and its own question."""
    thread = await new_thread(client)
    given: Any = {"text": "hi"}
    parts = [part async for part in client.runs.stream(thread, "parallel", input=given, stream_mode="updates")]
    updates: Any = [part.data for part in parts if part.event == "updates"]
    assert updates[0] == {"sure": {"answers": ["sure"]}}
    assert len(updates[1]["__interrupt__"]) == 2
    state: Any = await client.threads.get_state(thread)
    tasks = {one["name"]: one for one in state["tasks"]}
    assert {name: [i["value"] for i in one["interrupts"]] for name, one in tasks.items()} == {
        "left": ["left?"],
        "right": ["right?"],
        "sure": [],
    }
    assert [name for name, one in tasks.items() if one["result"] is not None] == ["sure"]
    assert tasks["sure"]["result"] == {"answers": ["sure"]}
    assert (sorted(state["next"]), state["values"]["answers"]) == (["left", "right"], ["sure"])
    assert len(state["interrupts"]) == 2
    (newest, *_) = await client.threads.get_history(thread, limit=1)
    assert [len(one["interrupts"]) for one in newest["tasks"]] == [1, 1, 0]
    sent: Any = await new_thread(client)
    given = {"numbers": [3, 4, 7]}
    await client.runs.wait(sent, "sends", input=given)
    state = await client.threads.get_state(sent)
    assert (state["next"], len({one["id"] for one in state["tasks"]})) == (["work", "work"], 3)


async def test_the_error_of_a_node_is_not_that_of_its_neighbour(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    await client.runs.wait(thread, "neighbours", input={}, raise_error=False)
    state: Any = await client.threads.get_state(thread)
    assert {one["name"]: (one["error"], one["result"]) for one in state["tasks"]} == {
        "fails": ("ValueError('no')", None),
        "works": (None, {"done": ["works"]}),
    }


async def test_a_cached_node_runs_once_for_an_input(client: LangGraphClient, hosted: Served) -> None:
    ran, given = list[str](), dict[str, Any](numbers=[20, 22])
    for _ in range(2):
        thread = await new_thread(client)
        values: Any = await client.runs.wait(thread, "cached", input=given)
        assert values["done"] == [42]
        ran += effects(hosted, thread)
    assert ran == ["compute"]


async def test_a_node_is_retried_by_its_policy(client: LangGraphClient) -> None:
    values: Any = await client.runs.wait(None, "retried", input={})
    assert values["done"] == [3]


async def test_a_node_that_asks_twice_gets_both_answers(client: LangGraphClient, hosted: Served) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "twice", input={})
    assert [one["value"] for one in values["__interrupt__"]] == ["first?"]
    values = await client.runs.wait(thread, "twice", command={"resume": "one"})
    assert [one["value"] for one in values["__interrupt__"]] == ["second?"]
    values = await client.runs.wait(thread, "twice", command={"resume": "two"})
    assert values["done"] == ["one", "two"]
    assert effects(hosted, thread) == ["ask_twice"] * 3


@pytest.mark.parametrize(
    "decision,tool_says",
    [
        ({"type": "approve"}, "sunny in Bonn"),
        ({"type": "edit", "edited_action": {"name": "weather", "args": {"city": "Kiel"}}}, "sunny in Kiel"),
        ({"type": "reject", "message": "not today"}, "not today"),
    ],
)
async def test_middleware_asks_for_approval_in_the_form_that_built_in_agents_use(
    client: LangGraphClient, hosted: Served, decision: dict[str, Any], tool_says: str
) -> None:
    thread = await new_thread(client)
    human: Any = {"messages": [{"role": "user", "content": "weather in Bonn?"}]}
    values: Any = await client.runs.wait(thread, "careful", input=human)
    (question,) = values["__interrupt__"]
    assert [(one["name"], one["args"]) for one in question["value"]["action_requests"]] == [
        ("weather", {"city": "Bonn"})
    ]
    connection = await asyncpg.connect(hosted.environment["DATABASE_URL"])
    try:
        row = await connection.fetchrow("select question_id, kind from questions where thread_id = $1", thread)
    finally:
        await connection.close()
    assert row is not None
    assert (row["question_id"], row["kind"]) == (question["id"], "approval")
    values = await client.runs.wait(thread, "careful", command={"resume": {question["id"]: {"decisions": [decision]}}})
    (said,) = [one["content"] for one in values["messages"] if one["type"] == "tool"]
    assert said.endswith(tool_says), "the middleware says to the model what a person decided"


async def test_too_few_decisions_are_refused_and_the_question_stays(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    human: Any = {"messages": [{"role": "user", "content": "weather in Bonn?"}]}
    await client.runs.wait(thread, "careful", input=human)
    for decisions in ([], [{"type": "approve"}] * 2):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await client.runs.wait(thread, "careful", command={"resume": {"decisions": decisions}})
        assert f"has {len(decisions)} decisions, but question" in refused.value.response.text
    values: Any = await client.runs.wait(thread, "careful", command={"resume": {"decisions": [{"type": "approve"}]}})
    assert [one["content"] for one in values["messages"] if one["type"] == "tool"] == ["sunny in Bonn"]


async def test_nodes_see_the_metadata_of_the_run_and_of_its_assistant(client: LangGraphClient) -> None:
    assistant = await client.assistants.create("configured", metadata={"team": "red", "of_run": "assistant"})
    given: Any = {"metadata": {"of_run": 1}, "config": {"metadata": {"of_config": 2}}}
    values: Any = await client.runs.wait(None, assistant["assistant_id"], input={}, **given)
    assert values["metadata"] == {"team": "red", "of_run": 1, "of_config": 2}


async def test_an_assistants_configuration_makes_the_graph_that_is_drawn_and_written_to(
    client: LangGraphClient,
) -> None:
    named: Any = {"configurable": {"node": "special"}}
    special = (await client.assistants.create("configured", config=named))["assistant_id"]
    plain = await client.assistants.get_graph("configured")
    assert {one["id"] for one in plain["nodes"]} == {"__start__", "plain", "__end__"}
    for xray in (False, True):
        drawn = await client.assistants.get_graph(special, xray=xray)
        assert {one["id"] for one in drawn["nodes"]} == {"__start__", "special", "__end__"}
    thread = await new_thread(client)
    await client.runs.wait(thread, special, input={})
    await client.threads.update_state(thread, {"kind": 1}, as_node="special")
    written: Any = await client.threads.get_state(thread)
    assert written["values"]["kind"] == 1


async def test_a_class_as_a_value_fails_its_step_by_the_channels_name(client: LangGraphClient) -> None:
    with pytest.raises(Exception, match="channel 'kind'"):
        await client.runs.wait(None, "classy", input={})


async def test_context_reaches_nodes_and_stays_out_of_configurable(client: LangGraphClient) -> None:
    values: Any = await client.runs.wait(None, "contextual", input={}, context={"tone": "kind"})
    assert values["done"] == ["kind", False]


async def test_a_thread_without_a_run_takes_values_as_a_node(client: LangGraphClient) -> None:
    created: Any = await client.threads.create(graph_id="loop")
    await client.threads.update_state(created["thread_id"], {"count": 4, "most": 6}, as_node="add")
    values: Any = await client.runs.wait(created["thread_id"], "loop", input=None)
    assert values["count"] == 6


async def test_factories_nodes_and_tools_get_what_langgraph_gives_them(client: LangGraphClient) -> None:
    """The use of the graph, the store, the server, and timeouts that a heartbeat puts off."""
    alive: Any = {"numbers": [1, 2]}
    values: Any = await client.runs.wait(None, "furnished", input=alive)
    assert values["done"] == ["Bonn", "furnished", 1, "threads.create_run", True, "lingered"]
    still: Any = {"numbers": [1]}
    values = await client.runs.wait(None, "furnished", input=still, raise_error=False)
    assert values["__error__"]["error"] == "NodeTimeoutError"
