"""Graphs as projects write them, which know nothing of the server."""

import asyncio
import contextlib
import operator
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt

EFFECTS = os.environ.get("EFFECTS", "")


def effect(name: str, config: RunnableConfig) -> None:
    """Note that a node ran, where the test can count it."""
    if EFFECTS:
        with Path(EFFECTS).open("a") as file:
            file.write(f"{config['configurable']['thread_id']} {name}\n")


def say(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(f"echo: {state['messages'][-1].content}")]}


chat = StateGraph(MessagesState).add_node("say", say).add_edge(START, "say").compile()


async def attend(state: MessagesState) -> None:
    """Let the superstep go on while its other node has finished, so that the writes of that are stored early."""
    await asyncio.sleep(0.05)


attended = (
    StateGraph(MessagesState)
    .add_node("say", say)
    .add_node("attend", attend)
    .add_edge(START, "say")
    .add_edge(START, "attend")
    .compile()
)


def recite_messages(state: MessagesState) -> dict[str, Any]:
    said = "|".join(str(one.content) for one in state["messages"])
    if state["messages"][-1].content == "spoil":
        state["messages"][0].content = "spoilt"
        state["messages"][1].additional_kwargs["spoilt"] = True
    return {"messages": [AIMessage(said)]}


recite = StateGraph(MessagesState).add_node("recite", recite_messages).add_edge(START, "recite").compile()


class Draft(TypedDict, total=False):
    text: str
    answers: Annotated[list[Any], operator.add]


def write(state: Draft, config: RunnableConfig) -> Draft:
    effect("write", config)
    return {"text": "draft"}


def ask(state: Draft, config: RunnableConfig) -> Draft:
    effect("ask", config)
    return {"answers": [interrupt({"question": "publish?", "text": state["text"]})]}


def publish(state: Draft, config: RunnableConfig) -> Draft:
    effect("publish", config)
    return {"text": f"{state['text']} published: {state['answers'][-1]}"}


review = (
    StateGraph(Draft)
    .add_node(write)
    .add_node(ask)
    .add_node(publish)
    .add_edge(START, "write")
    .add_edge("write", "ask")
    .add_edge("ask", "publish")
    .compile()
)


def left(state: Draft, config: RunnableConfig) -> Draft:
    effect("left", config)
    return {"answers": [interrupt("left?")]}


def right(state: Draft, config: RunnableConfig) -> Draft:
    effect("right", config)
    return {"answers": [interrupt("right?")]}


def sure(state: Draft, config: RunnableConfig) -> Draft:
    effect("sure", config)
    return {"answers": ["sure"]}


def join(state: Draft, config: RunnableConfig) -> Draft:
    return {"text": ",".join(sorted(map(str, state["answers"])))}


parallel = (
    StateGraph(Draft)
    .add_node(left)
    .add_node(right)
    .add_node(sure)
    .add_node(join)
    .add_edge(START, "left")
    .add_edge(START, "right")
    .add_edge(START, "sure")
    .add_edge(["left", "right", "sure"], "join")
    .compile()
)

child = StateGraph(Draft).add_node(write).add_node(ask).add_edge(START, "write").add_edge("write", "ask").compile()
nested = (
    StateGraph(Draft)
    .add_node("child", child)
    .add_node(publish)
    .add_edge(START, "child")
    .add_edge("child", "publish")
    .compile()
)


class Diary(TypedDict, total=False):
    text: str
    pages: Annotated[list[str], operator.add]


def note(state: Diary) -> Diary:
    return {"pages": [state["text"]]}


memory = StateGraph(Diary).add_node(note).add_edge(START, "note").compile(checkpointer=True)
diary = StateGraph(Draft).add_node("keep", memory).add_edge(START, "keep").compile()


async def speak(state: MessagesState) -> dict[str, Any]:
    get_stream_writer()({"progress": 1})
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


tokens = StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak").compile()


@contextlib.asynccontextmanager
async def factory(config: RunnableConfig) -> AsyncIterator[Any]:
    greeting = config["configurable"].get("greeting", os.environ["GREETING"])

    def greet(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(greeting)]}

    yield StateGraph(MessagesState).add_node("greet", greet).add_edge(START, "greet")


async def keep(state: Draft, runtime: Runtime) -> Draft:
    assert runtime.store is not None
    facts = ("facts", state["text"])
    await runtime.store.aput(facts, "name", {"is": state["text"]})
    found = await runtime.store.asearch(facts)
    item: Any = await runtime.store.aget(facts, "name")
    info: Any = runtime.execution_info
    return {"answers": [item.value["is"], len(found), info.thread_id is not None]}


remember = StateGraph(Draft).add_node(keep).add_edge(START, "keep").compile()


@dataclass
class Order:
    number: int
    at: datetime
    codes: set[int] = field(default_factory=lambda: {7, 15})
    """In the other order each time that it is stored and read."""


class Shop(TypedDict, total=False):
    order: Order
    seen: Annotated[list[Order], operator.add]
    pair: tuple[int, int]
    codes: set[int]
    note: str


