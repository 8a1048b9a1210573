"""Graphs that went wrong on other servers, or with LangGraph's own checkpointers."""

import asyncio
import operator
from typing import Annotated, Any, NoReturn, TypedDict

from conformance import Log, Report, saver_of, written  # type: ignore[import-not-found]
from graphs import Draft, chat, effect  # type: ignore[import-not-found]
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt


async def replay(state: Report, config: RunnableConfig) -> Report:
    """Read the writes that follow a plain list: of two tasks, whose ids and paths sort differently."""
    history = (await written(saver_of(config), [{"a": [10, 20]}, {}]))[2]["a"]
    return {"found": [history["seed"], *(value for _, _, value in history["writes"])]}


replayed = StateGraph(Report).add_node(replay).add_edge(START, "replay").compile()


def late(line: str, seconds: float) -> Any:
    async def write(state: Log) -> Log:
        await asyncio.sleep(seconds)
        return {"lines": [line]}

    return write


def ask(state: Log) -> Log:
    return {"lines": [interrupt("a?")]}


ordered = (
    StateGraph(Log)
    .add_node("a", ask)
    .add_node("b", late("b", 0.2))
    .add_node("c", late("c", 0.1))
    .add_node("d", late("d", 0))
    .add_edge(START, "a")
    .add_edge(START, "b")
    .add_edge(START, "c")
    .add_edge(START, "d")
    .compile()
)


class PlainLog(TypedDict, total=False):
    lines: Annotated[list[str], operator.add]
    turn: int


def write_plain_line(state: PlainLog) -> PlainLog:
    return {"lines": [f"line {len(state['lines'])}"], "turn": 1}


before_delta = StateGraph(PlainLog).add_node(write_plain_line).add_edge(START, "write_plain_line").compile()


@task
async def prepare(text: str) -> str:
    effect("prepare", get_config())
    return f"{text} prepared"


@task
async def ask_more(text: str) -> str:
    return f"{text} {interrupt('more?')}"


@entrypoint()
async def inner(text: str) -> str:
    return await ask_more(await prepare(text))


async def call_inner(state: Draft) -> Draft:
    return {"text": await inner.ainvoke(state["text"])}


calling = StateGraph(Draft).add_node(call_inner).add_edge(START, "call_inner").compile()


class Uncopyable(BaseCallbackHandler):
    """Notes which nodes start. Like one that holds a connection, it refuses to be copied."""

    def __copy__(self) -> NoReturn:
        raise TypeError("it cannot be copied")

    def __deepcopy__(self, known: Any) -> NoReturn:
        raise TypeError("it cannot be copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("it cannot be copied")

    def on_chain_start(self, serialized: Any, inputs: Any, **about: Any) -> None:
        thread: Any = {"configurable": {"thread_id": about["metadata"]["thread_id"]}}
        effect(f"started-{about['name']}", thread)


with_callbacks = chat.with_config({"callbacks": [Uncopyable()]})


class Secrets(TypedDict, total=False):
    token: str


class Seen(TypedDict, total=False):
    seen: list[Any]


def look(state: Seen, runtime: Runtime[Secrets]) -> Seen:
    configurable, token = get_config()["configurable"], (runtime.context or {}).get("token", "")
    return {"seen": [configurable.get("graph_id"), len(token), "token" in configurable]}


identified = StateGraph(Seen, context_schema=Secrets).add_node(look).add_edge(START, "look").compile()
