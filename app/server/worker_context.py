"""What a worker gets from its parent, and the protocol between them: lines over a pipe in each direction."""

import json
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

LINGER_SECONDS = 80.0
"""How long a retiring worker waits for its clients to disconnect: longer than the keep-alive timeout
(``app.server.worker.IDLE_SECONDS``)."""

RETIRE, STOP, ADOPT, RELEASE = "retire", "stop", "adopt", "release"
"""Requests of the parent: make way for the successor, shut down, accept for another slot, stop doing so."""

_dumps = json.dumps  # bound now: agents' code may patch the module
# starts with a newline, so that it is a line of its own even after a partial line of other code
_ALIVE = b'\n{"alive": true}\n'
_LEAVING = b'\n{"leaving": true}\n'
_MAX_TEXT = 2000
"""Characters of a text: the parent ignores long messages."""


class WorkerPipes(NamedTuple):
    """File descriptors of a worker: ``link`` to the parent, ``control`` from it, ``lifeline``, which closes with it.

    ``stacks`` receives the stacks of its threads (``app.server.worker_handle.DUMP_STACKS``).
    """

    link: int
    control: int
    lifeline: int
    stacks: int


class WorkerContext:
    """A worker's identity, sockets and pipes.

    ``number`` identifies the worker among those that run at the same time, ``slot`` its socket among ``listeners``;
    both count from 1. ``seconds`` bounds the shutdown. ``metrics`` is the listener for metrics if they have a port of
    their own.
    """

    def __init__(
        self, number: int, slot: int, listeners: Sequence[socket.socket], pipes: WorkerPipes, seconds: float
    ) -> None:
        self.number = number
        self.slot = slot
        self.listeners = list(listeners)
        self.metrics: socket.socket | None = None
        self.pipes = pipes
        self.seconds = seconds
        self._text = b""

    @property
    def listener(self) -> socket.socket:
        """The socket on which this worker accepts connections."""
        return self.listeners[self.slot - 1]

    def ready(self, about: dict[str, str]) -> None:
        """Report that this worker serves."""
        self._send({"ready": {name: text[:_MAX_TEXT] for name, text in about.items()}})

    def heartbeat(self) -> None:
        """Report that the event loop is responsive."""
        os.write(self.pipes.link, _ALIVE)

    def leave(self) -> None:
        """Ask for a successor, and for retirement once it serves."""
        os.write(self.pipes.link, _LEAVING)

    def busy(self, work: str) -> None:
        """Report the run or request that the main thread is processing. Called by a signal handler."""
        self._send({"busy": work[:500]})

    def failed(self, sentence: str, *, usage: bool = False) -> None:
        """Report why this worker cannot serve; it exits next."""
        self._send({"failed": sentence[:_MAX_TEXT], "usage": usage})

    def requests(self) -> list[tuple[str, int]]:
        """Return the parent's requests since the last call, each with a slot or 0; ``STOP`` if the parent has died."""
        chunk = os.read(self.pipes.control, 4096)
        if not chunk:
            return [(STOP, 0)]
        *lines, self._text = (self._text + chunk).split(b"\n")
        words = [line.decode().split() for line in lines]
        return [(word, int(rest[0]) if rest else 0) for word, *rest in words]

    def _send(self, message: object) -> None:
        line = b"\n" + _dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self.pipes.link, line) :]


def summarize_error(error: BaseException) -> str:
    """Describe an unexpected error in one line: the lines after the first may contain SQL."""
    words = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {words}; set LOG_LEVEL=debug for the traceback"
