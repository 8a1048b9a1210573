"""The worker process that runs a project's graphs: start it, route its reports to runs, start it again when it ends."""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.agents.langgraph.kept_values import EVICTION_SECONDS, IDLE_SECONDS, MAX_BYTES, KeptValues, Values
from app.agents.langgraph.quarantine import AdmittedRun, RunAttempts, WorkerQuarantine
from app.agents.langgraph.tools import specs_of
from app.agents.langgraph.wire import (
    EndReport,
    GraphDescription,
    GraphsLoaded,
    Report,
    RunReport,
    WorkerAnswer,
    WorkerConnection,
    WorkerReady,
)
from app.agents.tool_loop.calls import Toolbox
from app.base.errors import Unavailable
from app.base.tasks import Heartbeat, Tasks
from app.base.ttl_cache import TTLCache
from app.infra.settings.environment import child_environment

log = structlog.get_logger(__name__)

PACKAGE = Path(__file__).resolve().parents[3] / "agent_service_graphs"
"""The program of the worker, loaded from its files: nothing else of ours is on its path."""

BOOT = """\
import importlib.util, sys
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "agent_service_graphs", folder + "/__init__.py", submodule_search_locations=[folder])
module = sys.modules["agent_service_graphs"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.path[:0] = sys.argv[4:]
from agent_service_graphs.main import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""

STRICT = {"LANGGRAPH_STRICT_MSGPACK": "true"}
"""Stored values are read as the types that a graph's schemas name, and no others."""

START_SECONDS = 60.0
"""Time that a project's modules have to be imported."""
RESTART_SECONDS = 0.25
MAX_RESTART_SECONDS = 30.0
"""Pause before a process that ended is started again; it doubles while processes end early and without a run.

A run that ends its process is a suspect with few attempts, so it must not delay the runs of other graphs for longer.
"""
REQUEST_SECONDS = 20.0
"""Time for a drawing, or for values written to a state."""
STOP_SECONDS = 2.0
UNREAD_SECONDS = 0.5
"""Time to read what a process that has ended had sent."""
MAX_STATUS_BYTES = 64 * 1024


ThreadKey = tuple[UUID, UUID]
"""The tenant and the id of a thread."""


class WorkerEnded(Exception):
    """The worker process ended while it ran a graph."""


class GraphRefused(Exception):
    """A graph's code, or LangGraph, refused a request: the name of the error and its message."""


class GraphProject(msgspec.Struct, frozen=True, kw_only=True):
    """Graphs that share a worker: name → code, relative to ``folder``; the Python that runs them; its environment."""

    graphs: Mapping[str, str]
    folder: Path
    python: str = sys.executable
    paths: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


class WorkerRun:
    """The reports of one run, in order; None once the worker has ended, an exception that ends the run.

    The worker stops the run's output where the engine has not acknowledged the last few MiB of it.
    """

    def __init__(
        self, number: int, connection: WorkerConnection, admitted: AdmittedRun, thread: ThreadKey, values: KeptValues
    ) -> None:
        self.number = number
        self.admitted = admitted
        self.thread = thread
        self.values = values
        self.ended = False
        self.kept = False
        self.reports: asyncio.Queue[RunReport | Exception | None] = asyncio.Queue()
        self._connection = connection

    def send(self, op: str, **message: Any) -> None:
        """Send a message about this run."""
        self._connection.send(op=op, run=self.number, **message)


