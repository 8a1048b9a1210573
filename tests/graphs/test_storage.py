"""What a conversation with a graph takes in the database."""

import itertools
import json
import os
from typing import Any

import asyncpg
import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

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
