"""Forbid tests to connect to other machines and to block the event loop, by audit hooks (PEP 578)."""

import asyncio
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

LOOPBACK = frozenset({"", "127.0.0.1", "::1", "localhost", "0.0.0.0"})
BLOCKING = frozenset({"time.sleep", "subprocess.Popen", "socket.getaddrinfo", "socket.gethostbyname"})
APP = str(Path(__file__).parents[1] / "app")


def refuse_outside(host: object) -> None:
    """Raise ``AssertionError`` if ``host`` is not this machine."""
    if isinstance(host, str) and host not in LOOPBACK:
        raise AssertionError(f"a test connects to {host}")


def guard() -> None:
    """Install the audit hook in this process."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        connection, address = arguments
        if connection.family in {socket.AF_INET, socket.AF_INET6}:
            refuse_outside(address[0])
    elif event in BLOCKING and _in_loop() and _from_app(sys._getframe(1)):
        raise AssertionError(f"{event} blocks the event loop")


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _from_app(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(APP):
            return True
        frame = frame.f_back
    return False


class GuardedLoop(uvloop.Loop):
    """uvloop, whose own connections raise no audit events, with the same check."""

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        refuse_outside(host)
        return await super().create_connection(protocol_factory, host, port, **more)
