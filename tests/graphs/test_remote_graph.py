"""LangGraph's ``RemoteGraph`` against the server: run, asked, answered, read, drawn, and as a node of another graph."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph.types import Command
from langgraph_sdk.client import LangGraphClient


async def test_a_question_of_a_remote_graph_is_answered(client: LangGraphClient) -> None:
    remote = RemoteGraph("review", client=client)
    config: Any = {"configurable": {"thread_id": (await client.threads.create())["thread_id"]}}
    asked = await remote.ainvoke({"text": "hi"}, config)
    assert [one["value"]["question"] for one in asked["__interrupt__"]] == ["publish?"]
    state = await remote.aget_state(config)
    assert (state.next, [task.name for task in state.tasks]) == (("ask",), ["ask"])
    answered = await remote.ainvoke(Command(resume="yes"), config)
    assert answered["text"] == "draft published: yes"
    steps = [one async for one in remote.aget_state_history(config)]
    assert steps[0].values["text"] == "draft published: yes"
    forked = await remote.aupdate_state(config, {"text": "again"}, as_node="write")
    assert (await remote.aget_state(forked)).next == ("ask",)
    assert {"write", "ask", "publish"} <= set((await remote.aget_graph()).nodes)


async def test_a_remote_graph_is_a_node_of_a_local_graph(client: LangGraphClient) -> None:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("remote", RemoteGraph("chat", client=client))
    local = graph.add_edge(START, "remote").compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": str(uuid4())}}
    found = await local.ainvoke({"messages": [HumanMessage("hello")]}, config)
    assert [(type(one), one.content) for one in found["messages"]] == [
        (HumanMessage, "hello"),
        (AIMessage, "echo: hello"),
    ]
    parts = [part async for part in local.astream({"messages": [HumanMessage("more")]}, config, subgraphs=True)]
    assert any(namespace for namespace, _ in parts)
