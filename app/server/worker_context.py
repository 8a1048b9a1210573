"""What a worker gets from its parent when it starts, and how the two talk: lines over a pipe in each direction."""

import json
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

LINGER_SECONDS = 80.0
"""How long a worker that has a successor may wait for its clients to leave: longer than Granian keeps a connection that
lies idle (``app.server.worker.IDLE_SECONDS``)."""

RETIRE, STOP, ADOPT, RELEASE = "retire", "stop", "adopt", "release"
"""What the parent asks: make way for the successor, end soon, accept for another slot, leave that to its own worker."""

_dumps = json.dumps  # this very function, whatever the user's code makes of the module's
# a line of its own, also after half a line that something else has written
_ALIVE = b'\n{"alive": true}\n'
_LEAVING = b'\n{"leaving": true}\n'
_MAX_TEXT = 2000
"""Characters of a text: messages are short, and the parent ignores what is not."""


class WorkerPipes(NamedTuple):
    """File descriptors of a worker: ``link`` to the parent, ``control`` from it, ``lifeline``, which ends with it.

    ``stacks`` takes the stacks of its threads (``app.server.worker_handle.TELL_STACKS``).
    """

    link: int
    control: int
    lifeline: int
    stacks: int


class WorkerContext:
    """A worker's place.

    ``number`` names the worker among those that run at the same time, ``slot`` its socket among ``listeners``; both
    count from 1. ``seconds`` bound the worker's end. ``metrics`` is where metrics are asked for, when that is a port of
    its own.
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
        """The socket that this worker accepts connections from."""
        return self.listeners[self.slot - 1]

    def ready(self, about: dict[str, str]) -> None:
        """Report that this worker serves."""
        self._send({"ready": {name: text[:_MAX_TEXT] for name, text in about.items()}})

    def alive(self) -> None:
        """Report that the event loop turns."""
        os.write(self.pipes.link, _ALIVE)

    def leave(self) -> None:
        """Ask for a successor, and to be let go once that serves."""
        os.write(self.pipes.link, _LEAVING)

    def busy(self, work: str) -> None:
        """Report what the code works for that the main thread executes right now. Called by a signal handler."""
        self._send({"busy": work[:500]})

    def failed(self, sentence: str, *, usage: bool = False) -> None:
        """Report why this worker cannot serve; the worker ends then."""
        self._send({"failed": sentence[:_MAX_TEXT], "usage": usage})

    def requests(self) -> list[tuple[str, int]]:
        """What the parent has asked since the last call, each with a slot or 0; ``STOP`` when the parent is gone."""
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


def first_words(error: BaseException) -> str:
    """One line for an unexpected error: what follows the first line may hold an SQL text."""
    words = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {words}; set LOG_LEVEL=debug for the traceback"
