"""The parent's handle of a running worker. Its messages are untrusted: agents' code runs in the same process."""

import contextlib
import json
import os
import signal
import time
from collections import deque
from typing import NamedTuple

from app.base.errors import StartError
from app.server.worker_context import LINGER_SECONDS, RETIRE, STOP

DUMP_STACKS = signal.SIGUSR2
"""Signal on which a worker dumps the stacks of all its threads, even if its interpreter hangs (``faulthandler``)."""

DUMP_SECONDS = 1.0
"""Timeout of a stack dump, after which the worker is killed."""

MAX_STACK = 3000
"""Characters of one stack, innermost calls first: the log line must fit an atomic write to a pipe."""

MAX_STACKS = 8
"""Stacks logged for one worker; the last is the main thread's, which is always included."""

DUMP_BYTES = 1 << 16

MAX_LINE = 16_384
"""Bytes of one message."""

BYTES_PER_SECOND = 1 << 16
"""Rate limit of a worker's messages; a flood waits in the pipe and blocks only that worker."""

MAX_FACTS = 16
MAX_NAME, MAX_TEXT = 40, 4000


class WorkerMessage(NamedTuple):
    """A message of a worker: its ``kind`` and payload."""

    kind: str
    text: str = ""
    about: dict[str, str] = {}  # noqa: RUF012  nothing changes it
    usage: bool = False


class WorkerHandle:
    """A worker's number, slot, process, pipes and state.

    ``ready``: it serves; ``successor_requested``: a successor is to be started; ``leaving``: it was asked to exit by
    ``leaves_by``. ``adopted``: further slots for which it accepts connections.
    """

    def __init__(self, number: int, slot: int, pid: int, pipes: tuple[int, int, int]) -> None:
        self.number = number
        self.slot = slot
        self.pid = pid
        self.link, self._stacks, self._control = pipes
        self._dump_requested_at = 0.0
        self.started_at = self.last_beat = time.monotonic()
        self.jitter = os.urandom(1)[0] / 255
        self.ready = self.successor_requested = self.leaving = self.stopped = self.killed = False
        self.abandoned = False
        self.leaves_by = 0.0
        self.adopted: set[int] = set()
        self.failure: StartError | None = None
        self.busy = ""
        self.invalid_messages = 0
        """How many messages were invalid."""
        self.muted_until = 0.0
        """Its messages exceeded the rate limit: the pipe is not read before this moment."""
        self.link_open = True
        self._text = b""
        self._received: deque[tuple[float, int]] = deque()

    @property
    def serves(self) -> bool:
        """Whether it accepts connections on its slot."""
        return self.ready and not self.leaving

    def messages(self, *, last: bool = False) -> list[WorkerMessage]:
        """Read the valid messages since the last call. ``last``: the worker has exited."""
        now = time.monotonic()
        if not self.link_open or (now < self.muted_until and not last):
            return []
        try:
            chunk = os.read(self.link, BYTES_PER_SECOND)
        except BlockingIOError:
            return []
        self.link_open = bool(chunk)
        self._throttle(now, len(chunk))
        *lines, self._text = (self._text + chunk).split(b"\n")
        if len(self._text) > MAX_LINE:
            self._text = b"?"  # the rest of this line is invalid, too
        found = [_message(line) for line in lines if line]
        self.invalid_messages += found.count(None)
        return [message for message in found if message is not None]

    def _throttle(self, now: float, size: int) -> None:
        self._received.append((now, size))
        while self._received[0][0] < now - 1.0:
            self._received.popleft()
        if sum(each for _, each in self._received) >= BYTES_PER_SECOND:
            self.muted_until = now + 1.0

    def ask(self, request: str, slot: int = 0) -> None:
        """Send a request (``app.server.worker_context``); dropped if the worker no longer reads."""
        with contextlib.suppress(OSError):
            os.write(self._control, f"{request} {slot}\n".encode())

    def retire(self, seconds: float) -> None:
        """Ask it to make way for its successor: drain within ``seconds``, exit when its clients have left."""
        if not self.leaving:
            self.leaving = True
            self.leaves_by = time.monotonic() + seconds + LINGER_SECONDS
            self.ask(RETIRE)

    def stop(self, seconds: float) -> None:
        """Ask it to shut down gracefully within ``seconds``; one that does not serve yet exits at once."""
        if not self.ready:
            self.signal(signal.SIGTERM)
        if not self.stopped:
            self.leaving = self.stopped = True
            self.leaves_by = time.monotonic() + seconds
            self.ask(STOP)

    def signal(self, number: signal.Signals) -> None:
        """Send signal ``number``; the process is not reaped yet, so the process id is still its own."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.killed = True
        self.signal(signal.SIGKILL)

    def has_dumped_stacks(self) -> bool:
        """Request a stack dump unless one is pending; return whether its timeout has passed."""
        now = time.monotonic()
        if not self._dump_requested_at:
            self._dump_requested_at = now
            self.busy = ""
            self.signal(DUMP_STACKS)
        return now - self._dump_requested_at > DUMP_SECONDS

    def stacks(self) -> list[str]:
        """Return the dumped stacks of its threads, at most ``MAX_STACKS``, the main thread's last."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while len(text) < DUMP_BYTES and (chunk := os.read(self._stacks, DUMP_BYTES)):
                text += chunk
        found = [stack.strip()[:MAX_STACK] for stack in text.decode(errors="replace").split("\n\n")]
        return [stack for stack in found if stack][-MAX_STACKS:]

    def mark_responsive(self) -> None:
        """Note that it is not stuck: discard a pending stack dump."""
        if self._dump_requested_at:
            self._dump_requested_at = 0.0
            self.stacks()

    def close(self) -> None:
        """Close its pipes."""
        for end in (self.link, self._stacks, self._control):
            os.close(end)


def _message(line: bytes) -> WorkerMessage | None:
    """Parse ``line``; None if it is not a valid message."""
    if len(line) > MAX_LINE:
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    for kind in ("alive", "leaving"):
        if value.get(kind) is True:
            return WorkerMessage(kind)
    if isinstance(about := value.get("ready"), dict):
        return WorkerMessage("ready", about=_strings(about))
    for kind in ("failed", "busy"):
        if isinstance(text := value.get(kind), str):
            return WorkerMessage(kind, _printable(text, MAX_TEXT), usage=value.get("usage") is True)
    return None


def _strings(about: dict[str, object]) -> dict[str, str]:
    named = {name: text for name, text in about.items() if name.isidentifier() and isinstance(text, str)}
    return {name[:MAX_NAME]: _printable(text, MAX_TEXT) for name, text in list(named.items())[:MAX_FACTS]}


def _printable(text: str, length: int) -> str:
    """``text`` in one line, without control characters and surrogates."""
    return "".join(char if char.isprintable() else " " for char in text[:length])
