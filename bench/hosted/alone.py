"""The library alone: ``python alone.py echo|stream100 SECONDS`` prints CPU microseconds of a run.

Runs follow each other in one process, each on a new thread of LangGraph's own saver in memory.
"""

import asyncio
import importlib
import sys
import time
from uuid import uuid4

from langgraph.checkpoint.memory import InMemorySaver

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


async def measure(name: str, seconds: float) -> float:
    """Run the graph for ``seconds``; return microseconds of CPU a run."""
    graph = getattr(importlib.import_module("graphs"), name).copy(update={"checkpointer": InMemorySaver()})
    mode = "messages" if name == "stream100" else "values"
    runs, until, used = 0, 0.0, 0.0
    for warm in (True, False):
        runs, until, used = 0, time.monotonic() + seconds * (0.2 if warm else 1.0), time.process_time()
        while time.monotonic() < until:
            async for _ in graph.astream(HELLO, {"configurable": {"thread_id": str(uuid4())}}, stream_mode=mode):
                pass
            runs += 1
    return (time.process_time() - used) / runs * 1e6


if __name__ == "__main__":
    print(asyncio.run(measure(sys.argv[1], float(sys.argv[2]))))
