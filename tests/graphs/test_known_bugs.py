"""Bugs that LangGraph and Aegra, another server for its graphs, had: each names the tests that show it does not happen
here, or what of it does. Numbers are those of their public issues and pull requests."""

import ast
import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk.client import LangGraphClient, RunsClient

from app.engine.structs import RunCreate
from tests.graphs.test_execution import effects, new_thread
from tests.journeys.conftest import Served

pytestmark = pytest.mark.timeout(150)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "langgraph-compatibility.md"
GRAPHS, HERE = "tests/graphs/", "tests/graphs/test_known_bugs.py::"


class Bug(NamedTuple):
    """What went wrong there, and the tests that show that it does not happen here."""

    what: str
    tests: tuple[str, ...]


KNOWN_BUGS = {
    ("LangGraph", 8382): Bug(
        "A delta channel was rebuilt from the writes of parallel tasks in another order than the run had applied.",
        (
            f"{HERE}test_writes_of_parallel_tasks_are_read_back_in_the_order_of_their_paths",
            f"{HERE}test_writes_of_tasks_that_finished_before_an_answer_keep_the_order_of_their_paths",
            f"{GRAPHS}test_checkpoints.py::test_histories_of_channels_are_those_of_langgraphs_own_saver",
        ),
    ),
    ("LangGraph", 8443): Bug(
        "A fork, read again, had what the branch that it left had written to a delta channel.",
        (f"{HERE}test_a_fork_has_nothing_of_the_branch_that_it_left",),
    ),
    ("LangGraph", 8384): Bug(
        "A channel that became a delta channel lost the first write after the change.",
        (
            f"{HERE}test_a_list_that_becomes_a_delta_channel_keeps_every_write",
            f"{HERE}test_writes_of_parallel_tasks_are_read_back_in_the_order_of_their_paths",
        ),
    ),
    ("LangGraph", 8526): Bug(
        "The same: writes at the checkpoint that still held the plain value were skipped.",
        (f"{HERE}test_writes_of_parallel_tasks_are_read_back_in_the_order_of_their_paths",),
    ),
    ("LangGraph", 8011): Bug(
        "The first update of the state of an empty thread was lost for a delta channel.",
        (f"{HERE}test_values_written_to_an_empty_thread_are_there",),
    ),
    ("LangGraph", 8039): Bug(
        "Writes and checkpoints were stored in no fixed order, so a crash decided whether a finished node ran again.",
        (
            f"{GRAPHS}test_checkpoints.py::test_a_supersteps_checkpoint_step_and_events_are_one_transaction",
            f"{GRAPHS}test_recovery.py::test_a_run_goes_on_behind_every_commit_without_repeating_a_node",
            f"{GRAPHS}test_recovery.py::test_finished_nodes_of_an_open_superstep_do_not_run_again",
        ),
    ),
    ("LangGraph", 6792): Bug(
        "Finished tasks of a subgraph ran again when a later one of it got its answer.",
        (f"{HERE}test_finished_tasks_of_a_subgraph_do_not_run_again_behind_an_answer",),
    ),
    ("LangGraph", 5672): Bug(
        "What a run had streamed before it was cancelled was missing in the state.",
        (
            f"{HERE}test_a_cancelled_run_keeps_the_values_that_it_has_streamed",
            f"{GRAPHS}test_hosted.py::test_a_cancelled_run_stops_its_node_and_keeps_what_was_committed",
        ),
    ),
    ("LangGraph", 6342): Bug(
        "A remote graph refused a context together with the configuration that names the thread.",
        (f"{HERE}test_a_context_goes_with_a_thread_and_is_in_no_state",),
    ),
    ("Aegra", 305): Bug(
        "A graph with callbacks that cannot be copied could be run, but its states could not be read.",
        (f"{HERE}test_a_graph_with_callbacks_that_cannot_be_copied_is_run_and_read",),
    ),
    ("Aegra", 246): Bug(
        "The context of a run, a place for secrets, was stored with each checkpoint.",
        (
            f"{HERE}test_a_context_goes_with_a_thread_and_is_in_no_state",
            f"{GRAPHS}test_execution.py::test_context_reaches_nodes_and_stays_out_of_configurable",
        ),
    ),
    ("Aegra", 245): Bug(
        "The first run after a start got a graph that its function had made without the user.",
        ("tests/graphs/test_users.py::test_factories_and_nodes_know_the_user_of_a_key",),
    ),
    ("Aegra", 251): Bug(
        "The same: functions that make graphs were called at the start, and their graphs were kept.",
        (
            "tests/graphs/test_users.py::test_factories_and_nodes_know_the_user_of_a_key",
            f"{GRAPHS}test_hosted.py::test_a_factory_may_need_what_only_a_run_gives_it",
        ),
    ),
    ("Aegra", 442): Bug(
        "interrupt_before and interrupt_after of a run were stored and ignored.",
        (f"{GRAPHS}test_people.py::test_a_run_pauses_before_and_after_nodes",),
    ),
    ("Aegra", 448): Bug(
        "The same, and '*' for all nodes was read as a node of that name.",
        (f"{GRAPHS}test_people.py::test_a_run_pauses_before_and_after_nodes",),
    ),
    ("Aegra", 491): Bug(
        "Questions of protocol v2 had their value under another key than its clients read.",
        (f"{HERE}test_a_question_of_protocol_v2_has_its_payload",),
    ),
    ("Aegra", 587): Bug(
        "The depth of a subscription counted from the root instead of from the namespace asked for.",
        ("tests/protocols/test_langgraph_v2_projection.py::test_namespaces_are_selected_by_prefix_name_and_depth",),
    ),
    ("Aegra", 525): Bug(
        "Nodes did not find graph_id in their configuration.",
        (f"{HERE}test_nodes_find_the_id_of_their_graph_whatever_the_client_sends",),
    ),
    ("Aegra", 253): Bug(
        "A second run on a busy thread ran at the same time, whatever its multitask_strategy.",
        (
            "tests/journeys/test_turns.py::test_fifty_at_once_are_exact",
            "tests/journeys/test_turns.py::test_reject_refuses_a_second_run_and_changes_nothing",
            "tests/journeys/test_turns.py::test_interrupt_ends_the_first_and_keeps_its_steps",
            "tests/journeys/test_turns.py::test_rollback_deletes_the_first_run_and_its_steps",
        ),
    ),
    ("Aegra", 502): Bug(
        "A worker that had lost its lease could overwrite what its successor had stored.",
        (
            "tests/runs/test_engine.py::test_an_owner_that_lost_its_lease_commits_nothing",
            "tests/runs/test_processes.py::test_a_process_that_hung_past_its_lease_writes_and_starts_nothing",
            "tests/faults/test_faults.py::test_a_process_frozen_past_its_lease_writes_nothing_afterwards",
        ),
    ),
    ("Aegra", 501): Bug(
        "A request that a client repeated after a lost response made a second run.",
        (
            "tests/journeys/test_twice.py::test_every_creating_route_accepts_idempotency_keys",
            "tests/faults/test_faults.py::test_one_idempotency_key_makes_one_run_despite_crashes",
        ),
    ),
    ("Aegra", 503): Bug(
        "Fields of a run that the SDK sends were dropped in silence.",
        (f"{HERE}test_every_field_that_the_sdk_sends_with_a_run_is_known",),
    ),
    ("Aegra", 413): Bug(
        "Clients of protocol v2 found no routes.",
        (f"{GRAPHS}test_protocol_v2.py::test_a_subgraph_asks_under_its_namespace_and_the_answer_goes_on",),
    ),
    ("Aegra", 436): Bug(
        "A draft of protocol v2 ignored the namespaces and the depth of a subscription.",
        ("tests/protocols/test_langgraph_v2_projection.py::test_namespaces_are_selected_by_prefix_name_and_depth",),
    ),
}

