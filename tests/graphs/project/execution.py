"""Graphs that use what LangGraph's execution offers: sends, caches, retries, several questions, middleware, context."""

import asyncio
import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from graphs import Scripted, effect, weather  # type: ignore[import-not-found]
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.cache.memory import InMemoryCache
from langgraph.config import get_config
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode
from langgraph.runtime import Runtime
from langgraph.stream import StreamChannel, StreamTransformer
from langgraph.types import CachePolicy, RetryPolicy, Send, TimeoutPolicy, interrupt
from langgraph_sdk.runtime import ServerRuntime
from pydantic import BaseModel


class Numbers(TypedDict, total=False):
    numbers: list[int]
    done: Annotated[list[Any], operator.add]


class One(TypedDict):
    number: int


def work(state: One, config: RunnableConfig) -> Numbers:
    effect(f"work-{state['number']}", config)
    answer = interrupt(f"{state['number']}?") if state["number"] in {3, 7} else state["number"]
    return {"done": [answer]}


sends = (
    StateGraph(Numbers)
    .add_node(work)
    .add_conditional_edges(START, lambda state: [Send("work", {"number": one}) for one in state["numbers"]], ["work"])
    .compile()
)


def compute(state: Numbers, config: RunnableConfig) -> Numbers:
    effect("compute", config)
    return {"done": [sum(state["numbers"])]}


cached = (
    StateGraph(Numbers)
    .add_node(compute, cache_policy=CachePolicy())
    .add_edge(START, "compute")
    .compile(cache=InMemoryCache())
)


def stumble(state: Numbers, runtime: Runtime) -> Numbers:
    info: Any = runtime.execution_info
    if info.node_attempt < 3:
        raise ConnectionError("not yet")
    return {"done": [info.node_attempt]}


retried = (
    StateGraph(Numbers)
    .add_node(stumble, retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=3))
    .add_edge(START, "stumble")
    .compile()
)


def ask_twice(state: Numbers, config: RunnableConfig) -> Numbers:
    effect("ask_twice", config)
    return {"done": [interrupt("first?"), interrupt("second?")]}


twice = StateGraph(Numbers).add_node(ask_twice).add_edge(START, "ask_twice").compile()


class Seen(TypedDict, total=False):
    metadata: dict[str, Any]
    kind: Any


def configured(config: RunnableConfig) -> StateGraph[Any, Any, Any, Any]:
    """Make a graph with the node that the configuration names."""

    def look(state: Seen, config: RunnableConfig) -> Seen:
        return {"metadata": {name: config["metadata"].get(name) for name in ("team", "of_run", "of_config")}}

    return (
        StateGraph(Seen)
        .add_node(config["configurable"].get("node", "plain"), look)
        .set_entry_point(config["configurable"].get("node", "plain"))
    )


def keep_class(state: Seen) -> Seen:
    return {"kind": BaseModel}


classy = StateGraph(Seen).add_node(keep_class).add_edge(START, "keep_class").compile()


def careful() -> Any:
    call = {"name": "weather", "args": {"city": "Bonn"}, "id": "call-1"}
    model = Scripted(responses=[AIMessage("", tool_calls=[call]), AIMessage("I have asked.")])
    return create_agent(model, [weather], middleware=[HumanInTheLoopMiddleware(interrupt_on={"weather": True})])


class Progress(StreamTransformer):
    """Tells of each node that has ended, and of the end."""

    required_stream_modes = ("updates",)

    def init(self) -> dict[str, Any]:
        self.channel = StreamChannel[Any]("progress")
        return {"progress": self.channel}

    def process(self, event: Any) -> bool:
        if event["method"] == "updates" and not event["params"]["namespace"]:
            self.channel.push({"ended": list(event["params"]["data"])})
        return True

    def finalize(self) -> None:
        self.channel.push({"ended": "all"})


