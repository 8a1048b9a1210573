"""A worker process: one application on Granian, from start-up to graceful shutdown.

``Application`` is the port to what a worker serves.
"""

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
import uvloop

from app.base.errors import AgentServiceError
from app.base.memory import return_large_blocks
from app.base.tasks import Tasks, run_until_done
from app.base.wakeup import wait_for
from app.server.granian_internals import GranianServer, client_connections
from app.server.worker_context import ADOPT, LINGER_SECONDS, RELEASE, RETIRE, WorkerContext
from app.server.worker_handle import DUMP_STACKS

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

RELEASE_SECONDS = 2.0
"""Seconds for which a released slot's server keeps its connections."""

HEARTBEAT_SECONDS = 1.0
"""Interval of the heartbeat to the parent."""

CLOSE_SECONDS = 5.0
"""Timeout for requests in progress after the application has drained."""

FINAL_SECONDS = 4.0
"""Part of the shutdown time reserved for closing the application and flushing logs."""

TASK_SECONDS = 0.5
"""Timeout for cancelled tasks, after which they are abandoned."""

POLL_SECONDS = 1.0
"""Interval at which a retiring worker counts its client connections: several system calls for each."""


SETTLE_SECONDS = 0.1
"""Time for connections that were being accepted, and for their requests, once a server has stopped accepting."""


class Application(Protocol):
    """An ASGI application (HTTP only, no lifespan events) with its lifecycle; one instance per worker.

    ``asgi`` answers requests from the end of ``open`` until ``drain`` has returned, and then has ``CLOSE_SECONDS`` for
    requests in progress; ``close`` comes last. ``retire`` comes before ``drain`` if a successor already serves.
    """

    @property
    def asgi(self) -> AsgiApp:
        """The ASGI application: https://asgi.readthedocs.io/en/latest/specs/www.html"""
        ...

    @property
    def metrics(self) -> AsgiApp:
        """The ASGI application for the metrics port, if there is one."""
        ...

    async def open(self) -> None:
        """Open what requests need. Raises ``StartError``, whose message the parent reports."""
        ...

    def reload(self) -> None:
        """Reload rotated secrets."""
        ...

    async def retire(self) -> None:
        """Accept no new work, finish or hand over runs; open responses continue. Bounded in time."""
        ...

    async def drain(self) -> None:
        """Retire, unless done already, then end open streams. Bounded in time."""
        ...

    async def close(self) -> None:
        """Release all resources."""
        ...

    def busy(self) -> str:
        """Return the run or request that is being processed. Called when the event loop is stuck."""
        ...

    def about(self) -> dict[str, str]:
        """Return facts for the start-up message by name: the model and why, the agents."""
        ...


log = structlog.get_logger(__name__)


def run(create: Callable[[], Application], context: WorkerContext) -> int:
    """Serve the application that ``create`` returns until the parent stops it; return the exit code.

    Raises what prevents the start. The process must exit next: a task that ignores its cancellation stays on the loop.
    """
    return_large_blocks()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return run_until_done(loop, _serve(create, context))
    except AgentServiceError:
        raise
    except Exception as error:
        log.debug("worker_failed", exc_info=error)
        raise


async def _serve(create: Callable[[], Application], context: WorkerContext) -> int:
    application = create()
    await application.open()
    worker = _Worker(application, context)
    worker.listen_to_parent()
    _freeze_garbage_collector()
    worker.accept()
    context.ready(application.about())
    worker.tasks.repeat(worker.heartbeat, HEARTBEAT_SECONDS, name="heartbeat")
    await worker.wait_for_shutdown()
    if not worker.stopping.is_set():
        await worker.retire()
    by = time.monotonic() + context.seconds - FINAL_SECONDS
    await application.drain()
    await worker.close(by)
    await application.close()
    await _cancel_tasks(worker.tasks)
    return 0 if worker.shutdown_requested else 1


