"""A graph that a function makes for the user of each run."""

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime


class Seen(TypedDict, total=False):
    seen: list[Any]


def personal(config: RunnableConfig, runtime: ServerRuntime[Any]) -> Any:
    """Make a graph that says for which use and for whom it was made."""
    made_for = [runtime.access_context, runtime.user.identity if runtime.user else None]

    def look(state: Seen) -> Seen:
        return {"seen": made_for}

    return StateGraph(Seen).add_node(look).add_edge(START, "look")
