"""What a conversation with a graph takes in the database."""

import itertools
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served
from tests.waiting import eventually

TURNS = int(os.environ.get("TURNS", "12"))
"""The target is for 1,000, which take some minutes."""
TEXT = "What was that about the invoice of last week, and who has to pay it by when? " * 3

_THREAD = """
select t.last_value_number as amendments, c.first_items as ranges,
  (select count(*) from checkpoint_items i where i.thread_id = t.thread_id and i.number < 0) as kept
from threads t join checkpoints c on c.thread_id = t.thread_id and c.checkpoint_id = t.head
where t.thread_id = $1
"""


@pytest.mark.timeout(100 + TURNS)
async def test_turns_whose_writes_are_stored_early_cost_the_same_however_long_the_thread_is(
    client: LangGraphClient, hosted: Served
) -> None:
    thread = (await client.threads.create())["thread_id"]
    sizes: list[int] = []
    values: Any = None
    async with httpx.AsyncClient(base_url=hosted.base, timeout=20) as http:
        for turn in range(TURNS):
            given: Any = {"messages": [{"role": "user", "content": f"{turn:4} {TEXT}"}]}
            values = await client.runs.wait(thread, "attended", input=given)
            sizes.append((await http.get(f"/threads/{thread}/storage")).json()["total_bytes"])
    connection = await asyncpg.connect(hosted.environment["DATABASE_URL"])
    try:
        found = await connection.fetchrow(_THREAD, thread)
    finally:
        await connection.close()
    assert found["amendments"] >= TURNS, "writes of each turn were stored early"
    assert (len(found["ranges"]), found["kept"]) == (1, 0), "they part no list, and go with their superstep"
    turns = [after - before for before, after in itertools.pairwise(sizes)]
    assert turns[-1] <= turns[4] + TURNS // 10 + 40
    assert sizes[-1] <= 5 * len(json.dumps(values)), f"{turns[-1]} bytes a turn"


async def test_a_run_that_is_rolled_back_leaves_what_the_checkpoint_before_it_names(
    client: LangGraphClient, hosted: Served
) -> None:
    """An answer's writes are stored with the checkpoint of the run that asked, in an item of their own if large."""
    thread = (await client.threads.create())["thread_id"]
    asked: Any = await client.runs.wait(thread, "dawdling", input={"numbers": []})
    ids = {one["value"]: one["id"] for one in asked["__interrupt__"]}

    def resume(how: str) -> Any:
        return {"resume": {ids["text?"]: "x", ids["how?"]: how}}

    connection = await asyncpg.connect(hosted.environment["DATABASE_URL"])
    try:

        async def items() -> int:
            return int(await connection.fetchval(_VALUES, thread))

        before = await items()
        run = await client.runs.create(thread, "dawdling", command=resume("slowly"))
        await eventually(lambda: _more(items, before))
        await client.runs.cancel(thread, run["run_id"], wait=True, action="rollback")
    finally:
        await connection.close()
    state = await client.threads.get_state(thread)
    assert {one["id"] for one in state["interrupts"]} == set(ids.values())
    values: Any = await client.runs.wait(thread, "dawdling", command=resume("quickly"))
    assert sorted(values["done"], key=len) == ["dawdled", "x" * 20_000]


_VALUES = "select count(*) from checkpoint_items where thread_id = $1 and number < 0"


async def _more(items: Callable[[], Awaitable[int]], than: int) -> bool:
    return await items() > than
