"""Graphs whose nodes use the checkpointer of their run, and judge it by LangGraph's own suite and its own saver."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import ProgressCallbacks
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

Saver = BaseCheckpointSaver[Any]


class Report(TypedDict, total=False):
    passed: dict[str, int]
    failures: list[str]
    found: list[Any]
    thread: str


def saver_of(config: RunnableConfig) -> Saver:
    saver: Saver = config["configurable"]["__pregel_checkpointer"]
    return saver


async def judge(state: Report, config: RunnableConfig) -> Report:
    async def of_this_run() -> AsyncIterator[Saver]:
        yield saver_of(config)

    failures: list[str] = []

    def note(capability: str, test: str, passed: bool, error: str | None) -> None:
        failures.extend(() if passed else (f"{capability}: {test}: {error}",))

    progress = ProgressCallbacks(on_test_result=note)
    found = await validate(checkpointer_test("engine")(of_this_run), progress=progress)
    return {"passed": {name: one.tests_passed for name, one in found.results.items()}, "failures": failures}


conformance = StateGraph(Report).add_node("judge", judge).add_edge(START, "judge").compile()


async def written(saver: Saver, values: list[dict[str, Any]]) -> list[Any]:
    """Store a chain of checkpoints that have ``values``, with writes to two channels; return what is read of each."""
    thread, configs = str(uuid4()), list[RunnableConfig]()
    for step, given in enumerate(values):
        at = {"thread_id": thread, "checkpoint_ns": ""}
        parent = {"checkpoint_id": configs[-1]["configurable"]["checkpoint_id"]} if configs else {}
        versions: Any = dict.fromkeys(given, step + 1)
        checkpoint = Checkpoint(
            v=1,
            id=str(uuid6(clock_seq=-1)),
            ts="",
            channel_values=given,
            channel_versions=versions,
            versions_seen={},
            updated_channels=None,
        )
        about: Any = {"source": "loop", "step": step, "parents": {}}
        configs.append(await saver.aput({"configurable": {**at, **parent}}, checkpoint, about, versions))
        await saver.aput_writes(configs[-1], [("a", f"late {step}")], f"task {step}", "~2")
        await saver.aput_writes(configs[-1], [("a", step), ("b", step)], f"task {step} before", "~1")
    found: list[Any] = []
    for config in configs:
        history = await saver.aget_delta_channel_history(config=config, channels=["a", "b"])
        found.append(history)
        tuple_ = await saver.aget_tuple(config)
        assert tuple_ is not None
        found.append((tuple_.checkpoint["channel_values"], tuple_.pending_writes))
    return found


async def compare(state: Report, config: RunnableConfig) -> Report:
    chains: list[list[dict[str, Any]]] = [
        [{"a": _DeltaSnapshot([0])}, {}, {"b": _DeltaSnapshot("b")}, {}, {}],
        [{"a": _DeltaSnapshot([0])}, {"a": [10, 20]}, {}, {"a": _DeltaSnapshot([3])}, {}],
        [{}, {}, {}],
    ]
    ours = [await written(saver_of(config), chain) for chain in chains]
    assert await saver_of(config).aget_delta_channel_history(config=config, channels=[]) == {}
    return {"failures": [] if ours == [await written(InMemorySaver(), chain) for chain in chains] else [str(ours)]}


histories = StateGraph(Report).add_node("compare", compare).add_edge(START, "compare").compile()


class Count(TypedDict, total=False):
    count: int
    found: list[Any]


def past(config: RunnableConfig) -> RunnableConfig:
    return {"configurable": {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": ""}}


def add(state: Count) -> Count:
    return {"count": state.get("count", 0) + 1}


async def look_back(state: Count, config: RunnableConfig) -> Count:
    saver = saver_of(config)
    tuples = [one async for one in saver.alist(past(config))]
    first = await saver.aget_tuple(tuples[-1].config)
    assert first is not None
    limited = [one async for one in saver.alist(past(config), before=tuples[0].config, limit=1, filter={"step": 1})]
    return {"found": [[one.checkpoint["channel_values"].get("count") for one in [*tuples, first, *limited]]]}


def look_back_in_a_thread(state: Count, config: RunnableConfig) -> Count:
    tuples = list(saver_of(config).list(past(config)))
    first = saver_of(config).get_tuple(tuples[-1].config)
    assert first is not None
    return {"found": [*state["found"], [one.checkpoint["channel_values"].get("count") for one in [*tuples, first]]]}


lookback = (
    StateGraph(Count)
    .add_node("one", add)
    .add_node("two", add)
    .add_node(look_back)
    .add_node(look_back_in_a_thread)
    .add_edge(START, "one")
    .add_edge("one", "two")
    .add_edge("two", "look_back")
    .add_edge("look_back", "look_back_in_a_thread")
    .compile()
)


def merge(before: list[str] | None, writes: list[list[str]]) -> list[str]:
    return [*(before or []), *(one for write in writes for one in write)]


class Log(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(merge, list)]
    turn: int


def write_line(state: Log) -> Log:
    return {"lines": [f"line {len(state.get('lines', []))}"], "turn": state.get("turn", 0) + 1}


def idle(state: Log) -> Log:
    return {"turn": state["turn"] + 1}


delta = (
    StateGraph(Log)
    .add_node(write_line)
    .add_node(idle)
    .add_edge(START, "write_line")
    .add_edge("write_line", "idle")
    .add_edge("idle", END)
    .compile()
)


def ask(state: Log) -> Log:
    return {"lines": [interrupt(f"after {len(state['lines'])}?")]}


CALLED = {
    "log": StateGraph(Log)
    .add_sequence([("first", write_line), ("second", write_line), ("idle", idle), ("ask", ask), ("last", write_line)])
    .add_edge(START, "first")
    .compile()
}
"""Found by no walk over the graphs: a node calls it by its name, as an agent's tool calls a subagent."""


async def delegate(state: Report) -> Report:
    return {"found": (await CALLED["log"].ainvoke({"lines": ["given"]}))["lines"]}


delegating = StateGraph(Report).add_node("delegate", delegate).add_edge(START, "delegate").compile()

counter = StateGraph(Count).add_node(add).add_edge(START, "add").compile()


async def elsewhere(state: Report, config: RunnableConfig) -> Report:
    """Run another graph on a thread of its own."""
    other: RunnableConfig = {"configurable": {"thread_id": state["thread"], "checkpoint_ns": ""}}
    counter.checkpointer = saver_of(config)
    return {"found": [(await counter.ainvoke({}, other))["count"]]}


apart = StateGraph(Report).add_node(elsewhere).add_edge(START, "elsewhere").compile()
