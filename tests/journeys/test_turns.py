"""Order of runs on a thread: multitask strategies, cancel, rollback, fork, batch."""

import asyncio
import collections
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from tests.journeys.conftest import Served

SLOW = "what time is it?"
MANY = 50


@pytest.fixture
async def client(steered: Served) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=steered.base) as client:
        yield client


@pytest.fixture
async def http(steered: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=steered.base, timeout=30) as http:
        yield http


def said(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


def humans(values: Any) -> list[str]:
    return [message["content"] for message in (values or {}).get("messages", []) if message["type"] == "human"]


async def a_thread(client: LangGraphClient, first: str | None = None) -> str:
    thread_id = (await client.threads.create())["thread_id"]
    if first:
        await client.runs.wait(thread_id, "slow", input=said(first))
    return thread_id


async def slow_run(client: LangGraphClient, thread_id: str) -> str:
    """Start a run and wait until it is inside its tool, after its first step."""
    run = await client.runs.create(thread_id, "slow", input=said(SLOW))
    async with asyncio.timeout(20):
        async for part in client.runs.join_stream(thread_id, run["run_id"]):
            if part.event == "values" and part.data["messages"][-1].get("tool_calls"):
                break
    return run["run_id"]


async def statuses(client: LangGraphClient, thread_id: str) -> list[str]:
    return [run["status"] for run in await client.runs.list(thread_id, limit=100)]


async def test_reject_refuses_a_second_run_and_changes_nothing(client: LangGraphClient) -> None:
    thread_id = await a_thread(client)
    run_id = await slow_run(client, thread_id)
    with pytest.raises(ConflictError, match="already running"):
        await client.runs.create(thread_id, "slow", input=said("second"), multitask_strategy="reject")
    assert await statuses(client, thread_id) == ["running"]
    await client.runs.cancel(thread_id, run_id, wait=True)


async def test_interrupt_ends_the_first_and_keeps_its_steps(client: LangGraphClient) -> None:
    thread_id = await a_thread(client)
    await slow_run(client, thread_id)
    values: Any = await client.runs.wait(thread_id, "slow", input=said("second"), multitask_strategy="interrupt")
    assert await statuses(client, thread_id) == ["success", "interrupted"]
    assert humans(values) == [SLOW, "second"]
    assert [m["type"] for m in values["messages"]] == ["human", "ai", "human", "ai"]


async def test_rollback_deletes_the_first_run_and_its_steps(client: LangGraphClient) -> None:
    thread_id = await a_thread(client, "before")
    before: Any = await client.threads.get_history(thread_id)
    first = await slow_run(client, thread_id)
    values: Any = await client.runs.wait(thread_id, "slow", input=said("second"), multitask_strategy="rollback")
    assert humans(values) == ["before", "second"]
    assert await statuses(client, thread_id) == ["success", "success"]
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, first)
    history: Any = await client.threads.get_history(thread_id)
    assert history[2:] == before


async def test_a_run_that_took_over_also_ends_those_that_waited(client: LangGraphClient) -> None:
    thread_id = await a_thread(client)
    await slow_run(client, thread_id)
    waiting = await client.runs.create(thread_id, "slow", input=said("waits"))
    assert waiting["status"] == "pending"
    values: Any = await client.runs.wait(thread_id, "slow", input=said("last"), multitask_strategy="interrupt")
    assert humans(values) == [SLOW, "last"]
    assert await statuses(client, thread_id) == ["success", "interrupted", "interrupted"]


