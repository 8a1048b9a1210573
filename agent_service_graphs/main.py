"""The worker process: requests of the engine in, reports out, over the inherited socket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from agent_service_graphs.describing import described, drawn
from agent_service_graphs.imports import ImportedThread
from agent_service_graphs.loading import BrokenGraph, GraphSource, keep_whole_values
from agent_service_graphs.runs import GraphRun, configurable_of, failure, server_runtime, user_of
from agent_service_graphs.stalls import POLL_SECONDS, StallWatch
from agent_service_graphs.state import read_states, write_state
from agent_service_graphs.stored_values import StoredValues
from agent_service_graphs.tool_classes import route_tool_calls
from agent_service_graphs.wire import Connection

MAX_STACK = 12


class Worker:
    """The graphs of the project, and their runs."""

    def __init__(self, connection: Connection, on_loaded: Callable[[], None]) -> None:
        self._connection = connection
        self._on_loaded = on_loaded
        self._sources: dict[str, GraphSource] = {}
        self._runs: dict[int, tuple[GraphRun, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._imports: dict[str, ImportedThread] = {}
        self._kept: dict[int, StoredValues] = {}
        """What runs have left for the next run of their thread, which the engine names; it decides how much that is."""

    async def serve(self) -> None:
        """Serve requests of the engine until its connection ends."""
        while True:
            try:
                messages = await self._connection.receive()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            for message in messages:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        op = message["op"]
        if op == "load":
            self._spawn(self._load(message["graphs"], Path(message["folder"]), message["tools"]))
        elif op == "run":
            self._run(message)
        elif op == "ping":
            self._connection.send(op="answer", id=message["id"], result={"kept": len(self._kept)})
        elif op == "answer":
            self._connection.answered(message["id"], message["value"], message["error"])
        elif op == "shape":
            self._spawn(self._answer(message, self._shape(message)))
        elif op == "write":
            self._spawn(self._answer(message, self._write(message)))
        elif op == "states":
            self._spawn(self._answer(message, self._states(message)))
        elif op == "import":
            self._spawn(self._answer(message, self._import(message)))
        elif op == "forget":
            self._kept.pop(message["run"], None)
        elif (found := self._runs.get(message["run"])) is not None:
            run, task = found
            if op == "ack":
                run.acknowledge(message["number"])
            elif op == "drain":
                run.control.request_drain()
            elif op == "cancel":
                task.cancel()

    def _run(self, message: dict[str, Any]) -> None:
        number = message["run"]
        try:
            values = self._kept.pop(message["base"]) if message["base"] else StoredValues()
            values.apply(message["values"])
            keep = functools.partial(self._kept.__setitem__, number)
            run = GraphRun(self._connection, self._source(message), message, values, keep)
        except (BrokenGraph, LookupError) as error:
            self._connection.send(op="end", run=number, **failure(error))
            return
        task = self._spawn(run.run())
        self._runs[number] = (run, task)
        task.add_done_callback(functools.partial(self._ended, number))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        """Forget a run that has ended; one that could not report its end ends with its error."""
        self._runs.pop(number, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._connection.send(op="end", run=number, **failure(error))

    def _source(self, message: dict[str, Any]) -> GraphSource:
        """Return the graph that ``message`` is about. Raises ``BrokenGraph`` for one that this process cannot load."""
        name = message["graph_id"]
        if name not in self._sources:
            raise BrokenGraph(f"the graph {name!r} could not be loaded when its process was started again")
        return self._sources[name]

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, graphs: dict[str, str], folder: Path, tools: dict[str, list[dict[str, Any]]]) -> None:
        found: dict[str, Any] = {}
        for name, code in graphs.items():
            try:
                source = GraphSource(name, code, folder, tools.get(name, ()))
                found[name] = await self._described(source)
                self._sources[name] = source
            except BrokenGraph as error:
                found[name] = {"error": str(error)}
            except Exception as error:  # noqa: BLE001  one broken graph stops no other
                found[name] = {"error": _reason(code, error)}
        self._connection.send(op="loaded", graphs=found)
        self._on_loaded()

    async def _described(self, source: GraphSource) -> dict[str, Any]:
        """Describe the graph; of one whose factory needs what only a run has, say why it cannot be described."""
        try:
            async with source.open(
                {"configurable": {}}, lambda: server_runtime("assistants.read", None, None)
            ) as graph:
                return {**described(graph), "is_factory": source.is_factory}
        except BrokenGraph:
            raise
        except Exception as error:
            if not source.is_factory:
                raise
            return {"undescribed": _reason(source.code, error), "is_factory": True}

    async def _answer(self, message: dict[str, Any], work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        """Answer a request of the engine with the result of ``work``, or with its error."""
        try:
            self._connection.send(op="answer", id=message["id"], result=await work)
        except Exception as error:  # noqa: BLE001  whatever a graph raises refuses the request alone
            about = failure(error)
            self._connection.send(op="answer", id=message["id"], error=about["error"], message=about["message"])

    async def _write(self, message: dict[str, Any]) -> dict[str, Any]:
        return await write_state(self._source(message), message)

    async def _states(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"states": await read_states(self._source(message), message)}

    async def _import(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take the next checkpoint of the import ``key``, or compare it with the engine's; without one, forget it."""
        key, stored, values = message["key"], message["stored"], message["values"]
        if stored is None:
            self._imports.pop(key, None)
            return {}
        if key not in self._imports:
            async with self._source(message).open(
                {"configurable": {}}, lambda: server_runtime("assistants.read", None, None)
            ) as graph:
                self._imports[key] = ImportedThread(graph)
        thread = self._imports[key]
        return thread.add(stored) if values is None else {"differences": thread.differences(stored, values)}

    async def _shape(self, message: dict[str, Any]) -> dict[str, Any]:
        config, user = {"configurable": configurable_of(message["configurable"], {})}, user_of(message["configurable"])
        async with self._source(message).open(config, lambda: server_runtime("assistants.read", user, None)) as graph:
            return {**described(graph), "graph": drawn(graph, message["xray"])}


def _reason(code: str, error: Exception) -> str:
    about = failure(error)
    return f"{code}: {about['error']}: {about['message']}{about['at']}"


async def _serve(descriptor: int, status: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor), limit=2**20)
    connection = Connection(reader, writer)
    loop = asyncio.get_running_loop()

    def on_stall(seconds: float, stack: list[str]) -> None:
        os.write(status, json.dumps({"seconds": seconds, "stack": stack[-MAX_STACK:]}).encode() + b"\n")

    watch = StallWatch(on_stall)

    def turn() -> None:
        watch.turn()
        loop.call_later(POLL_SECONDS, turn)

    turn()

    def on_loaded() -> None:
        watch.start()  # not before: modules may take their time to be imported
        gc.collect()
        gc.freeze()  # else every collection visits all objects of the imported libraries, which takes 10 ms

    keep_whole_values()
    route_tool_calls()
    worker = Worker(connection, on_loaded)
    connection.send(op="ready", python=sys.version.split()[0])
    await worker.serve()


def main(descriptor: int, status: int) -> None:
    """Serve the engine at the other end of the socket ``descriptor`` until the connection ends.

    A line of JSON on the pipe ``status`` names code that blocks the event loop, which cannot report it itself.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what a node prints is seen at once, also through a pipe
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    serving = loop.create_task(_serve(descriptor, status))
    while not serving.done():
        # a node that raises one of these stops the loop; it ends its run, not the process of all
        with contextlib.suppress(SystemExit, KeyboardInterrupt):
            loop.run_until_complete(serving)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(0)  # threads of sync nodes may still run, and their results are not needed
