"""Recorded questions: an answer is accepted once, for an open question, from an authorised person."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.agents.port import interrupt_id
from tests.journeys.conftest import Served
from tests.waiting import eventually

SUM = "what is 12*(3+4)?"


@pytest.fixture
async def http(steered: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=steered.base, timeout=30) as http:
        yield http


@pytest.fixture(scope="module")
def second_server(steered: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A second process on the database of ``steered``."""
    folder = tmp_path_factory.mktemp("second")
    environment = {name: value for name, value in steered.environment.items() if name != "PORT"}
    server = Served(environment.pop("DATABASE_URL"), folder, **environment)
    try:
        yield server.wait_until_ready()
    finally:
        server.stop()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


async def asked(http: httpx.AsyncClient, agent: str, text: str) -> tuple[str, Any]:
    """Send ``text`` to ``agent`` on a new thread; return the thread and its open question."""
    thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
    values = await said(http, thread_id, agent, input=text)
    return thread_id, values.get("__interrupt__")


async def said(http: httpx.AsyncClient, thread_id: str, agent: str, **body: Any) -> Any:
    answer = await posted(http, thread_id, agent, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def posted(http: httpx.AsyncClient, thread_id: str, agent: str, **body: Any) -> httpx.Response:
    return await http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": agent, **body})


def tools(values: Any) -> list[str]:
    return [message["content"] for message in values["messages"] if message["type"] == "tool"]


@pytest.mark.parametrize("strategy", ["enqueue", "reject", "interrupt", "rollback"])
async def test_of_two_identical_concurrent_answers_one_runs(
    http: httpx.AsyncClient, second_server: Served, tmp_path: Path, strategy: str
) -> None:
    async with httpx.AsyncClient(base_url=second_server.base, timeout=30) as other:
        for number in range(10):
            path = tmp_path / f"ledger{number}"
            thread_id, _ = await asked(http, "confirming", str(path))
            body = {"command": {"resume": True}, "multitask_strategy": strategy}
            both = await asyncio.gather(*(posted(one, thread_id, "confirming", **body) for one in (http, other)))
            assert sorted(answer.status_code for answer in both) == [200, 409]
            assert lines(path) == ["before", "after True"]
            runs = (await http.get(f"/threads/{thread_id}/runs")).json()
            assert [run["status"] for run in runs] == ["success", "interrupted"]


async def test_a_late_answer_is_refused_unless_strict_resume_is_off(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "confirming", str(ledger))
    await said(http, thread_id, "confirming", command={"resume": {question["id"]: True}})
    for resume in (True, {question["id"]: True}):
        for strict in ({}, {"strict_resume": True}, {"strict_resume": None}):
            late = await posted(http, thread_id, "confirming", command={"resume": resume}, **strict)
            assert late.status_code == 409
            assert "strict_resume" in late.json()["detail"]
    anyway = await said(http, thread_id, "confirming", command={"resume": True}, strict_resume=False)
    assert lines(ledger) == ["before", "after True"]  # steps are not repeated by an answer
    assert anyway["messages"][-1]["content"] == "done"


async def test_the_same_key_gets_the_same_run_after_its_question_is_closed(http: httpx.AsyncClient) -> None:
    thread_id, (question,) = await asked(http, "careful", SUM)
    state = (await http.get(f"/threads/{thread_id}/state")).json()
    body = {"assistant_id": "careful", "command": {"resume": {question["id"]: True}}, "checkpoint": state["checkpoint"]}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = [await http.post(f"/threads/{thread_id}/runs", json=body, headers=headers) for _ in range(2)]
    assert first.json()["run_id"] == second.json()["run_id"]
    values = (await http.get(f"/threads/{thread_id}/runs/{first.json()['run_id']}/join")).json()
    assert tools(values) == ["84"]
    third = await http.post(f"/threads/{thread_id}/runs", json=body, headers=headers)
    assert third.json()["run_id"] == first.json()["run_id"]
    assert (await http.post(f"/threads/{thread_id}/runs", json=body)).status_code == 409


async def test_parallel_questions_are_answered_by_two_people_at_once(
    http: httpx.AsyncClient, second_server: Served
) -> None:
    async with httpx.AsyncClient(base_url=second_server.base, timeout=30) as other:
        for _ in range(5):
            thread_id, questions = await asked(http, "both", f"{SUM} note buy milk")
            approval, where = sorted(questions, key=lambda one: "type" not in one["value"])
            answers = await asyncio.gather(
                posted(http, thread_id, "both", command={"resume": {approval["id"]: True}}),
                posted(other, thread_id, "both", command={"resume": {where["id"]: "here"}}),
            )
            assert [answer.status_code for answer in answers] == [200, 200]
            (when,) = next(iter((await http.get(f"/threads/{thread_id}")).json()["interrupts"].values()))
            assert when["value"]["question"] == "when?"
            values = await said(http, thread_id, "both", command={"resume": "now"})
            assert sorted(tools(values)) == ["84", "add buy milk here now (1 times)"]


async def test_a_pause_counts_as_waiting_once(http: httpx.AsyncClient, second_server: Served) -> None:
    async with httpx.AsyncClient(base_url=second_server.base, timeout=30) as other:
        thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
        await said(http, thread_id, "assistant", input=SUM, interrupt_before=["tools"])
        body = {"command": {"resume": None}}
        both = await asyncio.gather(*(posted(one, thread_id, "assistant", **body) for one in (http, other)))
        assert sorted(answer.status_code for answer in both) == [200, 409]
        later = {"command": {"resume": None}, "after_seconds": 3600}
        await said(http, thread_id, "assistant", input=SUM, interrupt_before=["tools"])
        scheduled = await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "assistant", **later})
        assert scheduled.status_code == 200
        assert (await posted(http, thread_id, "assistant", **body)).status_code == 409