@pytest.mark.parametrize("strategy", ["reject", "enqueue", "interrupt", "rollback"])
async def test_fifty_at_once_are_exact(client: LangGraphClient, strategy: Any) -> None:
    thread_id = await a_thread(client)
    first = await slow_run(client, thread_id)

    async def send(number: int) -> str | None:
        try:
            run = await client.runs.create(
                thread_id, "slow", input=said(f"message {number}"), multitask_strategy=strategy
            )
        except ConflictError:
            return None
        return run["run_id"]

    sent = [run_id for run_id in await asyncio.gather(*map(send, range(MANY))) if run_id]
    if strategy in {"reject", "enqueue"}:
        assert len(sent) == (0 if strategy == "reject" else MANY)
        await client.runs.cancel(thread_id, first, wait=True)
    async with asyncio.timeout(30):
        for run_id in sent:
            with_error = client.runs.join(thread_id, run_id)
            if strategy == "rollback":
                await asyncio.gather(with_error, return_exceptions=True)  # deleted runs cannot be joined
            else:
                await with_error
    runs: Any = await client.runs.list(thread_id, limit=100)
    values: Any = (await client.threads.get(thread_id))["values"]
    count = collections.Counter(run["status"] for run in runs)
    if strategy == "reject":
        assert count == {"interrupted": 1}
    elif strategy == "enqueue":
        assert count == {"interrupted": 1, "success": MANY}
        order = [run["kwargs"]["input"]["messages"][0]["content"] for run in reversed(runs)]
        assert humans(values) == order
    elif strategy == "interrupt":
        assert set(count) == {"success", "interrupted"}
        assert count.total() == MANY + 1
        assert runs[0]["status"] == "success"
    else:
        assert set(count) == {"success"}
        assert humans(values) == [run["kwargs"]["input"]["messages"][0]["content"] for run in reversed(runs)]
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_cancel_with_rollback_puts_the_thread_back(client: LangGraphClient) -> None:
    thread_id = await a_thread(client, "before")
    before = await client.threads.get_state(thread_id)
    run_id = await slow_run(client, thread_id)
    pending = await client.runs.create(thread_id, "slow", input=said("waits"))
    await client.runs.cancel(thread_id, pending["run_id"], action="rollback", wait=True)
    await client.runs.cancel(thread_id, run_id, action="rollback", wait=True)
    assert await client.threads.get_state(thread_id) == before
    assert len(await client.runs.list(thread_id)) == 1
    thread = await client.threads.get(thread_id)
    assert thread["status"] == "idle"


async def test_a_subscriber_of_a_rolled_back_run_is_notified(client: LangGraphClient) -> None:
    thread_id = await a_thread(client)
    run_id = await slow_run(client, thread_id)
    events = []

    async def follow() -> None:
        async for part in client.runs.join_stream(thread_id, run_id):
            events.append(part.event)
            if len(events) == 1:
                await client.runs.cancel(thread_id, run_id, action="rollback")

    await asyncio.wait_for(follow(), 20)
    assert events[-2:] == ["error", "end"] or events[-1] == "error"


