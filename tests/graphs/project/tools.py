"""Tools that declare a class, called by an agent's ``ToolNode``, by a node, and in a subgraph."""

import os
import signal
from pathlib import Path
from typing import Any, TypedDict

from graphs import Draft, effect  # type: ignore[import-not-found]
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy, Send, interrupt


def pay(amount: int, config: RunnableConfig) -> str:
    """Pay an amount."""
    effect(f"pay-{amount}-{config['configurable']['idempotency_key']}", config)
    die_once(config, amount)
    return f"paid {amount}"


async def send(text: str, config: RunnableConfig) -> str:
    """Send a text."""
    effect(f"send-{text}", config)
    return f"sent {text}"


def die_once(config: RunnableConfig, amount: int) -> None:
    """End the process in a call of 13, the first time on a thread."""
    died = Path(f"{os.environ.get('EFFECTS', '')}.{config['configurable']['thread_id']}")
    if amount == 13 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


unsafe = StructuredTool.from_function(pay, metadata={"tool_class": "unsafe"})
idempotent = StructuredTool.from_function(pay, name="pay_again", metadata={"tool_class": "idempotent"})


def find(key: str) -> str | None:
    """Return the payment with an idempotency key, if it was made."""
    done = Path(os.environ.get("EFFECTS", "")).read_text()
    return "found it" if key in done else None


async def find_nothing(key: str) -> None:
    """Say of every payment that it was not made."""


def fail_to_find(key: str) -> str | None:
    raise ConnectionError("the bank does not answer")


lookups = {"found": find, "absent": find_nothing, "unknown": fail_to_find}
reconcilable = [
    StructuredTool.from_function(pay, name=f"pay_{how}", metadata={"tool_class": "reconcilable", "lookup": lookup})
    for how, lookup in lookups.items()
]
approved = StructuredTool.from_function(coroutine=send, metadata={"tool_class": "unsafe", "approval": True})
"""A call needs a person."""


def model(state: MessagesState) -> dict[str, Any]:
    """Ask for the calls that the person's message names: ``pay 3, send hi``; then end."""
    last = state["messages"][-1]
    if last.type != "human":
        return {"messages": [AIMessage("done")]}
    calls = []
    for number, part in enumerate(str(last.content).split(", ")):
        name, _, value = part.partition(" ")
        args = {"text": value} if name == "send" else {"amount": int(value)}
        calls.append({"name": name, "args": args, "id": f"{name}-{number}"})
    return {"messages": [AIMessage("", tool_calls=calls)]}


def follows(state: MessagesState) -> str:
    return "tools" if getattr(state["messages"][-1], "tool_calls", None) else "__end__"


shop = (
    StateGraph(MessagesState)
    .add_node("model", model)
    .add_node("tools", ToolNode([unsafe, idempotent, approved, *reconcilable]))
    .add_edge(START, "model")
    .add_conditional_edges("model", follows, ["tools", "__end__"])
    .add_edge("tools", "model")
    .compile()
)


def pay_and_ask(state: Draft, config: RunnableConfig) -> Draft:
    """Calls a tool itself, twice, and then asks: so it runs again with the answer."""
    paid = [unsafe.invoke({"amount": amount}, config) for amount in (7, 7)]
    return {"answers": [*paid, interrupt("enough?")]}


by_node = StateGraph(Draft).add_node(pay_and_ask).add_edge(START, "pay_and_ask").compile()


def pay_once(state: Draft, config: RunnableConfig) -> Draft:
    """Calls a tool itself."""
    return {"answers": [unsafe.invoke({"amount": 5}, config)]}


def begin(state: Draft) -> Draft:
    return {"text": "begun"}


by_step = (
    StateGraph(Draft)
    .add_node(begin)
    .add_node(pay_once)
    .add_edge(START, "begin")
    .add_edge("begin", "pay_once")
    .compile()
)


class Bill(TypedDict):
    amount: int


def pay_each(state: Bill, config: RunnableConfig) -> Draft:
    """Calls a tool in a task that another node has sent."""
    return {"answers": [unsafe.invoke(dict(state), config)]}


def rest(state: Draft) -> Draft:
    return {}


def again(state: Draft) -> list[Send] | str:
    """Send two payments when two have been made, and end after them."""
    done = len(state["answers"])
    return "pay_once" if done < 2 else [Send("pay_each", {"amount": one}) for one in (1, 2)] if done < 4 else "child"


errands = (
    StateGraph(Draft)
    .add_node(begin)
    .add_node(pay_once)
    .add_node(rest)
    .add_node(pay_each)
    .add_node("child", by_step)
    .add_edge(START, "begin")
    .add_edge("begin", "pay_once")
    .add_edge("pay_once", "rest")
    .add_edge("pay_each", "rest")
    .add_conditional_edges("rest", again, ["pay_once", "pay_each", "child"])
    .compile()
)
"""Payments far behind the beginning: in a loop, in tasks that are sent at once, and in a subgraph."""

failed: set[str] = set()


def stumble(state: Draft, config: RunnableConfig) -> Draft:
    """Fail the first time on a thread."""
    thread = config["configurable"]["thread_id"]
    if thread not in failed:
        failed.add(thread)
        raise ValueError("again")
    return {}


def pay_in_graphs(state: Draft, config: RunnableConfig) -> Draft:
    """Invoke a graph that pays, twice, and fail the first time."""
    paid = [by_step.invoke({"text": "", "answers": []})["answers"] for _ in range(2)]
    stumble(state, config)
    return {"answers": [one for each in paid for one in each]}


insists = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=ValueError)
stumbling = (
    StateGraph(Draft)
    .add_node(pay_once)
    .add_node(stumble)
    .add_edge(START, "pay_once")
    .add_edge("pay_once", "stumble")
    .compile()
)
insistent = (
    StateGraph(Draft)
    .add_node("stumbling", stumbling, retry_policy=insists)
    .add_node(pay_in_graphs, retry_policy=insists)
    .add_conditional_edges(START, lambda state: state["text"], ["stumbling", "pay_in_graphs"])
    .compile()
)
"""Nodes that are retried after their graphs have paid; the text names the one to run."""
within = StateGraph(Draft).add_node("child", by_node).add_edge(START, "child").compile()