async def test_a_new_message_instead_of_an_answer_drops_the_question(http: httpx.AsyncClient) -> None:
    thread_id, (question,) = await asked(http, "careful", SUM)
    await said(http, thread_id, "careful", input="never mind")
    late = await posted(http, thread_id, "careful", command={"resume": {question["id"]: True}})
    assert late.status_code == 409


async def test_an_answer_of_the_wrong_type_is_refused_and_the_question_stays(
    http: httpx.AsyncClient, ledger: Path
) -> None:
    thread_id, (question,) = await asked(http, "confirming", str(ledger))
    assert question["response_schema"] == {"type": "boolean"}
    for wrong, at in (("yes", "/command/resume"), ({question["id"]: 1}, f"/command/resume/{question['id']}")):
        refused = await posted(http, thread_id, "confirming", command={"resume": wrong})
        assert refused.status_code == 422
        assert "boolean" in refused.json()["detail"]
        assert [error["pointer"] for error in refused.json()["errors"]] == [at]
    await said(http, thread_id, "confirming", command={"resume": False})
    assert lines(ledger) == ["before", "after False"]


async def test_an_approval_has_the_form_of_langchains_front_ends(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    value = question["value"]
    (request,), (config,) = value["action_requests"], value["review_configs"]
    assert (request["name"], request["args"]) == ("notes", {"action": "add", "text": str(ledger)})
    assert isinstance(request["description"], str)
    assert config == {"action_name": "notes", "allowed_decisions": ["approve", "edit", "reject", "respond"]}
    assert (value["type"], value["tool"], value["args"]) == ("tool_approval", "notes", request["args"])
    other = {"type": "edit", "edited_action": {"name": "refund", "args": request["args"]}}
    values = await said(http, thread_id, "paying", command={"resume": {"decisions": [other]}})
    (again,) = values["__interrupt__"]
    assert again["id"] != question["id"]  # every answer closes its question, also an invalid one
    edit = {"type": "edit", "edited_action": {"name": "notes", "args": {**request["args"], "action": "edited"}}}
    await said(http, thread_id, "paying", command={"resume": {"decisions": [edit]}})
    assert lines(ledger) == ["edited"]


@pytest.mark.parametrize(
    "decision, content, status",
    [
        ({"type": "reject", "message": "too dear"}, "too dear", "error"),
        ({"type": "respond", "message": "it is done"}, "it is done", "success"),
    ],
)
async def test_a_decision_may_stand_for_the_call(
    http: httpx.AsyncClient, ledger: Path, decision: Any, content: str, status: str
) -> None:
    thread_id, _ = await asked(http, "paying", f"note {ledger}")
    values = await said(http, thread_id, "paying", command={"resume": {"decisions": [decision]}})
    (message,) = [message for message in values["messages"] if message["type"] == "tool"]
    assert content in message["content"]
    assert message["status"] == status
    assert lines(ledger) == []


async def test_a_fork_asks_again_and_an_executed_call_becomes_a_review(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    before = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]
    await said(http, thread_id, "paying", command={"resume": {question["id"]: True}})
    assert lines(ledger) == ["add"]
    for resume in (True, {question["id"]: True}):
        replayed = await posted(http, thread_id, "paying", command={"resume": resume}, checkpoint=before)
        assert replayed.status_code == 409
    values = await said(http, thread_id, "paying", command={"resume": True}, checkpoint=before, strict_resume=False)
    (review,) = values["__interrupt__"]
    assert review["value"]["type"] == "tool_review"
    assert review["id"] != question["id"]
    assert (await posted(http, thread_id, "paying", command={"resume": {question["id"]: True}})).status_code == 409
    values = await said(http, thread_id, "paying", command={"resume": {"action": "done", "result": "paid before"}})
    assert tools(values) == ["paid before"]
    assert lines(ledger) == ["add"]
    (again,) = (await said(http, thread_id, "paying", input=None, checkpoint=before))["__interrupt__"]
    assert (again["value"]["type"], again["id"] != review["id"]) == ("tool_review", True)
    values = await said(http, thread_id, "paying", command={"resume": {again["id"]: {"action": "retry"}}})
    assert tools(values) == ["written"]
    assert lines(ledger) == ["add", "add"]


async def test_a_fork_from_before_an_execution_asks_under_a_new_id(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    before = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]
    (again,) = (await said(http, thread_id, "paying", input=None, checkpoint=before))["__interrupt__"]
    assert (again["value"]["type"], again["id"] != question["id"]) == ("tool_approval", True)
    assert (await posted(http, thread_id, "paying", command={"resume": {question["id"]: True}})).status_code == 409
    await said(http, thread_id, "paying", command={"resume": {again["id"]: True}})
    assert lines(ledger) == ["add"]


async def test_a_state_written_on_an_earlier_checkpoint_asks_again_too(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    before = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]
    await said(http, thread_id, "paying", command={"resume": True})
    written = await http.post(f"/threads/{thread_id}/state", json={"values": None, "checkpoint": before})
    assert written.status_code == 200
    (review,) = (await said(http, thread_id, "paying", input=None))["__interrupt__"]
    assert (review["value"]["type"], review["id"] != question["id"]) == ("tool_review", True)
    assert lines(ledger) == ["add"]


async def test_what_an_edited_state_asks_again_is_another_question(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    before = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]
    await http.post(f"/threads/{thread_id}/state", json={"values": None, "checkpoint": before})
    (again,) = (await said(http, thread_id, "paying", input=None))["__interrupt__"]
    assert (again["value"], again["id"] != question["id"]) == (question["value"], True)
    assert (await posted(http, thread_id, "paying", command={"resume": {question["id"]: True}})).status_code == 409
    await said(http, thread_id, "paying", command={"resume": {again["id"]: True}})
    assert lines(ledger) == ["add"]


async def test_an_answer_can_be_repeated_after_its_run_was_cancelled(http: httpx.AsyncClient) -> None:
    thread_id, (question,) = await asked(http, "careful", SUM)
    late = {"assistant_id": "careful", "command": {"resume": {question["id"]: True}}, "after_seconds": 3600}
    scheduled = (await http.post(f"/threads/{thread_id}/runs", json=late)).json()
    answer = {"command": {"resume": {question["id"]: True}}}
    assert (await posted(http, thread_id, "careful", **answer)).status_code == 409
    await http.post(f"/threads/{thread_id}/runs/{scheduled['run_id']}/cancel", params={"wait": True})
    (again,) = (await said(http, thread_id, "careful", input=None))["__interrupt__"]
    values = await said(http, thread_id, "careful", command={"resume": {again["id"]: True}})
    assert tools(values) == ["84"]


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
@pytest.mark.parametrize("bulk", [False, True])
async def test_a_question_can_be_answered_again_if_the_answer_was_cancelled_before_it_ran(
    http: httpx.AsyncClient, action: str, bulk: bool
) -> None:
    thread_id, (question,) = await asked(http, "careful", SUM)
    answer = {"command": {"resume": {question["id"]: True}}}
    late = {"assistant_id": "careful", **answer, "after_seconds": 3600}
    for _ in range(2):
        scheduled = (await http.post(f"/threads/{thread_id}/runs", json=late)).json()
        assert (await posted(http, thread_id, "careful", **answer)).status_code == 409
        if bulk:
            body = {"thread_id": thread_id, "run_ids": [scheduled["run_id"]]}
            await http.post("/runs/cancel", json=body, params={"action": action})
        else:
            run = f"/threads/{thread_id}/runs/{scheduled['run_id']}"
            await http.post(f"{run}/cancel", params={"wait": True, "action": action})
    values = await said(http, thread_id, "careful", **answer)
    assert tools(values) == ["84"]
    assert (await posted(http, thread_id, "careful", **answer)).status_code == 409


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_question_keeps_its_id_if_another_run_replaces_its_answer(
    http: httpx.AsyncClient, strategy: str
) -> None:
    thread_id, (question,) = await asked(http, "careful", SUM)
    answer = {"command": {"resume": {question["id"]: True}}}
    late = {"assistant_id": "careful", **answer, "after_seconds": 3600}
    assert (await http.post(f"/threads/{thread_id}/runs", json=late)).status_code == 200
    (again,) = (await said(http, thread_id, "careful", input=None, multitask_strategy=strategy))["__interrupt__"]
    assert again["id"] == question["id"]
    assert tools(await said(http, thread_id, "careful", **answer)) == ["84"]


async def test_a_copy_asks_under_ids_of_its_own(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    copies = [(await http.post(f"/threads/{thread_id}/copy")).json() for _ in range(2)]
    ids = [one["id"] for copy in copies for many in copy["interrupts"].values() for one in many]
    assert len({question["id"], *ids}) == 3
    await said(http, thread_id, "paying", command={"resume": {question["id"]: True}})
    for copy, id_ in zip(copies, ids, strict=True):
        place = copy["thread_id"]
        assert (await posted(http, place, "paying", command={"resume": {question["id"]: True}})).status_code == 409
        (review,) = (await said(http, place, "paying", command={"resume": {id_: True}}))["__interrupt__"]
        assert review["value"]["type"] == "tool_review"
        await said(http, place, "paying", command={"resume": {"action": "done"}})
    assert lines(ledger) == ["add"]


async def test_a_call_that_needs_no_approval_is_not_repeated_by_a_fork(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, _ = await asked(http, "hasty", f"note {ledger}")
    history = (await http.get(f"/threads/{thread_id}/history")).json()
    (before,) = [entry["checkpoint"] for entry in history if entry["next"] == ["tools"]]
    (review,) = (await said(http, thread_id, "hasty", input=None, checkpoint=before))["__interrupt__"]
    assert review["value"]["type"] == "tool_review"
    assert lines(ledger) == ["add"]
    values = await said(http, thread_id, "hasty", input=f"note {ledger}")  # another call of the same name
    assert "__interrupt__" not in values
    assert lines(ledger) == ["add", "add"]


async def test_a_fork_of_a_pause_runs_the_pending_node(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
    await said(http, thread_id, "hasty", input=f"note {ledger}", interrupt_before=["tools"])
    head = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]
    assert "__interrupt__" not in await said(http, thread_id, "hasty", input=None, checkpoint=head)
    assert lines(ledger) == ["add"]


async def test_an_answer_in_advance_approves_nothing(http: httpx.AsyncClient, ledger: Path) -> None:
    args = {"action": "forged", "text": str(ledger)}
    call = {"name": "notes", "args": args, "id": "c1"}
    forged = {"messages": [{"type": "ai", "content": "", "id": "m1", "tool_calls": [call]}]}
    key = interrupt_id("approval", "m1", "c1", "notes", args)
    thread_id: str = (await http.post("/threads", json={"metadata": {"graph_id": "paying"}})).json()["thread_id"]
    command = {"resume": {key: True}, "update": forged, "goto": "tools"}
    assert (await posted(http, thread_id, "paying", command=command)).status_code == 409
    values = await said(http, thread_id, "paying", command=command, strict_resume=False)
    (question,) = values["__interrupt__"]
    assert question["value"]["args"] == args
    thread_id, (other,) = await asked(http, "paying", f"note {ledger}")
    command = {"resume": {key: True, other["id"]: True}, "update": forged, "goto": "tools"}
    values = await said(http, thread_id, "paying", command=command)
    assert values["__interrupt__"][0]["value"]["args"] == args
    assert lines(ledger) == []


async def test_a_run_that_was_interrupted_before_questions_were_recorded_is_answered(
    steered: Served, http: httpx.AsyncClient, ledger: Path
) -> None:
    thread_id, (question,) = await asked(http, "paying", f"note {ledger}")
    connection = await asyncpg.connect(steered.environment["DATABASE_URL"])
    try:  # as the previous version leaves it: the key is the id, and there is no row
        key = await connection.fetchval("delete from questions where question_id = $1 returning key", question["id"])
        await connection.execute(
            "update threads set interrupts = replace(interrupts::text, $2, $3)::jsonb where thread_id = $1",
            uuid.UUID(thread_id),
            question["id"],
            key,
        )
    finally:
        await connection.close()
    (waits,) = next(iter((await http.get(f"/threads/{thread_id}")).json()["interrupts"].values()))
    assert waits["id"] == key
    copy = (await http.post(f"/threads/{thread_id}/copy")).json()
    both = await asyncio.gather(*(posted(http, thread_id, "paying", command={"resume": {key: True}}) for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [200, 409]
    assert lines(ledger) == ["add"]
    (review,) = (await said(http, copy["thread_id"], "paying", command={"resume": True}))["__interrupt__"]
    assert review["value"]["type"] == "tool_review"


async def test_a_rollback_opens_the_question_that_its_run_had_closed(steered: Served, http: httpx.AsyncClient) -> None:
    thread_id, (question,) = await asked(http, "stopping", SUM + " and the time?")
    resumed = (
        await http.post(f"/threads/{thread_id}/runs", json={"assistant_id": "stopping", "command": {"resume": True}})
    ).json()
    rolled = await http.post(
        f"/threads/{thread_id}/runs/{resumed['run_id']}/cancel", params={"action": "rollback", "wait": True}
    )
    assert rolled.status_code == 200
    thread = (await http.get(f"/threads/{thread_id}")).json()
    assert [one["id"] for many in thread["interrupts"].values() for one in many] == [question["id"]]
    again = await http.post(
        f"/threads/{thread_id}/runs",
        json={"assistant_id": "stopping", "command": {"resume": {question["id"]: {"action": "reject"}}}},
    )
    assert again.status_code == 200


@pytest.mark.parametrize("way", ["cancel", "take over"])
async def test_a_rollback_does_not_let_an_executed_call_be_repeated(
    http: httpx.AsyncClient, ledger: Path, way: str
) -> None:
    thread_id, questions = await asked(http, "lasting", f"note {ledger}? what time is it?")
    resume = {one["id"]: True for one in questions}
    body = {"assistant_id": "lasting", "command": {"resume": resume}}
    run = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()
    await eventually(lambda: lines(ledger) == ["add"])  # the clock runs for ever
    if way == "cancel":
        cancel = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
        await http.post(cancel, params={"action": "rollback", "wait": True})
        reviews = (await said(http, thread_id, "lasting", command={"resume": resume}))["__interrupt__"]
    else:
        reviews = (await said(http, thread_id, "lasting", input=None, multitask_strategy="rollback"))["__interrupt__"]
    assert [one["value"]["type"] for one in reviews] == ["tool_review", "tool_review"]
    assert not {one["id"] for one in reviews} & resume.keys()
    done = {one["id"]: {"action": "done", "result": "noon"} for one in reviews}
    assert tools(await said(http, thread_id, "lasting", command={"resume": done})) == ["noon", "noon"]
    assert lines(ledger) == ["add"]


async def test_deleting_a_run_does_not_let_a_fork_repeat_its_call(http: httpx.AsyncClient, ledger: Path) -> None:
    thread_id, _ = await asked(http, "hasty", f"note {ledger}")
    history = (await http.get(f"/threads/{thread_id}/history")).json()
    (before,) = [entry["checkpoint"] for entry in history if entry["next"] == ["tools"]]
    (run,) = (await http.get(f"/threads/{thread_id}/runs")).json()
    assert (await http.delete(f"/threads/{thread_id}/runs/{run['run_id']}")).status_code == 204
    (review,) = (await said(http, thread_id, "hasty", input=None, checkpoint=before))["__interrupt__"]
    assert review["value"]["type"] == "tool_review"
    assert lines(ledger) == ["add"]


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_pause_waits_again_if_its_resume_is_cancelled_before_it_runs(
    http: httpx.AsyncClient, action: str
) -> None:
    thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
    await said(http, thread_id, "assistant", input=SUM, interrupt_before=["tools"])
    later = {"assistant_id": "assistant", "command": {"resume": None}, "after_seconds": 3600}
    for _ in range(2):
        scheduled = (await http.post(f"/threads/{thread_id}/runs", json=later)).json()
        cancel = f"/threads/{thread_id}/runs/{scheduled['run_id']}/cancel"
        await http.post(cancel, params={"wait": True, "action": action})
        assert (await http.get(f"/threads/{thread_id}")).json()["status"] == "interrupted"
    assert tools(await said(http, thread_id, "assistant", command={"resume": None})) == ["84"]


async def test_a_pause_waits_again_if_its_scheduled_resume_is_rolled_back(http: httpx.AsyncClient) -> None:
    thread_id: str = (await http.post("/threads", json={})).json()["thread_id"]
    await said(http, thread_id, "slow", input="what time is it?", interrupt_before=["tools"])
    later = {"assistant_id": "slow", "command": {"resume": None}, "after_seconds": 1}
    run = f"/threads/{thread_id}/runs/" + (await http.post(f"/threads/{thread_id}/runs", json=later)).json()["run_id"]
    async with asyncio.timeout(20):
        while (await http.get(run)).json()["status"] != "running":  # noqa: ASYNC110  no signal says so here
            await asyncio.sleep(0.05)
    await http.post(f"{run}/cancel", params={"wait": True, "action": "rollback"})
    assert (await http.get(f"/threads/{thread_id}")).json()["status"] == "interrupted"
