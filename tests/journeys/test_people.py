"""People in the loop, through ``langgraph_sdk``: approvals before tools, questions from inside tools, pauses."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, UnprocessableEntityError

from tests.journeys.conftest import Served

SUM = "what is 12*(3+4)?"
NOTE = "note buy milk"


@pytest.fixture
async def client(steered: Served) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=steered.base) as client:
        yield client


def said(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


def tool_messages(values: Any) -> list[Any]:
    return [message for message in values["messages"] if message["type"] == "tool"]


async def ask(client: LangGraphClient, agent: str, text: str) -> tuple[str, list[Any], Any]:
    """Send ``text`` on a new thread; return the thread, its open question and its values."""
    thread_id = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread_id, agent, input=said(text))
    return thread_id, values.get("__interrupt__", []), values


async def answer(client: LangGraphClient, thread_id: str, agent: str, resume: Any, **more: Any) -> Any:
    return await client.runs.wait(thread_id, agent, command={"resume": resume}, **more)


async def test_a_tool_waits_for_approval_and_every_view_shows_the_question(client: LangGraphClient) -> None:
    thread_id, (interrupt,), values = await ask(client, "careful", SUM)
    assert interrupt["value"]["type"] == "tool_approval"
    assert interrupt["value"]["tool"] == "calculator"
    assert interrupt["value"]["args"] == {"expression": "12*(3+4)"}
    assert interrupt["response_schema"] is None
    assert tool_messages(values) == []
    thread: Any = await client.threads.get(thread_id)
    state: Any = await client.threads.get_state(thread_id)
    shown = {"id": interrupt["id"], "value": interrupt["value"]}
    assert thread["status"] == "interrupted"
    assert list(thread["interrupts"].values()) == [[shown]]
    assert state["next"] == ["tools"]
    assert [task["interrupts"] for task in state["tasks"]] == [[shown]]
    assert list(thread["interrupts"]) == [state["tasks"][0]["id"]]
    (run,) = await client.runs.list(thread_id)
    assert run["status"] == "interrupted"
    joined: Any = await client.runs.join(thread_id, run["run_id"])
    assert joined["__interrupt__"] == [interrupt]
    found = await client.threads.search(status="interrupted", ids=[thread_id])
    assert [one["thread_id"] for one in found] == [thread_id]


@pytest.mark.parametrize("yes", [True, "approve", {"action": "approve"}, {"decisions": [{"type": "approve"}]}])
async def test_an_approved_call_runs_once(client: LangGraphClient, yes: Any) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values = await answer(client, thread_id, "careful", yes)
    assert [message["content"] for message in tool_messages(values)] == ["84"]
    assert "__interrupt__" not in values
    thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["interrupts"]) == ("idle", {})
    runs = await client.runs.list(thread_id)
    assert [run["status"] for run in runs] == ["success", "interrupted"]
    answers: Any = await client.runs.join(thread_id, runs[1]["run_id"])
    assert len(answers["__interrupt__"]) == 1  # the result of that run does not change


async def test_a_rejected_call_does_not_run_and_the_model_gets_the_reason(client: LangGraphClient) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values = await answer(client, thread_id, "careful", {"action": "reject", "reason": "too dear"})
    (message,) = tool_messages(values)
    assert message["status"] == "error"
    assert "too dear" in message["content"]


async def test_an_edited_call_runs_and_is_recorded_with_the_edited_arguments(client: LangGraphClient) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values = await answer(client, thread_id, "careful", {"action": "edit", "args": {"expression": "1+1"}})
    (message,) = tool_messages(values)
    assert message["content"] == "2"
    (asking,) = [one for one in values["messages"] if one.get("tool_calls")]
    assert asking["tool_calls"][0]["args"] == {"expression": "1+1"}


async def test_a_person_may_answer_in_place_of_the_tool(client: LangGraphClient) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values = await answer(client, thread_id, "careful", {"action": "respond", "result": "about eighty"})
    assert [message["content"] for message in tool_messages(values)] == ["about eighty"]


@pytest.mark.parametrize("unclear", ["perhaps", {}, {"action": "edit"}, {"action": "edit", "args": {"wrong": 1}}, 7])
async def test_an_unclear_answer_does_not_approve_and_the_question_is_repeated(
    client: LangGraphClient, unclear: Any
) -> None:
    thread_id, (interrupt,), _ = await ask(client, "careful", SUM)
    values = await answer(client, thread_id, "careful", unclear)
    (again,) = values["__interrupt__"]
    assert again["id"] != interrupt["id"]  # the answer closed that question
    assert again["value"]["problem"]
    assert tool_messages(values) == []
    values = await answer(client, thread_id, "careful", "approve")
    assert [message["content"] for message in tool_messages(values)] == ["84"]


async def test_an_approval_counts_once_and_for_its_own_call(client: LangGraphClient) -> None:
    thread_id, (first,), _ = await ask(client, "careful", SUM)
    await answer(client, thread_id, "careful", {first["id"]: "approve"})
    values: Any = await client.runs.wait(thread_id, "careful", input=said(SUM))
    (second,) = values["__interrupt__"]
    assert second["id"] != first["id"]
    with pytest.raises(ConflictError):
        await client.runs.create(thread_id, "careful", command={"resume": {first["id"]: "approve"}})
    values = await answer(client, thread_id, "careful", {second["id"]: "approve"})
    assert len(tool_messages(values)) == 2


async def test_a_tool_asks_several_questions_and_restarts_after_each(client: LangGraphClient) -> None:
    thread_id, (where,), _ = await ask(client, "curious", NOTE)
    assert where["value"] == {"question": "where?", "text": "buy milk"}
    values = await answer(client, thread_id, "curious", "at the shop")
    (when,) = values["__interrupt__"]
    assert when["value"]["question"] == "when?"
    assert when["id"] != where["id"]
    values = await answer(client, thread_id, "curious", "today")
    assert [m["content"] for m in tool_messages(values)] == ["add buy milk at the shop today (1 times)"]


async def test_calls_finished_next_to_a_question_are_not_repeated(client: LangGraphClient) -> None:
    thread_id, (where,), values = await ask(client, "curious", f"{SUM} {NOTE}")
    (done,) = tool_messages(values)
    assert done["content"] == "84"
    assert where["value"]["question"] == "where?"
    await answer(client, thread_id, "curious", "here")
    values = await answer(client, thread_id, "curious", "now")
    assert [m["name"] for m in tool_messages(values)] == ["calculator", "notes"]
    assert tool_messages(values)[0]["id"] == done["id"]


async def test_several_questions_are_answered_by_id_in_any_order(client: LangGraphClient) -> None:
    thread_id, interrupts, _ = await ask(client, "both", f"{SUM} {NOTE}")
    assert len(interrupts) == 2
    with pytest.raises(UnprocessableEntityError) as refused:
        await client.runs.create(thread_id, "both", command={"resume": "approve"})
    assert all(one["id"] in str(refused.value) for one in interrupts)
    by_type = {one["value"].get("type", "question"): one for one in interrupts}
    values = await answer(client, thread_id, "both", {by_type["question"]["id"]: "here"})
    assert {one["id"] for one in values["__interrupt__"]} > {by_type["tool_approval"]["id"]}
    (when,) = [one for one in values["__interrupt__"] if one["value"].get("question") == "when?"]
    values = await answer(client, thread_id, "both", {when["id"]: "now", by_type["tool_approval"]["id"]: True})
    assert sorted(m["content"] for m in tool_messages(values)) == ["84", "add buy milk here now (1 times)"]


async def test_an_answer_needs_an_open_question(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "echo", input=said("hi"))
    with pytest.raises(ConflictError):
        await client.runs.create(thread_id, "echo", command={"resume": "yes"})
    with pytest.raises(ConflictError):
        await client.runs.create(thread_id, "echo", command={"resume": "yes"}, strict_resume=True)
    values = await answer(client, thread_id, "echo", "yes", strict_resume=False)
    assert len(values["messages"]) == 3
    asked, _, _ = await ask(client, "careful", SUM)
    values = await answer(client, asked, "careful", "approve", strict_resume=True)
    assert "__interrupt__" not in values


async def test_a_run_without_an_answer_repeats_the_question(client: LangGraphClient) -> None:
    thread_id, interrupts, _ = await ask(client, "careful", SUM)
    values: Any = await client.runs.wait(thread_id, "careful", input=None)
    assert values["__interrupt__"] == interrupts


async def test_a_message_instead_of_an_answer_reaches_the_model(client: LangGraphClient) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values: Any = await client.runs.wait(thread_id, "careful", input=said("never mind"))
    assert "__interrupt__" not in values
    assert values["messages"][-1]["type"] == "ai"


async def test_a_run_pauses_before_a_node_and_continues_without_input(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread_id, "assistant", input=said(SUM), interrupt_before=["tools"])
    assert "__interrupt__" not in values
    thread = await client.threads.get(thread_id)
    state = await client.threads.get_state(thread_id)
    assert (thread["status"], thread["interrupts"], state["next"]) == ("interrupted", {}, ["tools"])
    assert [run["status"] for run in await client.runs.list(thread_id)] == ["interrupted"]
    values = await client.runs.wait(thread_id, "assistant", input=None, interrupt_before=["tools"])
    assert [m["content"] for m in tool_messages(values)] == ["84"]
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_a_run_pauses_after_a_node_or_before_every_one(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread_id, "assistant", input=said(SUM), interrupt_before="*")
    assert (await client.threads.get_state(thread_id))["next"] == ["agent"]
    await client.runs.wait(thread_id, "assistant", input=None, interrupt_after=["agent"])
    assert (await client.threads.get_state(thread_id))["next"] == ["tools"]
    await client.runs.wait(thread_id, "assistant", input=None, interrupt_after="*")
    assert (await client.threads.get_state(thread_id))["next"] == ["agent"]
    values: Any = await client.runs.wait(thread_id, "assistant", input=None, interrupt_after="*")
    assert (await client.threads.get(thread_id))["status"] == "idle"
    assert values["messages"][-1]["type"] == "ai"


async def test_a_command_writes_values_and_moves_to_its_node(client: LangGraphClient) -> None:
    thread_id, _, _ = await ask(client, "careful", SUM)
    values: Any = await client.runs.wait(
        thread_id, "careful", command={"update": {"mood": "good", "messages": "forget it"}, "goto": "agent"}
    )
    assert values["mood"] == "good"
    assert [m["type"] for m in values["messages"]] == ["human", "ai", "human", "ai"]
    values = await client.runs.wait(thread_id, "careful", command={"update": {"mood": "better"}, "goto": "__end__"})
    assert values["mood"] == "better"
    assert len(values["messages"]) == 4
    history: Any = await client.threads.get_history(thread_id)
    assert history[0]["metadata"]["source"] == "update"


@pytest.mark.parametrize("wrong", [{"interrupt_before": ["nowhere"]}, {"command": {"goto": "nowhere"}}])
async def test_an_unknown_node_is_refused_with_the_valid_ones(client: LangGraphClient, wrong: Any) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    with pytest.raises(UnprocessableEntityError, match="agent, tools"):
        await client.runs.create(thread_id, "careful", input=said(SUM), **wrong)


async def test_a_stream_shows_the_question_in_its_modes(client: LangGraphClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    parts = [
        part
        async for part in client.runs.stream(thread_id, "careful", input=said(SUM), stream_mode=["updates", "values"])
    ]
    assert [part.event for part in parts] == ["metadata", "values", "updates", "values", "updates", "values", "end"]
    assert parts[-3].data["__interrupt__"] == parts[-2].data["__interrupt__"]
    assert parts[-1].data["status"] == "interrupted"
    resumed = [
        part
        async for part in client.runs.stream(
            thread_id, "careful", command={"resume": True}, stream_mode=["updates", "values"]
        )
    ]
    assert [part.event for part in resumed] == ["metadata", "values", "updates", "values", "updates", "values", "end"]