def sell(state: Shop) -> Shop:
    before = len(state.get("seen", []))
    if before:
        assert type(state["order"]) is Order
        assert state["codes"] == {7, 15}
    order = Order(before + 1, datetime(2026, 1, 2))
    return {"order": order, "seen": [order], "pair": (1, 2), "codes": order.codes}


typed = StateGraph(Shop).add_node(sell).add_edge(START, "sell").compile()


class Delivery(TypedDict, total=False):
    """What subgraphs know: its types are not in the schema of the graph around them."""

    order: Order
    label: Order
    text: str


def pack(state: Delivery) -> Delivery:
    return {"order": Order(7, datetime(2026, 1, 2))}


def label(state: Delivery) -> Delivery:
    return {"label": state["order"]}


def deliver(state: Delivery) -> Delivery:
    answer = interrupt("deliver?")
    return {"text": f"order {state['order'].number}: {answer}"}


def sign(state: Delivery) -> Delivery:
    assert state["order"] == state["label"] == Order(7, datetime(2026, 1, 2))
    return {"text": f"{state['text']}, signed"}


deliveries = (
    StateGraph(Delivery)
    .add_node(pack)
    .add_node(label)
    .add_node(deliver)
    .add_node(sign)
    .add_edge(START, "pack")
    .add_edge("pack", "label")
    .add_edge("pack", "deliver")
    .add_edge(["label", "deliver"], "sign")
)
delivery = deliveries.compile()
CALLED = {"delivery": delivery, "elsewhere": deliveries.compile()}
"""Found by no walk over the graphs, as in ``conformance``."""


async def call_delivery(state: Draft) -> Draft:
    return {"text": (await CALLED["delivery"].ainvoke({}))["text"]}


async def call_elsewhere(state: Draft, config: RunnableConfig) -> Draft:
    """Deliver on a thread of its own."""
    own = CALLED["elsewhere"]
    own.checkpointer = config["configurable"]["__pregel_checkpointer"]
    other: RunnableConfig = {"configurable": {"thread_id": f"of {state['text']}", "checkpoint_ns": ""}}
    await own.ainvoke({}, other)
    return {"text": (await own.ainvoke(Command(resume="yes"), other))["text"]}


delivering = StateGraph(Draft).add_node("delivery", delivery).add_edge(START, "delivery").compile()
delivering_by_call = StateGraph(Draft).add_node(call_delivery).add_edge(START, "call_delivery").compile()
delivering_elsewhere = StateGraph(Draft).add_node(call_elsewhere).add_edge(START, "call_elsewhere").compile()


class Count(TypedDict, total=False):
    count: int
    most: int


def add(state: Count, config: RunnableConfig) -> Count:
    effect("add", config)
    return {"count": state.get("count", 0) + 1}


loop = (
    StateGraph(Count)
    .add_node(add)
    .add_edge(START, "add")
    .add_conditional_edges("add", lambda state: "add" if state["count"] < state.get("most", 3) else END)
    .compile()
)


def count_up(state: Count, config: RunnableConfig) -> Count:
    count = state.get("count", 0) + 1
    effect(f"ran {count}", config)
    return {"count": count}


ledger = (
    StateGraph(Count)
    .add_node(count_up)
    .add_edge(START, "count_up")
    .add_conditional_edges("count_up", lambda state: "count_up" if state["count"] < state["most"] else END)
    .compile()
)


async def wait(state: Draft, config: RunnableConfig) -> Draft:
    effect("wait", config)
    await asyncio.sleep(30)
    return {"text": "waited"}


slow = StateGraph(Draft).add_node(write).add_node(wait).add_edge(START, "write").add_edge("write", "wait").compile()


@task
def double(number: int) -> int:
    return 2 * number


@entrypoint()
def entry(numbers: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": [one.result() for one in [double(number) for number in numbers["numbers"]]]}


def weather(city: str) -> str:
    """Look up the weather in a city."""
    return f"sunny in {city}"


class Scripted(FakeMessagesListChatModel):
    """A model that asks for a tool once, then answers."""

    def bind_tools(self, tools: Any, **options: Any) -> "Scripted":
        return self


def agent() -> Any:
    call = {"name": "weather", "args": {"city": "Bonn"}, "id": "call-1"}
    return create_agent(Scripted(responses=[AIMessage("", tool_calls=[call]), AIMessage("It is sunny.")]), [weather])


class Opaque(TypedDict, total=False):
    text: str
    held: Any


def hold(state: Opaque) -> Opaque:
    return {"held": threading.Lock()}


opaque = StateGraph(Opaque).add_node(hold).add_edge(START, "hold").compile()


def first(state: Draft) -> Draft:
    return {"answers": [1]}


def second(state: Draft) -> Draft:
    return {"answers": [2]}


fan = StateGraph(Draft).add_node(first).add_node(second).add_edge(START, "first").add_edge(START, "second").compile()


def spend(state: MessagesState) -> dict[str, Any]:
    usage: Any = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    return {"messages": [AIMessage("spent", usage_metadata=usage, response_metadata={"model_name": "small"})]}


metered = StateGraph(MessagesState).add_node("spend", spend).add_edge(START, "spend").compile()