LISTED = {
    "LangGraph": {8382, 8443, 8384, 8526, 8011, 8039, 6792, 6208, 5672, 6342},
    "Aegra": {305, 246, 245, 251, 442, 448, 491, 587, 525, 253, 502, 501, 503, 413, 436},
}
"""The bugs that this server was asked to be free of."""

AS_IN_LANGGRAPH = {
    ("LangGraph", 6208): Bug(
        "A node that asks runs again, up to its question, when another question of its superstep is answered: LangGraph"
        " itself starts it. No finished node runs again, and no tool call with effects is repeated.",
        (
            f"{GRAPHS}test_execution.py::test_of_many_sends_only_those_that_asked_run_again",
            f"{GRAPHS}test_execution.py::test_a_node_that_asks_twice_gets_both_answers",
            f"{GRAPHS}test_tools.py::test_each_answer_counts_for_the_call_that_it_was_given_for",
        ),
    ),
}
"""Those that are not fixed here, why, and the tests of what holds all the same."""

OF_TRANSPORT = {"thread_id", "headers", "params", "on_run_created", "raise_error", "version"}
"""Parameters of the SDK's methods that are not in the body of a request."""
WITHOUT_EFFECT = {"langsmith_tracing": "names a project at LangSmith, to which this server sends nothing"}
"""Fields of a run that this server ignores, and why."""


