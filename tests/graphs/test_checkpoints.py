"""The checkpointer of hosted graphs: LangGraph's conformance suite, older checkpoints, other threads."""

from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient

pytestmark = pytest.mark.timeout(150)


async def test_the_checkpointer_of_a_run_passes_the_conformance_suite(client: LangGraphClient) -> None:
    judged: Any = await client.runs.wait(None, "conformance", input={})
    assert judged["failures"] == []
    assert judged["passed"] == {
        "put": 17,
        "put_writes": 10,
        "get_tuple": 10,
        "list": 16,
        "delete_thread": 5,
        "delete_for_runs": 7,
        "copy_thread": 8,
        "prune": 8,
    }


async def test_histories_of_channels_are_those_of_langgraphs_own_saver(client: LangGraphClient) -> None:
    judged: Any = await client.runs.wait(None, "histories", input={})
    assert judged["failures"] == []


async def test_a_node_reads_older_checkpoints_of_its_thread(client: LangGraphClient) -> None:
    found: Any = await client.runs.wait(None, "lookback", input={})
    assert found["found"] == [[2, 1, None, None, 1], [2, 2, 1, None, None]], "before the first node there is no count"


async def test_a_channel_stored_as_differences_is_whole_in_every_checkpoint(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    for turn in range(1, 4):
        values: Any = await client.runs.wait(thread, "delta", input={})
        assert values == {"lines": [f"line {number}" for number in range(turn)], "turn": 2 * turn}
    history: Any = await client.threads.get_history(thread, limit=50)
    (second,) = [one for one in history if one["values"].get("turn") == 3]
    branch: Any = await client.runs.wait(thread, "delta", input={}, checkpoint_id=second["checkpoint"]["checkpoint_id"])
    assert branch["lines"] == ["line 0", "line 1", "line 2"]
    await client.threads.prune([thread], strategy="keep_latest")
    copied: Any = await client.http.post(f"/threads/{thread}/copy", json=None)
    for one in (thread, copied["thread_id"]):
        values = await client.runs.wait(one, "delta", input={})
        assert values["lines"] == ["line 0", "line 1", "line 2", "line 3"]


async def test_a_node_runs_a_graph_on_another_thread(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    other = (await client.threads.create())["thread_id"]
    for turn in range(1, 4):
        values: Any = await client.runs.wait(thread, "apart", input={"thread": other})
        assert values["found"] == [turn]
    assert (await client.threads.get_state(other))["values"] == {"count": 3}
    named: Any = await client.runs.wait(thread, "apart", input={"thread": "a name"})
    assert named["found"] == [1], "a thread whose name is no UUID"
