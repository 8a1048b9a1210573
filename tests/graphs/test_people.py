"""Graphs that wait for people: interrupts, pauses, answers, and what runs again after them."""

from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served


@pytest.fixture
def effects(hosted: Served) -> Any:
    """Return the nodes that ran on a thread, in order."""

    def of(thread: str) -> list[str]:
        file = Path(hosted.environment["EFFECTS"])
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.split()[1] for line in lines if line.startswith(thread)]

    return of


async def test_an_interrupt_waits_and_the_answer_goes_on_from_its_node(client: LangGraphClient, effects: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "review", input={"text": ""})
    (question,) = values["__interrupt__"]
    assert question["value"] == {"question": "publish?", "text": "draft"}
    state = await client.threads.get_state(thread)
    assert state["next"] == ["ask"]
    assert [one["value"] for task in state["tasks"] for one in task["interrupts"]] == [question["value"]]
    assert (await client.threads.get(thread))["status"] == "interrupted"
    values = await client.runs.wait(thread, "review", command={"resume": "yes"})
    assert values == {"text": "draft published: yes", "answers": ["yes"]}
    assert effects(thread) == ["write", "ask", "ask", "publish"]


async def test_several_interrupts_are_answered_one_by_one_and_no_finished_node_runs_again(
    client: LangGraphClient, effects: Any
) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "parallel", input={"text": ""})
    asked = {one["value"]: one["id"] for one in values["__interrupt__"]}
    assert set(asked) == {"left?", "right?"}
    values = await client.runs.wait(thread, "parallel", command={"resume": {asked["left?"]: "L"}})
    assert [one["value"] for one in values["__interrupt__"]] == ["right?"]
    values = await client.runs.wait(thread, "parallel", command={"resume": {values["__interrupt__"][0]["id"]: "R"}})
    assert values["text"] == "L,R,sure"
    assert effects(thread).count("sure") == 1
    assert effects(thread).count("left") == 2


async def test_an_interrupt_inside_of_a_subgraph_goes_on_there(client: LangGraphClient, effects: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "nested", input={"text": ""})
    assert values["__interrupt__"][0]["value"]["question"] == "publish?"
    values = await client.runs.wait(thread, "nested", command={"resume": "yes"})
    assert values["text"] == "draft published: yes"
    assert effects(thread) == ["write", "ask", "ask", "publish"]


async def test_a_run_pauses_before_and_after_nodes(client: LangGraphClient, effects: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "loop", input={"most": 2}, interrupt_before=["add"])
    assert effects(thread) == []
    assert (await client.threads.get(thread))["status"] == "interrupted"
    await client.runs.wait(thread, "loop", input=None, interrupt_after="*")
    assert effects(thread) == ["add"]
    values: Any = await client.runs.wait(thread, "loop", input=None)
    assert values["count"] == 2


async def test_a_fork_runs_again_from_its_checkpoint(client: LangGraphClient, effects: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "loop", input={"most": 3})
    history: Any = await client.threads.get_history(thread, limit=20)
    (second,) = [one for one in history if one["values"].get("count") == 2]
    values: Any = await client.runs.wait(
        thread, "loop", input=None, checkpoint_id=second["checkpoint"]["checkpoint_id"]
    )
    assert values["count"] == 3
    assert effects(thread).count("add") == 4


async def test_a_command_goes_to_a_node_with_an_update(client: LangGraphClient, effects: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "loop", input={"most": 1})
    values: Any = await client.runs.wait(thread, "loop", command={"update": {"most": 5, "count": 3}, "goto": "add"})
    assert values["count"] == 5
    assert effects(thread).count("add") == 3


async def test_subgraphs_are_streamed_under_their_namespace(client: LangGraphClient) -> None:
    parts = [
        part
        async for part in client.runs.stream(
            None, "nested", input={"text": ""}, stream_mode=["updates", "values"], stream_subgraphs=True
        )
    ]
    inner = [part for part in parts if part.event.startswith("updates|child:")]
    assert [list(part.data) for part in inner] == [["write"], ["__interrupt__"]]
    assert parts[-1].event == "end"


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_durability_changes_what_is_stored_not_what_comes_out(client: LangGraphClient, durability: Any) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "loop", input={"most": 3}, durability=durability)
    assert values["count"] == 3
    history = await client.threads.get_history(thread, limit=20)
    assert len(history) == {"sync": 6, "exit": 3}[durability]