@functools.cache
def functions_of(file: str) -> set[str]:
    """Return the names of the functions that ``file`` defines."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_listed_bug_has_tests_that_exist() -> None:
    listed = {(project, number) for project, numbers in LISTED.items() for number in numbers}
    known = KNOWN_BUGS | AS_IN_LANGGRAPH
    assert listed == known.keys()
    assert all(bug.what and bug.tests for bug in known.values())
    named = {test for bug in known.values() for test in bug.tests}
    missing = [test for test in named if test.partition("::")[2] not in functions_of(test.partition("::")[0])]
    assert missing == []
    own = {name for name in functions_of(HERE.removesuffix("::")) if name.startswith("test_")}
    unused = own - {test.removeprefix(HERE) for test in named}
    assert unused == {"test_every_listed_bug_has_tests_that_exist", "test_the_page_names_every_bug"}


@pytest.mark.parametrize("project", LISTED)
def test_the_page_names_every_bug(project: str) -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {project} #")]
    assert {int(number) for row in rows for number in re.findall(r"#(\d+)", row)} == LISTED[project]


def lines(*given: str) -> Any:
    return {"lines": list(given)}


async def test_writes_of_parallel_tasks_are_read_back_in_the_order_of_their_paths(client: LangGraphClient) -> None:
    found: Any = await client.runs.wait(None, "replayed", input={})
    assert found["found"] == [[10, 20], 0, "late 0"]


async def test_writes_of_tasks_that_finished_before_an_answer_keep_the_order_of_their_paths(
    client: LangGraphClient,
) -> None:
    thread = await new_thread(client)
    await client.runs.wait(thread, "ordered", input=lines("given"))
    live: Any = await client.runs.wait(thread, "ordered", command={"resume": "a"})
    assert live["lines"] == ["given", "a", "b", "c", "d"]
    assert (await client.threads.get_state(thread))["values"] == live
    await client.runs.wait(thread, "ordered", input=lines("more"))
    again: Any = await client.runs.wait(thread, "ordered", command={"resume": "a"})
    assert again["lines"] == [*live["lines"], "more", "a", "b", "c", "d"]


async def test_a_fork_has_nothing_of_the_branch_that_it_left(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    await client.runs.wait(thread, "delta", input=lines("first"))
    base: Any = await client.threads.get_state(thread)
    await client.runs.wait(thread, "delta", input=lines("left"))
    at = base["checkpoint"]["checkpoint_id"]
    forked: Any = await client.runs.wait(thread, "delta", input=lines("right"), checkpoint_id=at)
    assert forked["lines"] == ["first", "line 1", "right", "line 3"]
    assert (await client.threads.get_state(thread))["values"] == forked
    later: Any = await client.runs.wait(thread, "delta", input={})
    assert later["lines"] == [*forked["lines"], "line 4"]


async def test_a_list_that_becomes_a_delta_channel_keeps_every_write(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "before_delta", input=lines("plain"))
    for turn in range(2):
        values = await client.runs.wait(thread, "delta", input=lines(f"turn {turn}"))
        assert (await client.threads.get_state(thread))["values"] == values
    assert values["lines"] == ["plain", "line 1", "turn 0", "line 3", "turn 1", "line 5"]


async def test_values_written_to_an_empty_thread_are_there(client: LangGraphClient) -> None:
    thread = (await client.threads.create(graph_id="delta"))["thread_id"]
    await client.threads.update_state(thread, {"lines": ["given"], "turn": 7}, as_node="idle")
    state: Any = await client.threads.get_state(thread)
    assert (state["values"], state["next"]) == ({"lines": ["given"], "turn": 7}, [])
    values: Any = await client.runs.wait(thread, "delta", input={})
    assert values == {"lines": ["given", "line 1"], "turn": 9}


async def test_finished_tasks_of_a_subgraph_do_not_run_again_behind_an_answer(
    client: LangGraphClient, hosted: Served
) -> None:
    thread = await new_thread(client)
    asked: Any = await client.runs.wait(thread, "calling", input={"text": "tea"})
    assert [one["value"] for one in asked["__interrupt__"]] == ["more?"]
    values: Any = await client.runs.wait(thread, "calling", command={"resume": "milk"})
    assert values["text"] == "tea prepared milk"
    assert effects(hosted, thread) == ["prepare"]


async def test_a_cancelled_run_keeps_the_values_that_it_has_streamed(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    given: Any = {"text": "", "answers": ["before"]}
    run = await client.runs.create(thread, "slow", input=given)
    streamed: list[Any] = []
    async for part in client.runs.join_stream(thread, run["run_id"], stream_mode="values"):
        if part.event == "values":
            streamed.append(part.data)
            if part.data["text"] == "draft":
                await client.runs.cancel(thread, run["run_id"])
    assert streamed[-1] == {"text": "draft", "answers": ["before"]}
    assert (await client.threads.get_state(thread))["values"] == streamed[-1]


async def test_a_context_goes_with_a_thread_and_is_in_no_state(client: LangGraphClient) -> None:
    thread = await new_thread(client)
    config: Any = {"configurable": {"thread_id": thread}, "tags": ["a"], "recursion_limit": 9}
    context: Any = {"token": "only-for-this-run"}
    values: Any = await RemoteGraph("identified", client=client).ainvoke({}, config, context=context)
    assert values["seen"] == ["identified", len(context["token"]), False]
    states = await client.threads.get_history(thread, limit=20)
    assert len(states) == 4, "with the one before the first input"
    assert context["token"] not in json.dumps([states, await client.threads.get(thread)])


async def test_nodes_find_the_id_of_their_graph_whatever_the_client_sends(client: LangGraphClient) -> None:
    given: Any = {"configurable": {"graph_id": "another"}}
    values: Any = await client.runs.wait(None, "identified", input={}, config=given)
    assert values["seen"] == ["identified", 0, False]


async def test_a_graph_with_callbacks_that_cannot_be_copied_is_run_and_read(
    client: LangGraphClient, hosted: Served
) -> None:
    thread = await new_thread(client)
    values: Any = None
    for turn in (1, 2):
        human: Any = {"messages": [{"role": "user", "content": f"turn {turn}"}]}
        values = await client.runs.wait(thread, "with_callbacks", input=human)
        assert values["messages"][-1]["content"] == f"echo: turn {turn}"
    state: Any = await client.threads.get_state(thread)
    assert state["values"] == values
    assert (await client.threads.get_history(thread, limit=1))[0]["values"] == values
    await client.threads.update_state(thread, {"messages": []}, as_node="say")
    assert {node["id"] for node in (await client.assistants.get_graph("with_callbacks"))["nodes"]} >= {"say"}
    assert effects(hosted, thread).count("started-say") >= 2, "the callback is called in each run"


async def test_a_question_of_protocol_v2_has_its_payload(client: LangGraphClient, hosted: Served) -> None:
    thread = await new_thread(client)
    values: Any = await client.runs.wait(thread, "review", input={"text": ""})
    (asked,) = values["__interrupt__"]
    path, body = f"/threads/{thread}/stream/events", {"channels": ["input"]}
    async with httpx.AsyncClient(base_url=hosted.base) as http, http.stream("POST", path, json=body) as stream:
        lines = (line async for line in stream.aiter_lines() if line.startswith("data: "))
        event = json.loads((await anext(lines)).removeprefix("data: "))
    data = event["params"]["data"]
    assert (event["method"], data["interrupt_id"], data["payload"]) == ("input.requested", asked["id"], asked["value"])


@pytest.mark.parametrize("method", ["create", "stream", "wait"])
def test_every_field_that_the_sdk_sends_with_a_run_is_known(method: str) -> None:
    sent = inspect.signature(getattr(RunsClient, method)).parameters.keys() - {"self"} - OF_TRANSPORT
    known = {field.name for field in msgspec.structs.fields(RunCreate)}
    assert {"input", "webhook", "durability", "strict_resume"} <= sent
    assert sent - known == WITHOUT_EFFECT.keys()
