"""The checkpointer of hosted graphs: LangGraph's conformance suite, older checkpoints, other threads."""

import asyncio
import contextlib
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served
from tests.long_form import FULL
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(150)


PASSED = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
"""Tests of LangGraph's conformance suite."""


async def end_connections(database_url: str, every: float, run_id: str) -> int:
    """End all other connections to the database ``every`` so many seconds until a run has ended; return how many."""
    ended, at_rest = 0, False
    connection = await asyncpg.connect(database_url)
    try:
        while not at_rest:
            await asyncio.sleep(every)
            ended += await connection.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            at_rest = await connection.fetchval("select ended_at is not null from runs where run_id = $1", run_id)
    finally:
        await connection.close()
    return ended


async def values_of(client: LangGraphClient, thread: str, run_id: str) -> Any:
    """Return the values that a run ended with; None if the request met a connection that has just been ended."""
    with contextlib.suppress(httpx.HTTPStatusError):
        return await client.runs.join(thread, run_id)


ENDED_EVERY = (1.0, 0.3, 0.1, 0.1) * 5 if FULL else (0.3,)
"""How often all connections are ended while the conformance suite runs, in seconds."""


@pytest.mark.timeout(1800 if FULL else 150)
async def test_the_checkpointer_passes_the_conformance_suite_while_connections_end(hosted: Served) -> None:
    async with get_client(url=hosted.base, timeout=300) as client:
        for every in ENDED_EVERY:
            for graph in ("conformance", "histories") if FULL else ("conformance",):
                thread = (await client.threads.create())["thread_id"]
                run = await client.runs.create(thread, graph, input={})
                assert await end_connections(hosted.environment["DATABASE_URL"], every, run["run_id"]) > 0
                judged = await eventually(partial(values_of, client, thread, run["run_id"]))
                assert judged["failures"] == []
                assert judged.get("passed", PASSED) == PASSED


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


async def test_a_channel_stored_as_differences_outlives_a_question_of_a_graph_that_a_node_calls(
    client: LangGraphClient,
) -> None:
    thread = (await client.threads.create())["thread_id"]
    asked: Any = await client.runs.wait(thread, "delegating", input={})
    assert [one["value"] for one in asked["__interrupt__"]] == ["after 3?"]
    values: Any = await client.runs.wait(thread, "delegating", command={"resume": "answer"})
    assert values["found"] == ["given", "line 1", "line 2", "answer", "line 4"]


async def test_a_node_runs_a_graph_on_another_thread(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    other = (await client.threads.create())["thread_id"]
    for turn in range(1, 4):
        values: Any = await client.runs.wait(thread, "apart", input={"thread": other})
        assert values["found"] == [turn]
    assert (await client.threads.get_state(other))["values"] == {"count": 3}
    named: Any = await client.runs.wait(thread, "apart", input={"thread": "a name"})
    assert named["found"] == [1], "a thread whose name is no UUID"


async def test_a_supersteps_checkpoint_step_and_events_are_one_transaction(
    client: LangGraphClient, hosted: Served
) -> None:
    thread = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread, "ledger", input={"most": 4})
    await client.runs.join(thread, run["run_id"])
    connection = await asyncpg.connect(hosted.environment["DATABASE_URL"])
    try:
        rows = await connection.fetch(
            "select s.step, s.xmin::text as step_written, s.created_at as step_began, c.created_at as checkpoint_began,"
            " array(select e.xmin::text from events e where e.run_id = s.run_id) as events_written,"
            " (select r.xmin::text from runs r where r.run_id = s.run_id) as run_written"
            " from steps s join checkpoints c on c.checkpoint_id = s.checkpoint_id where s.run_id = $1 order by s.step",
            run["run_id"],
        )
    finally:
        await connection.close()
    assert len(rows) == 5, "the input's superstep and four of the node"
    for row in rows:
        # not by xmin: writes of the next superstep may have amended the checkpoint since
        assert row["step_began"] == row["checkpoint_began"], "now() is the start of the transaction"
        assert row["step_written"] in row["events_written"]
    assert len({row["step_written"] for row in rows}) == 5
    assert rows[-1]["step_written"] == rows[-1]["run_written"], "the last step and the end"
