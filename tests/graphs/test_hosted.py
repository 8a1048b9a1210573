"""Graphs of a project, unchanged, behind the ordinary API."""

import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError, BadRequestError

from tests.journeys.conftest import Served


def human(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


async def test_a_graph_runs_turn_after_turn_and_streams_its_steps(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    parts = [
        part async for part in client.runs.stream(thread, "chat", input=human("hi"), stream_mode=["values", "updates"])
    ]
    events = [part.event for part in parts]
    assert events == ["metadata", "values", "updates", "values", "end"]
    assert [message["content"] for message in parts[1].data["messages"]] == ["hi"]
    assert [message["content"] for message in parts[2].data["say"]["messages"]] == ["echo: hi"]
    assert [message["type"] for message in parts[3].data["messages"]] == ["human", "ai"]
    values: Any = await client.runs.wait(thread, "chat", input=human("again"))
    assert [message["content"] for message in values["messages"]] == ["hi", "echo: hi", "again", "echo: again"]
    history = await client.threads.get_history(thread)
    assert [(state["metadata"] or {}).get("source") for state in history][:6] == ["loop", "loop", "input"] * 2
    assert [state["next"] for state in history][:6] == [[], ["say"], ["__start__"]] * 2


async def test_a_broken_graph_says_why_and_stops_no_other(client: LangGraphClient) -> None:
    assert re.search("wrong.*no model is configured.*wrong.py, line 1", await refusal(client, "wrong"))
    assert re.search(r"absent.*there is no file .*absent\.py", await refusal(client, "absent"))
    assert "a graph in JavaScript" in await refusal(client, "javascript")
    assert re.search(r"misreduced.*\(.*project/misreduced\.py, line 12\)", await refusal(client, "misreduced"))
    for read in (client.assistants.get_graph, client.assistants.get_schemas, client.assistants.get_subgraphs):
        with pytest.raises(APIStatusError, match="there is no file") as refused:
            await read("absent")
        assert refused.value.status_code == 503


async def test_tokens_and_custom_values_are_streamed(client: LangGraphClient) -> None:
    parts = [
        part
        async for part in client.runs.stream(
            None, "tokens", input=human("hi"), stream_mode=["messages-tuple", "custom", "updates"]
        )
    ]
    assert [part.data for part in parts if part.event == "custom"] == [{"progress": 1}]
    chunks = [part.data[0]["content"] for part in parts if part.event == "messages"]
    assert chunks == ["one", " ", "two", " ", "three"] or "".join(chunks) == "one two three"
    assert [part.event for part in parts][-2:] == ["updates", "end"]


async def test_a_factory_gets_the_callers_settings_and_the_projects_environment(client: LangGraphClient) -> None:
    assert (await said(client, "factory"))[-1] == "hello"
    assert (await said(client, "factory", config={"configurable": {"greeting": "moin"}}))[-1] == "moin"


async def test_a_factory_may_need_what_only_a_run_gives_it(client: LangGraphClient) -> None:
    given: Any = {"configurable": {"tenant": "acme"}}
    values: Any = await client.runs.wait(None, "tenanted", input={}, config=given)
    assert values["done"] == ["acme"]
    values = await client.runs.wait(None, "tenanted", input={}, config=given, interrupt_before=["serve"])
    assert not values.get("done")
    values = await client.runs.wait(None, "tenanted", input={}, raise_error=False)
    assert values["__error__"]["error"] == "KeyError"


async def test_a_run_without_context_gets_the_defaults_of_its_schema(client: LangGraphClient) -> None:
    values: Any = await client.runs.wait(None, "defaulted", input={})
    assert values["done"] == ["calm"]


async def test_a_node_that_raises_a_keyboard_interrupt_fails_its_run(client: LangGraphClient) -> None:
    values: Any = await client.runs.wait(None, "stopping", input={}, raise_error=False)
    assert values["__error__"]["error"] == "KeyboardInterrupt"


async def test_values_keep_their_types_between_runs(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "typed", input={})
    values: Any = await client.runs.wait(thread, "typed", input={"note": "again"})
    assert [(one["number"], one["at"]) for one in values["seen"]] == [(n, "2026-01-02T00:00:00") for n in (1, 2)]
    assert values["pair"] == [1, 2]


async def test_values_of_subgraphs_keep_types_that_the_schema_around_them_lacks(client: LangGraphClient) -> None:
    for graph in ("delivering", "delivering_by_call"):
        thread = (await client.threads.create())["thread_id"]
        asked: Any = await client.runs.wait(thread, graph, input={})
        assert [one["value"] for one in asked["__interrupt__"]] == ["deliver?"]
        values: Any = await client.runs.wait(thread, graph, command={"resume": "yes"})
        assert values["text"] == "order 7: yes, signed"
    values = await client.runs.wait(None, "delivering_elsewhere", input={"text": str(uuid4())})
    assert values["text"] == "order 7: yes, signed", "also on another thread"


async def test_an_agent_of_langchain_calls_its_tool(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread, "agent", input=human("weather in Bonn?"))
    assert [(one["type"], one["content"]) for one in values["messages"]][1:] == [
        ("ai", ""),
        ("tool", "sunny in Bonn"),
        ("ai", "It is sunny."),
    ]


async def test_a_functional_entrypoint_runs(client: LangGraphClient) -> None:
    given: Any = {"numbers": [1, 2]}
    values: Any = await client.runs.wait(None, "entry", input=given)
    assert values == {"doubled": [2, 4]}


async def test_nodes_use_the_store(client: LangGraphClient) -> None:
    values: Any = await client.runs.wait(None, "remember", input={"text": "Ada"})
    assert values["answers"] == ["Ada", 1, True]
    assert (await client.store.get_item(["facts", "Ada"], "name"))["value"] == {"is": "Ada"}


async def test_a_recursion_limit_ends_the_run_by_name(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "loop", input={"most": 50}, config={"recursion_limit": 4}, raise_error=False)
    (run,) = await client.runs.list(thread)
    assert run["status"] == "error"
    failed: Any = await client.threads.get(thread)
    assert failed["error"]["error"] == "GraphRecursionError"
    values: Any = await client.runs.wait(thread, "loop", input=None, config={"recursion_limit": 100})
    assert values["count"] == 50


async def test_nodes_of_one_superstep_have_an_update_and_a_task_each(client: LangGraphClient) -> None:
    parts = [
        part async for part in client.runs.stream(None, "fan", input={"text": ""}, stream_mode=["updates", "tasks"])
    ]
    assert [part.data for part in parts if part.event == "updates"] == [
        {"first": {"answers": [1]}},
        {"second": {"answers": [2]}},
    ]
    tasks = [part.data for part in parts if part.event == "tasks"]
    assert [task["name"] for task in tasks if "triggers" in task] == ["first", "second"]
    assert [(task["name"], task["result"]) for task in tasks if "result" in task] == [
        ("first", {"answers": [1]}),
        ("second", {"answers": [2]}),
    ]


async def refusal(client: LangGraphClient, graph: str) -> str:
    with pytest.raises(httpx.HTTPStatusError) as refused:
        await client.runs.wait(None, graph, input=human("hi"))
    assert refused.value.response.status_code == 503
    return str(refused.value.response.json()["detail"])


async def said(client: LangGraphClient, graph: str, **more: Any) -> list[str]:
    values: Any = await client.runs.wait(None, graph, input=human("hi"), **more)
    return [message["content"] for message in values["messages"]]


async def test_values_written_as_a_node_lead_on_from_there(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "loop", input={"most": 2})
    await client.threads.update_state(thread, {"count": 5, "most": 7}, as_node="add")
    state = await client.threads.get_state(thread)
    assert (state["values"], state["next"]) == ({"count": 5, "most": 7}, ["add"])
    values: Any = await client.runs.wait(thread, "loop", input=None)
    assert values["count"] == 7
    with pytest.raises(BadRequestError, match="nowhere"):
        await client.threads.update_state(thread, {"count": 1}, as_node="nowhere")


async def test_messages_written_to_the_state_are_merged_by_the_graphs_reducer(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "chat", input=human("hi"))
    before: Any = (await client.threads.get_state(thread))["values"]
    changed = {**before["messages"][1], "content": "changed"}
    await client.threads.update_state(thread, {"messages": [changed]})
    after: Any = (await client.threads.get_state(thread))["values"]
    assert [message["content"] for message in after["messages"]] == ["hi", "changed"]


async def test_schemas_and_drawings_show_the_graph_and_its_subgraphs(client: LangGraphClient) -> None:
    schemas: Any = await client.assistants.get_schemas("nested")
    assert set(schemas["state_schema"]["properties"]) == {"text", "answers"}
    flat = await client.assistants.get_graph("nested")
    assert {node["id"] for node in flat["nodes"]} == {"__start__", "child", "publish", "__end__"}
    deep = await client.assistants.get_graph("nested", xray=True)
    assert {node["id"] for node in deep["nodes"]} >= {"child:write", "child:ask", "publish"}
    assert set(await client.assistants.get_subgraphs("nested")) == {"child"}


async def test_tools_that_nodes_hold_are_listed_with_their_classes(hosted: Served) -> None:
    async with httpx.AsyncClient(base_url=hosted.base) as http:
        found = {one["name"]: one for one in (await http.get("/assistants/shop/tools")).json()}
        undeclared = (await http.get("/assistants/agent/tools")).json()
    assert {name: (one["tool_class"], one["approval"]) for name, one in found.items()} == {
        "pay": ("unsafe", False),
        "pay_again": ("idempotent", False),
        "send": ("unsafe", True),
        **{f"pay_{how}": ("reconcilable", False) for how in ("found", "absent", "unknown")},
    }
    assert found["pay"]["description"] == "Pay an amount."
    assert set(found["pay"]["parameters"]["properties"]) == {"amount"}
    assert [one["tool_class"] for one in undeclared] == [None]


async def test_a_cancelled_run_stops_its_node_and_keeps_what_was_committed(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread, "slow", input={"text": ""})
    async for part in client.runs.join_stream(thread, run["run_id"], stream_mode="values"):
        if part.event == "values" and part.data["text"] == "draft":
            break
    await client.runs.cancel(thread, run["run_id"], wait=True)
    assert (await client.runs.get(thread, run["run_id"]))["status"] == "interrupted"
    assert (await client.threads.get_state(thread))["next"] == ["wait"]


async def test_a_value_that_cannot_be_stored_fails_its_step_by_name(client: LangGraphClient) -> None:
    thread = (await client.threads.create())["thread_id"]
    with pytest.raises(Exception, match="channel 'held'"):
        await client.runs.wait(thread, "opaque", input={"text": "x"})
    assert (await client.threads.get_state(thread))["values"] == {"text": "x"}


@pytest.mark.parametrize(
    "does,words",
    [
        ("nul", r"^A question of this run has the escape \\u0000, which cannot be stored. Ask without it.$"),
        (
            "store_types",
            r"^The store operation 'put' is not valid: Expected `float \| null`, got `str` - at `\$.ttl`.$",
        ),
        ("store_nul", r"^`value` has the escape \\u0000, which cannot be stored.$"),
        ("store_filter", r"^The store operation 'search' has the escape \\u0000, which cannot be stored.$"),
    ],
)
async def test_what_cannot_be_stored_fails_its_step_with_a_sentence(
    client: LangGraphClient, does: str, words: str
) -> None:
    thread = (await client.threads.create())["thread_id"]
    await client.runs.wait(thread, "hostile", input={"do": does}, raise_error=False)
    failed: Any = await client.threads.get(thread)
    assert re.search(words, failed["error"]["message"])
    assert (await client.threads.get_state(thread))["values"] == {"do": does}


async def test_channels_that_were_never_written_have_their_initial_values(client: LangGraphClient) -> None:
    """As in LangGraph, whose reducers begin with an empty value of their type."""
    thread = (await client.threads.create())["thread_id"]
    parts = [part async for part in client.runs.stream(thread, "review", input={"text": ""}, stream_mode=["values"])]
    shown: list[Any] = [part.data for part in parts if part.event == "values"]
    assert [one["answers"] for one in shown] == [[], [], []]
    states: list[Any] = await client.threads.get_history(thread)
    assert [one["values"] for one in states[:2]] == [{"text": "draft", "answers": []}, {"text": "", "answers": []}]
    values: Any = await client.runs.wait(thread, "review", command={"resume": "yes"})
    assert values["answers"] == ["yes"]
