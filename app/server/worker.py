"""A worker: one application on Granian, in a process of its own, from start to drained end.

The port to what a worker serves.
"""

import asyncio
import contextlib
import faulthandler
import gc
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from app.base.errors import AgentServiceError
from app.base.memory import return_large_blocks
from app.base.tasks import Tasks, run_through
from app.server.sockets import BACKLOG
from app.server.worker_context import ADOPT, LINGER_SECONDS, RELEASE, RETIRE, WorkerContext
from app.server.worker_handle import TELL_STACKS

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class Application(Protocol):
    """An ASGI application (HTTP alone, no lifespan events) and the life around it, one object a worker.

    ``asgi`` answers requests from the end of ``open`` until ``drain`` has returned, and is given a few seconds more to
    end what it has begun; ``close`` comes last. ``retire`` comes before ``drain`` where a successor serves already.
    """

    @property
    def asgi(self) -> AsgiApp:
        """The application itself: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        ...

    @property
    def metrics(self) -> AsgiApp:
        """What answers on the port for metrics, where there is one."""
        ...

    async def open(self) -> None:
        """Start what requests need. Raises ``StartError``: its sentence ends the start."""
        ...

    def reload(self) -> None:
        """Read anew what may change while the program runs: its secrets."""
        ...

    async def retire(self) -> None:
        """Take no new work, end or hand over what runs; open answers go on. Bounds itself in time."""
        ...

    async def drain(self) -> None:
        """Do what ``retire`` does, unless that is done; then end open streams. Bounds itself in time."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...

    def busy(self) -> str:
        """What the running code works for: the run, the request. Called when the event loop hangs there."""
        ...

    def about(self) -> dict[str, str]:
        """What a person wants to know of it, by name: the model and why, the agents."""
        ...


log = structlog.get_logger(__name__)

CONNECTIONS = 12_000
"""Connections a worker takes before new ones wait in the kernel: more than the streams it admits
(``app.infra.http.event_streams``), so that health checks pass while those are all open."""

OTHER_DESCRIPTORS = 500

IDLE_SECONDS = 75
"""How long a connection may lie idle between requests, and how long the head of one may take: Granian has one deadline
for both. Load balancers keep theirs for 60 s and must be the ones that close."""

BEAT_SECONDS = 1.0
"""How often a worker tells its parent that its event loop turns."""

CLOSE_SECONDS = 5.0
"""How long requests that do not stream may take to end once the application has drained."""

LAST_SECONDS = 4.0
"""What is left of the time of an end for what comes after the servers: closing the application, the last lines."""

LEAVE_SECONDS = 0.5
"""How long tasks may take to end once all is closed, before they are left behind."""

LOOK_SECONDS = 1.0
"""How often a worker that has a successor looks whether its clients have left: several system calls for each client."""

QUIET = {"version": 1, "formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Granian's own lines go where all others go (``app.infra.telemetry.logs``)."""


def run(create: Callable[[], Application], station: WorkerContext) -> int:
    """Serve what ``create`` makes until the parent ends it; the exit code. Raises whatever prevents it.

    The process must end next: a task that refuses to end is left behind on the loop.
    """
    return_large_blocks()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return run_through(loop, _serve(create, station))
    except AgentServiceError:
        raise
    except Exception as error:
        log.debug("worker_failed", exc_info=error)
        raise


async def _serve(create: Callable[[], Application], station: WorkerContext) -> int:
    application = create()
    await application.open()
    worker = _Worker(application, station)
    worker.listen_to_parent()
    _settle()
    worker.accept()
    station.ready(application.about())
    worker.tasks.repeat(worker.beat, BEAT_SECONDS, name="alive")
    await worker.told_to_leave()
    if not worker.stopping.is_set():
        await worker.make_way()
    by = time.monotonic() + station.seconds - LAST_SECONDS
    await application.drain()
    await worker.close(by)
    await application.close()
    await _leave_behind(worker.tasks)
    return 0 if worker.asked else 1


class _Worker:
    """One application, its servers, and what its parent asks."""

    def __init__(self, application: Application, station: WorkerContext) -> None:
        self.tasks = Tasks("worker")
        self.stopping = asyncio.Event()
        self.asked = False
        self._application = application
        self._station = station
        self._front = ConnectionClosingApp(application.asgi)
        self._leaving = asyncio.Event()
        self._servers: dict[int, GranianServer] = {}  # by slot
        self._metrics: GranianServer | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def listen_to_parent(self) -> None:
        """Handle signals, and what the parent asks."""
        loop, station = asyncio.get_running_loop(), self._station
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, station.leave)
        loop.add_signal_handler(signal.SIGHUP, self._application.reload)
        loop.add_reader(station.pipes.control, self._on_request)
        threading.Thread(target=_end_with_parent, args=(station, loop, self._stop), daemon=True).start()
        faulthandler.unregister(TELL_STACKS)
        signal.signal(TELL_STACKS, lambda *_: station.busy(self._application.busy()))
        faulthandler.register(TELL_STACKS, file=station.pipes.stacks, all_threads=True, chain=True)

    def accept(self) -> None:
        """Accept connections."""
        self._servers[self._station.slot] = self._start(GranianServer(self._front, self._station.listener))
        if self._station.metrics is not None:
            self._metrics = self._start(GranianServer(self._application.metrics, self._station.metrics))

    async def beat(self) -> None:
        """Show that the event loop turns."""
        self._station.alive()

    async def told_to_leave(self) -> None:
        """Wait until the parent asks this worker to end, or its server has ended by itself."""
        leaving = self.tasks.start(self._leaving.wait(), name="leaving")
        await asyncio.wait({leaving, *self._serving}, return_when=asyncio.FIRST_COMPLETED)

    async def make_way(self) -> None:
        """A successor serves: give up the socket, hand over what runs, and wait for the clients to leave.

        Each of their connections is closed with its next answer. One that lies idle is closed by Granian, in the time
        that clients know of, or by the client.
        """
        self._front.closing = True
        for server in (*self._servers.values(), *([self._metrics] if self._metrics else [])):
            server.stop_accepting()
        await self._application.retire()
        deadline = time.monotonic() + LINGER_SECONDS
        port = self._station.listener.getsockname()[1]
        while not self.stopping.is_set() and time.monotonic() < deadline:
            if not await asyncio.to_thread(client_connections, port):
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.stopping.wait()

    async def close(self, by: float) -> None:
        """End the servers; what still answers has until ``by``, and ``CLOSE_SECONDS`` at most."""
        self._front.closing = True
        for server in (*self._servers.values(), *([self._metrics] if self._metrics else [])):
            server.stop()  # type: ignore[no-untyped-call]
        # a connection that has sent half a head keeps Granian waiting for the rest
        seconds = max(0.1, min(CLOSE_SECONDS, by - time.monotonic()))
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)

    def _start(self, server: "GranianServer") -> "GranianServer":
        task = self.tasks.start(server.serve(), name="granian")
        self._serving.add(task)
        return server

    def _on_request(self) -> None:
        for request, slot in self._station.requests():
            if request == ADOPT:
                self._adopt(slot)
            elif request == RELEASE:
                self._release(slot)
            elif request == RETIRE:
                self.asked = True
                self._leaving.set()
            else:
                self._stop()

    def _stop(self) -> None:
        self.asked = True
        asyncio.get_running_loop().remove_reader(self._station.pipes.control)
        for slot, listener in enumerate(self._station.listeners, 1):
            if slot != self._station.slot:
                listener.close()  # its own worker decides how long it is open
        self.stopping.set()
        self._leaving.set()

    def _adopt(self, slot: int) -> None:
        """Accept the connections of ``slot``; each for one request, so that none lies idle when this ends."""
        if slot not in self._servers and not self._leaving.is_set():
            front = ConnectionClosingApp(self._application.asgi)
            front.closing = True
            self._servers[slot] = GranianServer(front, self._station.listeners[slot - 1])
            task = self.tasks.start(self._servers[slot].serve(), name="granian")
            task.add_done_callback(lambda _: self._servers.pop(slot, None))

    def _release(self, slot: int) -> None:
        if slot in self._servers and slot != self._station.slot:
            self._servers.pop(slot).stop()  # type: ignore[no-untyped-call]


