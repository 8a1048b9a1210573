"""A worker: one application on Granian, in a process of its own, from start to drained end."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable

import structlog
import uvloop
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from app.base.errors import AgentServiceError
from app.base.tasks import Tasks, run_through
from app.serving.listening import BACKLOG
from app.serving.port import Application, AsgiApp
from app.serving.station import Station

log = structlog.get_logger(__name__)

CONNECTIONS = 12_000
"""Connections a worker takes before new ones wait in the kernel: more than the streams it admits (``app.web.stream``),
so that health checks pass while those are all open."""

OTHER_DESCRIPTORS = 500

IDLE_SECONDS = 75
"""How long a connection may lie idle between requests, and how long the head of one may take: Granian has one deadline
for both. Load balancers keep theirs for 60 s and must be the ones that close."""

BEAT_SECONDS = 1.0
"""How often a worker tells its parent that its event loop turns."""

CLOSE_SECONDS = 5.0
"""How long requests that do not stream may take to end once the application has drained."""

QUIET = {"version": 1, "formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Granian's own lines go where all others go (``app.telemetry.logs``)."""


def run(create: Callable[[], Application], station: Station) -> int:
    """Serve what ``create`` makes until SIGTERM; the exit code. Raises whatever prevents it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return run_through(runner.get_loop(), _serve(create, station))
        except AgentServiceError:
            raise
        except Exception as error:
            log.debug("worker_failed", exc_info=error)
            raise


async def _serve(create: Callable[[], Application], station: Station) -> int:
    application = create()
    await application.open()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, application.reload)
    threading.Thread(target=_end_with_parent, args=(station, loop, stop), daemon=True).start()
    _settle()
    tasks = Tasks("worker")
    server = Granian(application.asgi, station.listener)
    serving = tasks.start(server.serve(), name="granian")
    if station.metrics is not None:
        tasks.start(Granian(application.metrics, station.metrics.dup()).serve(), name="metrics")
    stopping = tasks.start(stop.wait(), name="stop")
    station.ready(application.about())

    async def beat() -> None:
        station.alive()

    tasks.repeat(beat, BEAT_SECONDS, name="alive")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await application.drain()
    server.stop()  # type: ignore[no-untyped-call]
    # a connection that has sent half a head keeps Granian waiting for the rest
    await asyncio.wait({serving}, timeout=CLOSE_SECONDS)
    await application.close()
    await tasks.aclose()
    return 0 if stop.is_set() else 1


def _settle() -> None:
    """What start-up has made stays: keep the garbage collector from looking at it again and again."""
    gc.collect()
    gc.freeze()


def _end_with_parent(station: Station, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Drain when the parent is gone, however it went; a thread, because the loop may be stuck just then."""
    os.read(station.lifeline, 1)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(stop.set)
    time.sleep(station.seconds)
    os._exit(1)


def connections() -> int:
    """As many connections as the limits of this process allow, ``CONNECTIONS`` at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(CONNECTIONS, max(soft - OTHER_DESCRIPTORS, soft // 2))


class Granian(Server):
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
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)  # type: ignore[call-arg,assignment]