class _Worker:
    """One application, its servers, and the handlers of the parent's requests."""

    def __init__(self, application: Application, context: WorkerContext) -> None:
        self.tasks = Tasks("worker")
        self.stopping = asyncio.Event()
        self.shutdown_requested = False
        self._application = application
        self._context = context
        self._app = ConnectionClosingApp(application.asgi)
        self._leaving = asyncio.Event()
        self._servers: dict[int, GranianServer] = {}  # by slot
        self._metrics: GranianServer | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def listen_to_parent(self) -> None:
        """Install handlers for signals and for the parent's requests."""
        loop, context = asyncio.get_running_loop(), self._context
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, context.leave)
        loop.add_signal_handler(signal.SIGHUP, self._application.reload)
        loop.add_reader(context.pipes.control, self._on_request)
        threading.Thread(target=_stop_with_parent, args=(context, loop, self._stop), daemon=True).start()
        faulthandler.unregister(DUMP_STACKS)
        signal.signal(DUMP_STACKS, lambda *_: context.busy(self._application.busy()))
        faulthandler.register(DUMP_STACKS, file=context.pipes.stacks, all_threads=True, chain=True)

    def accept(self) -> None:
        """Start accepting connections."""
        self._servers[self._context.slot] = self._start(GranianServer(self._app, self._context.listener))
        if self._context.metrics is not None:
            self._metrics = self._start(GranianServer(self._application.metrics, self._context.metrics))

    async def heartbeat(self) -> None:
        """Report to the parent that the event loop is responsive."""
        self._context.heartbeat()

    async def wait_for_shutdown(self) -> None:
        """Wait until the parent asks for a shutdown, or a server has ended unexpectedly."""
        leaving = self.tasks.start(self._leaving.wait(), name="leaving")
        await asyncio.wait({leaving, *self._serving}, return_when=asyncio.FIRST_COMPLETED)

    async def retire(self) -> None:
        """Make way for the successor: stop accepting, hand over runs, and wait for the clients to disconnect.

        Each connection is closed with its next response; an idle one by Granian's keep-alive timeout or by the client.
        """
        await self._stop_accepting()
        await self._application.retire()
        deadline = time.monotonic() + LINGER_SECONDS
        port = self._context.listener.getsockname()[1]
        while not self.stopping.is_set() and time.monotonic() < deadline:
            if not await asyncio.to_thread(client_connections, port):
                break
            await wait_for(self.stopping, POLL_SECONDS)

    async def close(self, by: float) -> None:
        """Stop the servers; responses in progress have until ``by``, and at most ``CLOSE_SECONDS``."""
        await self._stop_accepting()
        for server in self._all_servers():
            server.stop()  # type: ignore[no-untyped-call]
        # an incomplete request head keeps Granian waiting for the rest
        seconds = max(0.1, min(CLOSE_SECONDS, by - time.monotonic()))
        if self._serving:
            await asyncio.wait(self._serving, timeout=seconds)

    async def _stop_accepting(self) -> None:
        self._app.closing = True
        for server in self._all_servers():
            server.stop_accepting()
        await asyncio.sleep(SETTLE_SECONDS)

    def _all_servers(self) -> list[GranianServer]:
        return [*self._servers.values(), *([self._metrics] if self._metrics else [])]

    def _start(self, server: "GranianServer") -> "GranianServer":
        task = self.tasks.start(server.serve(), name="granian")
        self._serving.add(task)
        return server

    def _on_request(self) -> None:
        for request, slot in self._context.requests():
            if request == ADOPT:
                self._adopt(slot)
            elif request == RELEASE:
                self._release(slot)
            elif request == RETIRE:
                self.shutdown_requested = True
                self._leaving.set()
            else:
                self._stop()

    def _stop(self) -> None:
        self.shutdown_requested = True
        asyncio.get_running_loop().remove_reader(self._context.pipes.control)
        for slot, listener in enumerate(self._context.listeners, 1):
            if slot != self._context.slot:
                listener.close()  # that slot's own worker decides how long it stays open
        self.stopping.set()
        self._leaving.set()

    def _adopt(self, slot: int) -> None:
        """Accept connections of ``slot``, one request each, so that none is idle when it is released."""
        if slot not in self._servers and not self._leaving.is_set():
            front = ConnectionClosingApp(self._application.asgi)
            front.closing = True
            server = self._servers[slot] = GranianServer(front, self._context.listeners[slot - 1])
            task = self.tasks.start(server.serve(), name="granian")
            task.add_done_callback(lambda _: self._forget(slot, server))

    def _release(self, slot: int) -> None:
        if slot in self._servers and slot != self._context.slot:
            server = self._servers.pop(slot)
            server.stop_accepting()
            self.tasks.start(self._stop_soon(server), name="release")

    async def _stop_soon(self, server: "GranianServer") -> None:
        """Stop a released server once the requests on its newest connections have arrived: stopping cuts others."""
        await wait_for(self.stopping, RELEASE_SECONDS)
        server.stop()  # type: ignore[no-untyped-call]

    def _forget(self, slot: int, server: "GranianServer") -> None:
        if self._servers.get(slot) is server:
            del self._servers[slot]


class ConnectionClosingApp:
    """ASGI wrapper: while ``closing`` is set, every response closes its connection."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self.closing = False

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Call the wrapped application."""
        return self._app(scope, receive, _closing(send) if self.closing else send)


def _closing(send: Any) -> Any:
    def wrapped(message: Any) -> Any:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        return send(message)

    return wrapped


async def _cancel_tasks(own: Tasks) -> None:
    """Cancel all tasks, the worker's ``own`` first; log those that ignore it for ``TASK_SECONDS``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TASK_SECONDS):
            await own.aclose()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=TASK_SECONDS)
    if tasks:
        names = sorted(task.get_name() for task in tasks)
        log.warning("tasks_left_behind", count=len(names), tasks=names[:10])


def _freeze_garbage_collector() -> None:
    """Exempt the objects made at start-up from garbage collection: they live as long as the process."""
    gc.collect()
    gc.freeze()


def _stop_with_parent(context: WorkerContext, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Shut down when the parent has died. Runs in a thread, because the loop may be stuck."""
    os.read(context.pipes.lifeline, 1)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(stop)
    time.sleep(context.seconds)
    os._exit(1)