class ConnectionClosingApp:
    """An ASGI application whose answers, while it is ``closing``, each close their connection."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self.closing = False

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Pass the request on."""
        return self._app(scope, receive, _closing(send) if self.closing else send)


def _closing(send: Any) -> Any:
    def wrapped(message: Any) -> Any:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        return send(message)

    return wrapped


async def _leave_behind(own: Tasks) -> None:
    """Cancel all tasks, the worker's ``own`` first, and wait a moment; count and name those that refuse to end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_SECONDS):
            await own.aclose()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
    if tasks:
        names = sorted(task.get_name() for task in tasks)
        log.warning("tasks_left_behind", count=len(names), tasks=names[:10])


def _settle() -> None:
    """What start-up has made stays: keep the garbage collector from looking at it again and again."""
    gc.collect()
    gc.freeze()


def _end_with_parent(station: WorkerContext, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Drain when the parent is gone, however it went; a thread, because the loop may be stuck just then."""
    os.read(station.pipes.lifeline, 1)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(stop)
    time.sleep(station.seconds)
    os._exit(1)


def client_connections(port: int) -> int:
    """Connections to ``port`` that clients of this process hold open; 0 where there is no ``/proc``."""
    found = 0
    for descriptor in _descriptors("socket:"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family in {socket.AF_INET, socket.AF_INET6}:
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                found += not listens and one.getsockname()[1] == port
    return found


def _descriptors(kind: str) -> list[int]:
    """The file descriptors of this process that name something of ``kind``."""
    found = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).startswith(kind):
                    found.append(int(entry.name))
    return found


def connections() -> int:
    """As many connections as the limits of this process allow, ``CONNECTIONS`` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(CONNECTIONS, max(soft - OTHER_DESCRIPTORS, soft // 2))


class GranianServer(Server):
    """Granian's server for a running loop, on the socket that the parent has opened.

    HTTP/1.1 alone: browsers and proxies speak nothing else without TLS, and HTTP/2 hides streams in one connection.
    """

    def __init__(self, app: AsgiApp, listener: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=IDLE_SECONDS * 1000),
            websockets=False,
            backlog=BACKLOG,
            backpressure=connections(),
            log_level=LogLevels.error,
            log_dictconfig=QUIET,
            log_access=False,
        )
        self._listener = listener.dup()
        self._inode = os.fstat(listener.fileno()).st_ino

    def stop_accepting(self) -> None:
        """Take no more connections, and keep those there are (``stop`` closes idle ones): others have the socket too.

        Granian cannot do that, so the socket is taken out of whatever waits for it (epoll(7)). Where that cannot be
        done, on other systems than Linux, connections go on to be taken until ``stop``.
        """
        for epoll in _descriptors("anon_inode:[eventpoll]"):
            for line in Path(f"/proc/self/fdinfo/{epoll}").read_text().splitlines():
                words = line.replace("tfd:", "").split()
                if line.startswith("tfd:") and f"ino:{self._inode:x}" in words:
                    with select.epoll.fromfd(os.dup(epoll)) as waiting:
                        waiting.unregister(int(words[0]))

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)  # type: ignore[call-arg,assignment]
