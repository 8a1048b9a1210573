"""Everything that leans on private parts of Granian 2.8 (pyproject.toml allows 2.8 up to, but not including, 3).

- ``Server._init_shared_socket`` and ``granian._granian.SocketHolder`` hand over a socket that the parent has opened:
  the embedded server opens one of its own. Remove it once the embedded server takes a socket.
- ``stop_accepting`` removes the socket from Granian's epoll(7) instances, as Granian cannot stop accepting and keep the
  open connections. Remove it once Granian can, as its own graceful shutdown of HTTP/1.1 keep-alive connections.
"""

import contextlib
import os
import resource
import select
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from app.server.sockets import BACKLOG

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

MAX_CONNECTIONS = 12_000
"""Connections a worker accepts before new ones wait in the backlog: more than the streams it admits
(``app.infra.http.open_streams``), so that health checks pass while all streams are open."""

RESERVED_DESCRIPTORS = 500

IDLE_SECONDS = 75
"""Keep-alive timeout, and timeout for the head of a request: Granian has one for both. Longer than the 60 s of common
load balancers, which must be the ones that close."""

LOG_CONFIG = {"version": 1, "formatters": {}, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Hand Granian's log records to the root logger (``app.infra.telemetry.logs``)."""


class GranianServer(Server):
    """Granian's embedded server on a socket that the parent has opened.

    HTTP/1.1 only: browsers and proxies use nothing else without TLS, and HTTP/2 hides streams in one connection.
    """

    def __init__(self, app: AsgiApp, listener: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=IDLE_SECONDS * 1000),
            websockets=True,
            backlog=BACKLOG,
            backpressure=connections(),
            log_level=LogLevels.error,
            log_dictconfig=LOG_CONFIG,
            log_access=False,
        )
        self._listener = listener.dup()
        self._inode = os.fstat(listener.fileno()).st_ino

    def stop_accepting(self) -> None:
        """Stop accepting connections but keep the open ones (``stop`` closes idle ones).

        Granian cannot do that, so the socket, which other workers share, is removed from every epoll(7) instance of
        this process. On systems other than Linux connections are accepted until ``stop``.
        """
        for epoll in _descriptors("anon_inode:[eventpoll]"):
            for line in Path(f"/proc/self/fdinfo/{epoll}").read_text().splitlines():
                words = line.replace("tfd:", "").split()
                if line.startswith("tfd:") and f"ino:{self._inode:x}" in words:
                    with select.epoll.fromfd(os.dup(epoll)) as waiting:
                        waiting.unregister(int(words[0]))

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)  # type: ignore[call-arg,assignment]


def connections() -> int:
    """Raise the limit of open files if needed; return the connections it allows, at most ``MAX_CONNECTIONS``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MAX_CONNECTIONS, max(soft - RESERVED_DESCRIPTORS, soft // 2))


def client_connections(port: int) -> int:
    """Count this process's open client connections to ``port``; 0 without ``/proc``."""
    found = 0
    for descriptor in _descriptors("socket:"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
            if one.family in {socket.AF_INET, socket.AF_INET6}:
                is_listener = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                found += not is_listener and one.getsockname()[1] == port
    return found


def _descriptors(kind: str) -> list[int]:
    """Return the file descriptors of this process whose link in ``/proc`` starts with ``kind``."""
    found = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).startswith(kind):
                    found.append(int(entry.name))
    return found
