"""Tools of graphs that declare a class: approvals, questions after a crash, and calls that are made once."""

from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient

from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(150)


def effects(hosted: Served, thread: str) -> list[str]:
    """Return what tools did for a thread, in order."""
    file = Path(hosted.environment["EFFECTS"])
    return [line.split()[1] for line in file.read_text().splitlines() if line.startswith(thread)]


async def new_thread(client: LangGraphClient) -> str:
    return str((await client.threads.create())["thread_id"])


def human(text: str) -> Any:
    return {"messages": [{"role": "user", "content": text}]}


async def asked(client: LangGraphClient, thread: str, graph: str, text: str) -> list[Any]:
    values: Any = await client.runs.wait(thread, graph, input=human(text))
    return list(values["__interrupt__"])


async def answered(client: LangGraphClient, thread: str, graph: str, question: Any, answer: Any) -> Any:
    return await client.runs.wait(thread, graph, command={"resume": {question["id"]: answer}})


def said(values: Any) -> list[str]:
    return [one["content"] for one in values["messages"] if one["type"] == "tool"]


@pytest.mark.parametrize(
    "answer,results",
    [
        ({"action": "retry"}, ["paid 13"]),
        ({"action": "done", "result": "it was paid"}, ["it was paid"]),
        ({"action": "failed", "result": "it bounced"}, ["it bounced"]),
        ({"action": "abort"}, None),
    ],
)
async def test_an_unsafe_call_whose_process_died_is_a_question_and_is_not_repeated(
    client: LangGraphClient, hosted: Served, answer: Any, results: list[str] | None
) -> None:
    thread = await new_thread(client)
    (question,) = await asked(client, thread, "shop", "pay 13")
    assert {name: question["value"][name] for name in ("type", "tool", "args", "tool_class")} == {
        "type": "tool_review",
        "tool": "pay",
        "args": {"amount": 13},
        "tool_class": "unsafe",
    }
    assert len(effects(hosted, thread)) == 1
    if results is None:
        with pytest.raises(Exception, match="A person ended the run"):
            await answered(client, thread, "shop", question, answer)
    else:
        assert said(await answered(client, thread, "shop", question, answer)) == results
    assert len(effects(hosted, thread)) == (2 if answer["action"] == "retry" else 1)


async def test_an_idempotent_call_is_repeated_with_its_key(client: LangGraphClient, hosted: Served) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "shop", input=human("pay_again 13"))
    assert said(values) == ["paid 13"]
    first, second = effects(hosted, thread)
    assert first == second
    assert len(first.removeprefix("pay-13-")) == 36


@pytest.mark.parametrize("how,result,times", [("found", "found it", 1), ("absent", "paid 13", 2), ("unknown", "no", 1)])
async def test_a_reconcilable_call_whose_process_died_is_looked_up(
    client: LangGraphClient, hosted: Served, how: str, result: str, times: int
) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "shop", input=human(f"pay_{how} 13"))
    if how == "unknown":
        (question,) = values["__interrupt__"]
        assert question["value"]["type"] == "tool_review"
        assert "the bank does not answer" in str(question["value"])
        values = await answered(client, thread, "shop", question, {"action": "failed", "result": "no"})
    assert said(values) == [result]
    assert len(effects(hosted, thread)) == times


async def test_approvals_have_the_form_that_front_ends_know(client: LangGraphClient, hosted: Served) -> None:
    """Two calls in one node, of which one has run already when a person is asked about the other."""
    thread = await new_thread(client)
    (question,) = await asked(client, thread, "shop", "pay 1, send hi")
    assert [(one["name"], one["args"]) for one in question["value"]["action_requests"]] == [("send", {"text": "hi"})]
    edit = {"type": "edit", "edited_action": {"name": "send", "args": {"text": "hello"}}}
    values = await answered(client, thread, "shop", question, {"decisions": [edit]})
    assert said(values) == ["paid 1", "sent hello"]
    assert sorted(one.split("-")[:2] for one in effects(hosted, thread)) == [["pay", "1"], ["send", "hello"]]
    (question,) = await asked(client, thread, "shop", "send bye")
    values = await answered(client, thread, "shop", question, {"decisions": [{"type": "reject", "message": "no"}]})
    assert said(values)[-1].endswith("it was not run: no")
    assert len(effects(hosted, thread)) == 2


@pytest.mark.parametrize("graph", ["by_node", "within"])
async def test_a_node_that_runs_again_finds_the_results_of_its_calls(
    client: LangGraphClient, hosted: Served, graph: str
) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, graph, input={"text": ""})
    (question,) = values["__interrupt__"]
    values = await answered(client, thread, graph, question, "yes")
    assert values["answers"] == ["paid 7", "paid 7", "yes"]
    assert len(effects(hosted, thread)) == 2, "two calls with the same arguments are two"


