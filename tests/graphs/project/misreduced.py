"""A graph with a reducer that LangGraph refuses."""

from typing import Annotated, TypedDict

from langgraph.graph import StateGraph


class Misreduced(TypedDict):
    number: Annotated[int, lambda one: one]


graph = StateGraph(Misreduced)
