"""What a turn of a hosted conversation costs as its thread grows: ``python -m bench.graph_turns`` (half a minute).

CPU of the engine's side (without a database) and of the worker process, for the turns of one thread. ``--fresh`` makes
the worker forget the thread before each turn, as after a restart or for a thread that comes from another process.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.worker import GraphProject, GraphWorker
from app.agents.testing import FakeRunContext
from app.domain.caller import Caller

GRAPH = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

def say(state):
    return {"messages": [AIMessage(f"Answer to: {state['messages'][-1].content}. " * 4)]}

chat = StateGraph(MessagesState).add_node("say", say).add_edge(START, "say").compile()
"""
AROUND = 10
"""Turns before and after one of ``AT`` whose mean is its cost."""
AT = (10, 100, 300, 1000)


class NoOperations:
    """The store and the threads of graphs that use neither."""

    async def operate(self, caller: Caller, op: dict[str, Any], check_lease: Callable[[], None]) -> Any:
        raise AssertionError("the graph of this benchmark uses neither")


def cpu_seconds(pid: int | None) -> float:
    """CPU time of all threads of a process, in more detail than the ticks of ``/proc/PID/stat``."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9


async def measure(turns: int, fresh: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "graph.py").write_text(GRAPH)
        worker = GraphWorker(GraphProject(graphs={"chat": "./graph.py:chat"}, folder=folder))
        worker.start()
        await worker.wait()
        try:
            return await played(worker, turns, fresh)
        finally:
            await worker.aclose()


async def played(worker: GraphWorker, turns: int, fresh: bool) -> dict[str, Any]:
    chat = GraphAgent("chat", worker, GraphStore(NoOperations(), NoOperations()), seconds=60)
    warm = FakeRunContext()
    for turn in range(1, 200):
        warm.run_id = UUID(int=turn)
        await warm.play(chat, {"messages": [{"role": "user", "content": "warm up"}]})
        if turn % 20 == 0:
            warm = FakeRunContext()
    context, engine, graphs = FakeRunContext(), list[float](), list[float]()
    for turn in range(1, turns + 1):
        context.run_id = UUID(int=turn)
        if fresh:
            worker.forget_values({context.tenant_id})
        before = time.process_time(), cpu_seconds(worker.pid)
        await context.play(chat, {"messages": [{"role": "user", "content": f"What of number {turn}?" * 4}]})
        engine.append(time.process_time() - before[0])
        graphs.append(cpu_seconds(worker.pid) - before[1])
    found: dict[str, Any] = {}
    for at in [one for one in AT if one <= turns]:
        part = slice(max(0, at - AROUND), at + AROUND)
        found[f"turn {at}"] = {
            "engine_ms": round(1000 * statistics.mean(engine[part]), 2),
            "worker_ms": round(1000 * statistics.mean(graphs[part]), 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.graph_turns", description=__doc__)
    parser.add_argument("--turns", type=int, default=1010)
    parser.add_argument("--fresh", action="store_true", help="the worker keeps nothing between turns")
    given = parser.parse_args()
    found = asyncio.run(measure(given.turns, given.fresh))
    print(json.dumps(found, indent=2), file=sys.stdout)


if __name__ == "__main__":
    main()
