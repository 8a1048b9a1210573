"""A graph whose nodes do what a server must survive; the input's ``do`` names which."""

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt


class State(TypedDict, total=False):
    do: str
    text: str
    numbers: list[Any]


def block() -> None:
    time.sleep(60)


def fork_and_die(forked: Path) -> None:
    """The first time; ``forked`` gets the id of a process that lives on."""
    if not forked.exists():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        forked.write_text(str(child.pid))
        os.kill(os.getpid(), signal.SIGKILL)


async def act(state: State, runtime: Runtime) -> State:
    match state["do"]:
        case "surrogate":
            get_stream_writer()({"text": "a\ud83d"})
            return {"text": "a\ud83d"}
        case "print":
            print("said by a node")  # noqa: T201
        case "error":
            raise ValueError("no file a\udcff")
        case "store":
            assert runtime.store is not None
            await runtime.store.asearch(("facts",), filter={"tags": {1, 2}})
        case "flood":
            for number in range(24):
                get_stream_writer()([number, "x" * 2**20])
                await asyncio.sleep(0)
        case "die":
            os._exit(3)
        case "store_types":
            assert runtime.store is not None
            await runtime.store.aput(("facts",), "name", {"a": 1}, index=["a"], ttl="soon")  # type: ignore[arg-type]
        case "store_nul":
            assert runtime.store is not None
            await runtime.store.aput(("facts",), "name", {"a": "x\x00"})
        case "store_filter":
            assert runtime.store is not None
            await runtime.store.asearch(("facts",), filter={"a": "x\x00"})
        case "nul":
            return {"text": interrupt({"text": "a\x00b"})}
        case "numbers":
            get_stream_writer()([float("nan"), 2**70])
        case "exit":
            sys.exit("the graph wants to end the process")
        case "block":
            block()
        case "fork":
            fork_and_die(Path(state["text"]))
        case "nap":
            await asyncio.sleep(0.2)
    return {"text": "done"}


graph = (
    StateGraph(State)
    .add_node("act", act, metadata={"since": datetime(2026, 1, 1, tzinfo=UTC), "tags": {1, 2}})
    .add_edge(START, "act")
    .compile()
)