async def watch(state: Numbers) -> Numbers:
    """Run a graph by the third version of LangGraph's event stream."""
    run: Any = await cached.astream_events({"numbers": state["numbers"]}, version="v3")
    snapshots = [len(one.get("done", [])) async for one in run.values]
    return {"done": [snapshots, (await run.output())["done"]]}


watched = StateGraph(Numbers).add_node("watch", watch).add_edge(START, "watch").compile(transformers=[Progress])


class Settings(TypedDict, total=False):
    tone: str


def speak(state: Numbers, runtime: Runtime[Settings]) -> Numbers:
    return {"done": [runtime.context["tone"], "tone" in get_config()["configurable"]]}


async def look_up(about: str, store: Annotated[Any, InjectedStore()]) -> str:
    """Look up a fact."""
    return str((await store.aget(("cities",), about)).value["is"])


async def furnish(state: Numbers, runtime: Runtime) -> Numbers:
    """Use what LangGraph gives to nodes and tools."""
    assert runtime.store is not None
    await runtime.store.aput(("cities",), "city", {"is": "Bonn"})
    call = {"name": "look_up", "args": {"about": "city"}, "id": "call-1", "type": "tool_call"}
    found = await ToolNode([look_up]).ainvoke({"messages": [AIMessage("", tool_calls=[call])]})
    info: Any = runtime.server_info
    execution: Any = runtime.execution_info
    return {"done": [found["messages"][0].content, info.graph_id, execution.node_attempt]}


async def linger(state: Numbers, runtime: Runtime) -> Numbers:
    """Go on for longer than its idle timeout: with a sign of life in between, if there are two numbers."""
    for _ in range(4):
        await asyncio.sleep(0.6)
        if len(state["numbers"]) == 2:
            runtime.heartbeat()
    return {"done": ["lingered"]}


def furnished(config: RunnableConfig, runtime: ServerRuntime[Any]) -> Any:
    """Make the graph of one use: the server says which."""

    def say(state: Numbers) -> Numbers:
        return {"done": [runtime.access_context, config["configurable"]["thread_id"] != ""]}

    return (
        StateGraph(Numbers)
        .add_node(furnish)
        .add_node(say)
        .add_node(linger, timeout=TimeoutPolicy(idle_timeout=2.0))
        .add_edge(START, "furnish")
        .add_edge("furnish", "say")
        .add_edge("say", "linger")
    )


contextual = StateGraph(Numbers, context_schema=Settings).add_node(speak).add_edge(START, "speak").compile()


@dataclass
class Defaults:
    tone: str = "calm"


def speak_by_default(state: Numbers, runtime: Runtime[Defaults]) -> Numbers:
    return {"done": [runtime.context.tone]}


defaulted = StateGraph(Numbers, context_schema=Defaults).add_node(speak_by_default).add_edge(START, "speak_by_default")


def tenanted(config: RunnableConfig) -> Any:
    """Make the graph of a tenant, whom only a run names."""
    tenant = config["configurable"]["tenant"]

    def serve(state: Numbers) -> Numbers:
        return {"done": [tenant]}

    return StateGraph(Numbers).add_node(serve).add_edge(START, "serve")


def works(state: Numbers) -> Numbers:
    return {"done": ["works"]}


async def fails(state: Numbers) -> Numbers:
    await asyncio.sleep(0.1)
    raise ValueError("no")


neighbours = (
    StateGraph(Numbers).add_node(works).add_node(fails).add_edge(START, "works").add_edge(START, "fails").compile()
)


async def stop(state: Numbers) -> Numbers:
    raise KeyboardInterrupt


stopping = StateGraph(Numbers).add_node(stop).add_edge(START, "stop").compile()


def ask(state: Numbers) -> Numbers:
    return {"done": [interrupt("text?") * 20_000]}


async def dawdle(state: Numbers) -> Numbers:
    """Take long if the answer says so."""
    await asyncio.sleep(60 if interrupt("how?") == "slowly" else 0)
    return {"done": ["dawdled"]}


dawdling = StateGraph(Numbers).add_node(ask).add_node(dawdle).add_edge(START, "ask").add_edge(START, "dawdle").compile()
