"""Graphs that functions make for the user of each use."""

import os
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from langgraph_sdk.runtime import ServerRuntime


class Seen(TypedDict, total=False):
    seen: list[Any]


def identity_in(config: RunnableConfig) -> Any:
    user: Any = config["configurable"].get("langgraph_auth_user")
    return user and [user.identity, user["identity"], user.is_authenticated]


def look(state: Seen, config: RunnableConfig) -> Seen:
    return {"seen": [identity_in(config)]}


def ask(state: Seen) -> None:
    interrupt("on?")


asking = StateGraph(Seen).add_node(ask).add_edge(START, "ask").compile()


def made(name: str, use: Any) -> Any:
    """Make a graph, and note for which use, where the test reads it."""
    with Path(os.environ["EFFECTS"]).open("a") as file:
        file.write(f"{name} {use}\n")
    graph = StateGraph(Seen).add_node(look).add_node("child", asking)
    return graph.add_edge(START, "look").add_edge("look", "child")


def by_config(config: RunnableConfig) -> Any:
    return made("config", identity_in(config))


def by_runtime(runtime: ServerRuntime[Any]) -> Any:
    return made("runtime", (runtime.access_context, runtime.user and runtime.user.identity))


def by_both(config: RunnableConfig, runtime: ServerRuntime[Any]) -> Any:
    same = runtime.user is not None and identity_in(config)[0] == runtime.user.identity
    return made("both", (runtime.access_context, identity_in(config), same))
