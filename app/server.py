"""The server process: a small parent that owns the port, and Granian workers forked from it.

The parent imports next to nothing, so that it stays small and a worker that is started anew sees the code as it is now
(docs/decisions/0004). A stop reaches the workers as SIGTERM; the application drains (``app.asgi``) and then ends its
worker by SIGINT, because Granian's own SIGTERM never ends while a stream is open.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from app.base.errors import StartError

BACKLOG = 1024
CONNECTIONS = 16_384
"""Connections a worker takes before Granian lets new ones wait: well above the streams that the application admits."""

KILL_AFTER = 15.0
"""Seconds after the drain in which a worker must have gone."""


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to serve. ``drain_seconds`` bounds a stop."""

    host: str
    port: int
    workers: int
    drain_seconds: float
    reload_paths: tuple[Path, ...] = ()


def serve(listening: Listening, build: Callable[[], Any]) -> None:
    """Serve what ``build`` makes (called in every worker) until a signal ends it. Raises ``StartError``."""
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server import Server

    check_port(listening.host, listening.port)
    multiprocessing.set_start_method("fork", force=True)  # the parent has no threads; ``build`` need not be pickled
    server = Server(
        "app.asgi:build",
        address=listening.host,
        port=listening.port,
        interface=Interfaces.ASGI,
        workers=listening.workers,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
        websockets=False,
        loop=Loops.uvloop,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        log_access=False,
        log_level=LogLevels.error,
        respawn_failed_workers=listening.workers > 1,
        workers_kill_timeout=int(listening.drain_seconds + KILL_AFTER),
        reload=bool(listening.reload_paths),
        reload_paths=list(listening.reload_paths) or None,
    )
    server.serve(target_loader=_loader(build), wrap_loader=False)


def _loader(build: Callable[[], Any]) -> Callable[..., Any]:
    parent = os.getpid()

    def load(*_: Any, **__: Any) -> Any:
        leave_the_terminal()
        end_with(parent)
        return build()

    return load


def check_port(host: str, port: int) -> None:
    """Refuse a port that another program has. Raises ``StartError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"port {port} of {host} cannot be used ({error.strerror}): stop the other program, or pass --port N"
            ) from error


def leave_the_terminal() -> None:
    """Be a process group of one's own: Ctrl-C is for the parent, which stops its workers in order."""
    os.setpgid(0, 0)


def end_with(parent: int) -> None:
    """Get SIGTERM when ``parent`` dies, however it dies (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes
    import signal

    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