class GraphWorker:
    """The worker of one project. ``on_stall(seconds, place)`` is called when code of a graph blocks its event loop."""

    def __init__(
        self, project: GraphProject, on_stall: Callable[[float, str], None] = lambda _seconds, _at: None
    ) -> None:
        self.project = project
        self.graphs: dict[str, GraphDescription] = {}
        self.toolboxes: dict[str, Toolbox] = {}
        """The tools of the agents file for graphs that have some."""
        self._on_stall = on_stall
        self._tasks = Tasks("graph-worker")
        self._numbers = itertools.count(1)
        self._runs: dict[int, WorkerRun] = {}
        self._requests: dict[int, asyncio.Future[WorkerAnswer]] = {}
        self._quarantine = WorkerQuarantine()
        self._kept: TTLCache[ThreadKey, KeptValues] = TTLCache(
            MAX_BYTES, IDLE_SECONDS, size_of=lambda _, values: values.size, on_evict=self._forget
        )
        self._connection: WorkerConnection | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._loaded = asyncio.Event()

    def start(self) -> None:
        """Start the process, and again whenever it ends."""
        self._tasks.supervise(self._run_processes, name="process", back_off=MAX_RESTART_SECONDS)
        self._tasks.repeat(self._forget_idle, EVICTION_SECONDS, name="evict")

    async def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until the graphs are loaded or broken; at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._loaded.wait()

    async def aclose(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await self._tasks.aclose()

    @property
    def pid(self) -> int | None:
        """Id of the process."""
        return None if self._process is None else self._process.pid

    @property
    def open_runs(self) -> int:
        """Number of runs whose reports are taken."""
        return len(self._runs)

    async def open(self, attempts: RunAttempts, thread: ThreadKey, values: Values, **message: Any) -> WorkerRun:
        """Start a run on ``thread``, which has ``values``, in the worker once it has room for it.

        Raises ``Unavailable`` while there is no worker.
        """
        await self._ready()
        admitted = await self._quarantine.enter(attempts)
        try:
            connection = await self._ready()
        except BaseException:
            self._quarantine.leave(admitted)
            raise
        kept = self._kept.pop(thread) or KeptValues()
        run = WorkerRun(next(self._numbers), connection, admitted, thread, kept)
        self._runs[run.number] = run
        self._quarantine.begin(admitted)
        try:
            run.send("run", base=kept.run, values=kept.update(values), **message)
            await connection.drain()
        except BaseException:
            self.close(run)  # the worker may run it already
            raise
        return run

    def progressed(self, run: WorkerRun) -> None:
        """Record that ``run`` has committed something."""
        self._quarantine.progressed(run.admitted)

    def keep(self, run: WorkerRun, size: int) -> None:
        """Let the worker keep the values that ``run`` has left, in ``size`` bytes, for the thread's next run."""
        if self._runs.get(run.number) is run:
            run.kept = True
            run.values.run, run.values.size = run.number, size
            self._kept.put(run.thread, run.values)

    def forget_values(self, tenants: Collection[UUID]) -> None:
        """Let the worker forget the values that it has kept of the threads of ``tenants``."""
        self._kept.remove_if(lambda thread: thread[0] in tenants)

    def _forget(self, _: ThreadKey, values: KeptValues) -> None:
        if self._connection is not None:
            self._connection.send(op="forget", run=values.run)

    async def _forget_idle(self) -> None:
        self._kept.remove_expired()

    def close(self, run: WorkerRun) -> None:
        """Take no more reports of ``run``, and stop it if it still runs."""
        self._quarantine.leave(run.admitted)
        if self._runs.pop(run.number, None) is None:
            return
        if not run.ended:
            run.send("cancel")
            self._tasks.start(self._end_if_blocked(), name="cancelled")
        elif not run.kept:
            run.send("forget")

    async def _end_if_blocked(self) -> None:
        """End the process if code blocks its event loop, so that it does not take the cancellation of a run."""
        process = self._process
        with contextlib.suppress(Unavailable):
            await self.request("ping")
            return
        if process is not None and process is self._process and process.returncode is None:
            log.error("graph_worker_blocked", pid=process.pid, seconds=REQUEST_SECONDS)
            process.kill()

    async def _ready(self) -> WorkerConnection:
        await self.wait()
        if self._connection is None or not self._loaded.is_set():
            raise Unavailable("The process that runs the graphs is starting. Retry in a moment.", retry_after=1)
        return self._connection

    async def request(self, op: str, **message: Any) -> dict[str, Any]:
        """Return the worker's result for a request outside of runs.

        Raises ``Unavailable`` while there is no worker, and ``GraphRefused`` with what the graph's code raised.
        """
        connection = await self._ready()
        number = next(self._numbers)
        waiting: asyncio.Future[WorkerAnswer] = asyncio.get_running_loop().create_future()
        self._requests[number] = waiting
        connection.send(op=op, id=number, **message)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await connection.drain()
                answer = await waiting
        except TimeoutError as error:
            raise Unavailable(f"The graph's code did not answer within {REQUEST_SECONDS:g} s.") from error
        finally:
            del self._requests[number]
        if answer.error:
            raise GraphRefused(answer.error, answer.message)
        return answer.result

    async def _run_processes(self, beat: Heartbeat) -> None:
        """Run one process after the other; an error in between (no descriptor is left, say) is retried."""
        pause = RESTART_SECONDS
        while True:
            started_at = time.monotonic()
            had_runs = await self._run_process()
            if had_runs or time.monotonic() - started_at > START_SECONDS:
                pause = RESTART_SECONDS
                beat()
            else:
                pause = min(2 * pause, MAX_RESTART_SECONDS)
            log.info("graph_worker_restarts", again_in=pause, folder=str(self.project.folder))
            await asyncio.sleep(pause)

    async def _run_process(self) -> bool:
        """Run one process from its start to its end; return whether it had runs then."""
        project = self.project
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            unused = stack.enter_context(contextlib.ExitStack())  # what is ours, until it is in use
            unused.callback(ours.close)
            status_reader, status_writer = os.pipe()
            stack.callback(os.close, status_writer)
            unused.callback(os.close, status_reader)
            descriptors = (theirs.fileno(), status_writer)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(project.python, "-c", BOOT, str(PACKAGE), *map(str, descriptors), *project.paths),
                    cwd=project.folder,
                    env=child_environment({**STRICT, **project.environment}),
                    pass_fds=descriptors,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
                self._broken(f"{project.python} cannot be started: {error.strerror}")
                return False
            unused.pop_all()
        self._process = process
        return await self._serve(process, ours, status_reader)

    async def _serve(self, process: asyncio.subprocess.Process, ours: socket.socket, status_reader: int) -> bool:
        """Route what ``process`` reports until it ends; return whether it had runs then."""
        reader, writer = await asyncio.open_connection(sock=ours)
        self._connection = WorkerConnection(reader, writer)
        watching = self._tasks.start(self._watch_status(status_reader), name="status")
        ending = self._tasks.start(_close_after(process, self._connection), name="exit")
        try:
            while True:
                for report in await self._connection.receive():
                    self._route(report)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            if isinstance(error, msgspec.DecodeError):
                log.exception("graph_worker_protocol")
        finally:
            had_runs = bool(self._runs)
            self._disconnected()
            watching.cancel()
            ending.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            code = await process.wait()
            log.warning("graph_worker_ended", code=code, folder=str(self.project.folder))
            if not self.graphs:
                self._broken(
                    f"{self.project.python} ended with code {code} before the graphs were loaded. Its output says why; "
                    "if langgraph is missing there, install it, or agent-service[langgraph]"
                )
        return had_runs

    def _broken(self, reason: str) -> None:
        self.graphs = {name: GraphDescription(error=reason) for name in self.project.graphs}
        self._loaded.set()

    def _disconnected(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._kept.clear()
        if self.graphs:
            self._loaded.clear()  # what needs a worker waits for the next one
        self._quarantine.worker_ended()
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.reports.put_nowait(None)
        for waiting in self._requests.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("The process that runs the graphs has ended. Retry in a moment."))

    def _route(self, report: Report) -> None:
        match report:
            case WorkerReady():
                assert self._connection is not None
                tools = {name: specs_of(toolbox) for name, toolbox in self.toolboxes.items()}
                graphs, folder = dict(self.project.graphs), str(self.project.folder)
                self._connection.send(op="load", graphs=graphs, folder=folder, tools=tools)
            case GraphsLoaded(graphs):
                self.graphs = graphs
                for name, graph in graphs.items():
                    if graph.error:
                        log.error("graph_broken", graph=name, reason=graph.error)
                    if graph.undescribed:
                        log.warning("graph_undescribed", graph=name, reason=graph.undescribed)
                self._loaded.set()
            case WorkerAnswer(id=number):
                waiting = self._requests.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(report)
            case _:
                run = self._runs.get(report.run)
                if run is not None:
                    run.ended = run.ended or isinstance(report, EndReport)
                    run.reports.put_nowait(report)
                elif isinstance(report, EndReport) and self._connection is not None:
                    self._connection.send(op="forget", run=report.run)  # it has ended before it was cancelled

    async def _watch_status(self, descriptor: int) -> None:
        """Log what the worker's watching thread reports: code that blocks its event loop."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_STATUS_BYTES)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            while line := await reader.readline():
                stalled = json.loads(line)
                place = _place(stalled["stack"], str(self.project.folder))
                log.error(
                    "graph_blocks_worker", seconds=round(stalled["seconds"], 1), at=place, frames=stalled["stack"]
                )
                self._on_stall(stalled["seconds"], place)
        finally:
            transport.close()


async def _close_after(process: asyncio.subprocess.Process, connection: WorkerConnection) -> None:
    """Close the socket once ``process`` has ended: processes that a graph forked may hold its other end open."""
    await process.wait()
    await asyncio.sleep(UNREAD_SECONDS)
    connection.close()


def _place(stack: list[str], folder: str) -> str:
    """Return the innermost place of ``stack`` in the project's own code."""
    own = [one for one in stack if one.startswith(folder) and "/site-packages/" not in one]
    return (own or stack or [""])[-1]