async def test_a_rolled_back_answer_leaves_the_question_open(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    text = f"what is 1+1? {SLOW}"
    await client.runs.wait(thread_id, "slow", input=said(text), interrupt_before=["tools"])
    paused = await client.threads.get(thread_id)
    run = await client.runs.create(thread_id, "slow", input=None)
    await client.runs.cancel(thread_id, run["run_id"], action="rollback", wait=True)
    again = await client.threads.get(thread_id)
    assert (again["status"], again["values"]) == ("interrupted", paused["values"])


async def test_many_runs_are_cancelled_at_once(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    thread_id = await a_thread(client)
    first = await slow_run(client, thread_id)
    second = (await client.runs.create(thread_id, "slow", input=said("x")))["run_id"]
    await client.runs.cancel_many(thread_id=thread_id, run_ids=[first, second])
    await client.runs.join(thread_id, first)
    assert await statuses(client, thread_id) == ["interrupted", "interrupted"]
    answer = await http.post("/runs/cancel", json={"thread_id": thread_id, "run_ids": [first]})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "No runs found to cancel."
    for unclear in ({}, {"status": "all", "thread_id": thread_id}, {"status": "all", "run_ids": [first]}):
        assert (await http.post("/runs/cancel", json=unclear)).status_code == 422, unclear
    assert (await http.post("/runs/cancel", json={"status": "gone"})).status_code == 422


async def test_a_cancel_is_answered_in_every_state(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    thread_id = await a_thread(client, "before")
    (done,) = await client.runs.list(thread_id)
    live = await slow_run(client, thread_id)
    behind = (await client.runs.create(thread_id, "slow", input=said("x")))["run_id"]
    later = (await client.runs.create(thread_id, "slow", input=said("x"), after_seconds=600))["run_id"]
    path = f"/threads/{thread_id}/runs"
    for run_id in (later, behind, live):
        assert (await http.post(f"{path}/{run_id}/cancel?wait=true")).status_code == 200
        assert (await client.runs.get(thread_id, run_id))["status"] == "interrupted"
    for run_id in (done["run_id"], live, str(uuid.uuid4())):  # ended, already cancelled, unknown
        refused = await http.post(f"{path}/{run_id}/cancel")
        assert refused.status_code == 404
        assert refused.json()["detail"]
    assert (await http.post(f"{path}/{live}/cancel?action=forget")).status_code == 422
    assert (await client.runs.get(thread_id, done["run_id"]))["status"] == "success"
    values: Any = await client.runs.wait(thread_id, "slow", input=said("after"))
    assert humans(values) == ["before", SLOW, "after"]


async def test_a_run_starts_from_any_checkpoint_and_the_thread_continues_from_there(client: LangGraphClient) -> None:
    thread_id = await a_thread(client, "one")
    await client.runs.wait(thread_id, "slow", input=said("two"))
    history: Any = await client.threads.get_history(thread_id)
    fork = history[2]
    assert humans(fork["values"]) == ["one"]
    values: Any = await client.runs.wait(
        thread_id, "slow", input=said("three"), checkpoint_id=fork["checkpoint"]["checkpoint_id"]
    )
    assert humans(values) == ["one", "three"]
    after: Any = await client.threads.get_history(thread_id, limit=100)
    assert after[2:] == history
    assert after[1]["parent_checkpoint"]["checkpoint_id"] == fork["checkpoint"]["checkpoint_id"]
    values = await client.runs.wait(thread_id, "slow", input=said("four"))
    assert humans(values) == ["one", "three", "four"]


async def test_a_step_is_taken_again_from_the_checkpoint_before_it(client: LangGraphClient) -> None:
    thread_id = await a_thread(client, "what is 2*3?")
    history: Any = await client.threads.get_history(thread_id)
    before_tools = next(entry for entry in history if entry["next"] == ["tools"])
    values: Any = await client.runs.wait(thread_id, "slow", input=None, checkpoint=before_tools["checkpoint"])
    assert [m["type"] for m in values["messages"]] == ["human", "ai", "tool", "ai"]
    after: Any = await client.threads.get_history(thread_id, limit=100)
    assert [entry["metadata"]["source"] for entry in after[:3]] == ["loop", "loop", "fork"]
    assert len(after) == len(history) + 3


async def test_an_unknown_checkpoint_is_404(client: LangGraphClient) -> None:
    thread_id = await a_thread(client, "one")
    with pytest.raises(NotFoundError):
        await client.runs.create(thread_id, "slow", input=None, checkpoint_id=str(uuid.uuid4()))
    with pytest.raises(UnprocessableEntityError):
        await client.runs.create(thread_id, "slow", input=None, checkpoint_id="nonsense")


async def test_a_batch_is_all_or_nothing(client: LangGraphClient) -> None:
    good: Any = {"assistant_id": "echo", "input": said("x"), "on_completion": "keep"}
    runs: Any = await client.runs.create_batch([good, good])
    for run in runs:
        values: Any = await client.runs.join(run["thread_id"], run["run_id"])
        assert humans(values) == ["x"]
    bad: Any = {**good, "assistant_id": str(uuid.uuid4())}
    with pytest.raises(NotFoundError):
        await client.runs.create_batch([good, bad])
