"""Graphs that functions make: what they are is known once they are made."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph


def first(state: MessagesState) -> dict[str, Any]:
    return {"messages": ["first"]}


def second(state: MessagesState) -> dict[str, Any]:
    return {"messages": ["second"]}


def needy(config: RunnableConfig) -> Any:
    """Needs a configuration."""
    return StateGraph(MessagesState).add_node(config["configurable"]["node"], first).set_entry_point("first")


def growing(config: RunnableConfig) -> Any:
    """Has a second node if the configuration asks for it."""
    graph = StateGraph(MessagesState).add_node(first).add_edge(START, "first")
    return graph.add_node(second).add_edge("first", "second") if config["configurable"].get("long") else graph


halting = (
    StateGraph(MessagesState)
    .add_sequence([first, second])
    .add_edge(START, "first")
    .compile(interrupt_before=["second"])
)