async def test_a_fork_asks_before_it_repeats_an_unsafe_call(client: LangGraphClient, hosted: Served) -> None:
    thread = await new_thread(client)
    await client.runs.wait(thread, "shop", input=human("pay 2"))
    history: Any = await client.threads.get_history(thread, limit=20)
    before = next(one for one in history if one["next"] == ["tools"])
    values: Any = await client.runs.wait(
        thread, "shop", input=None, checkpoint_id=before["checkpoint"]["checkpoint_id"]
    )
    assert [one["value"]["type"] for one in values["__interrupt__"]] == ["tool_review"]
    assert len(effects(hosted, thread)) == 1


@pytest.mark.parametrize("node,calls", [("stumbling", 1), ("pay_in_graphs", 2)])
async def test_a_node_that_is_retried_does_not_repeat_the_calls_of_its_subgraphs(
    client: LangGraphClient, hosted: Served, node: str, calls: int
) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "insistent", input={"text": node})
    assert values["answers"] == ["paid 5"] * calls
    assert len(effects(hosted, thread)) == calls, "as often as in one attempt"


async def settled(client: LangGraphClient, thread: str, graph: str, values: Any, left: int) -> Any:
    """Answer ``left`` reviews, which are all that is asked, one run after the other."""
    while questions := values.get("__interrupt__"):
        assert {one["value"]["type"] for one in questions} == {"tool_review"}
        left -= len(questions)
        answers = {one["id"]: {"action": "done", "result": "it was paid"} for one in questions}
        values = await client.runs.wait(thread, graph, command={"resume": answers})
    assert left == 0
    return values


async def before_node(client: LangGraphClient, thread: str, node: str) -> str:
    """Return the first checkpoint from which ``node`` runs next."""
    history: Any = await client.threads.get_history(thread, limit=50)
    return [str(one["checkpoint"]["checkpoint_id"]) for one in history if one["next"] == [node]][-1]


async def test_a_fork_asks_before_it_repeats_any_unsafe_call_behind_it(client: LangGraphClient, hosted: Served) -> None:
    """Calls that nodes make themselves: in a loop, in tasks sent at once, in a subgraph; from a fork, a fork of that
    fork, and a checkpoint that a client has written."""
    thread = await new_thread(client)
    await client.runs.wait(thread, "errands", input={"text": ""})
    paid = effects(hosted, thread)
    assert len(paid) == 5
    start = await before_node(client, thread, "begin")
    for _ in range(2):
        values: Any = await client.runs.wait(thread, "errands", input=None, checkpoint_id=start)
        values = await settled(client, thread, "errands", values, 5)
        assert set(values["answers"]) == {"it was paid"}
        history: Any = await client.threads.get_history(thread, limit=50)
        start = next(
            one["checkpoint"]["checkpoint_id"] for one in reversed(history) if one["metadata"]["source"] == "fork"
        )
    values = await client.runs.wait(
        thread, "errands", input=None, checkpoint_id=await before_node(client, thread, "rest")
    )
    await settled(client, thread, "errands", values, 4)
    await client.threads.update_state(thread, {"text": "other"}, as_node="__start__", checkpoint_id=start)
    values = await client.runs.wait(thread, "errands", input=None)
    await settled(client, thread, "errands", values, 5)
    assert effects(hosted, thread) == paid


async def test_a_fork_asks_before_it_repeats_a_call_of_a_node_that_asked(
    client: LangGraphClient, hosted: Served
) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "by_node", input={"text": ""})
    asked_at = await before_node(client, thread, "pay_and_ask")
    values = await client.runs.wait(thread, "by_node", input=None, checkpoint_id=asked_at)  # while it is asked
    for _ in range(2):
        for _ in range(2):  # its two calls
            (question,) = values["__interrupt__"]
            assert question["value"]["type"] == "tool_review"
            values = await answered(client, thread, "by_node", question, {"action": "done", "result": "paid"})
        (question,) = values["__interrupt__"]
        values = await answered(client, thread, "by_node", question, "yes")
        assert values["answers"] == ["paid", "paid", "yes"]
        values = await client.runs.wait(thread, "by_node", input=None, checkpoint_id=asked_at)  # when it is answered
    assert len(effects(hosted, thread)) == 2


async def test_each_answer_counts_for_the_call_that_it_was_given_for(client: LangGraphClient, hosted: Served) -> None:
    """Two calls of one node ask one after the other, and the node runs again each time."""
    thread = await new_thread(client)
    (first,) = await asked(client, thread, "shop", "send a, send b")
    values = await answered(client, thread, "shop", first, True)
    (second,) = values["__interrupt__"]
    assert {one["value"]["args"]["text"] for one in (first, second)} == {"a", "b"}
    values = await answered(client, thread, "shop", second, {"action": "reject"})
    assert effects(hosted, thread) == [f"send-{first['value']['args']['text']}"]
    assert sorted(one.startswith("sent") for one in said(values)) == [False, True]
