"""A running worker, as its parent knows it. Whatever a worker says is foreign: its agents' code runs beside its own."""

import contextlib
import json
import os
import signal
import time
from collections import deque
from typing import NamedTuple

from app.base.errors import StartError
from app.server.worker_context import LINGER_SECONDS, RETIRE, STOP

TELL_STACKS = signal.SIGUSR2
"""Has a worker write the stacks of all its threads, whatever its interpreter does meanwhile (``faulthandler``)."""

STACKS_SECONDS = 1.0
"""How long it may take to do so before it is killed."""

MAX_STACK = 3000
"""Characters of one stack, the innermost calls first: with its fields it is a line that a pipe takes whole."""

MAX_STACKS = 8
"""Stacks of one worker that are logged; the last is that of the main thread, which is always among them."""

DUMP_BYTES = 1 << 16

MAX_LINE = 16_384
"""Bytes of one message."""

BYTES_PER_SECOND = 1 << 16
"""What a worker may say; a flood waits in its pipe, and in the end holds up the worker alone."""

MAX_FACTS = 16
MAX_NAME, MAX_TEXT = 40, 4000


class WorkerMessage(NamedTuple):
    """A message of a worker: its ``kind``, and what belongs to it."""

    kind: str
    text: str = ""
    about: dict[str, str] = {}  # noqa: RUF012  nothing changes it
    usage: bool = False


class WorkerHandle:
    """Its number, its slot, its process, and the pipes between it and its parent.

    ``ready``: it has begun to serve; ``going``: a successor was asked for; ``leaving``: it was asked to end by
    ``leaves_by``. ``adopted``: further slots for which it accepts connections.
    """

    def __init__(self, number: int, slot: int, pid: int, pipes: tuple[int, int, int]) -> None:
        self.number = number
        self.slot = slot
        self.pid = pid
        self.link, self._stacks, self._control = pipes
        self._asked = 0.0  # when it was asked for its stacks
        self.born = self.last_beat = time.monotonic()
        self.spread = os.urandom(1)[0] / 255
        self.ready = self.going = self.leaving = self.stopped = self.killed = False
        self.abandoned = False
        self.leaves_by = 0.0
        self.adopted: set[int] = set()
        self.failure: StartError | None = None
        self.busy = ""
        self.ignored = 0
        """Messages that were none."""
        self.quiet_until = 0.0
        """It has said too much: it is not listened to before this moment."""
        self.link_open = True
        self._text = b""
        self._said: deque[tuple[float, int]] = deque()

    @property
    def serves(self) -> bool:
        """Whether it accepts connections of its slot."""
        return self.ready and not self.leaving

    def messages(self, *, last: bool = False) -> list[WorkerMessage]:
        """What it has said since the last time, as far as that can be understood. ``last``: it has ended."""
        now = time.monotonic()
        if not self.link_open or (now < self.quiet_until and not last):
            return []
        try:
            chunk = os.read(self.link, BYTES_PER_SECOND)
        except BlockingIOError:
            return []
        self.link_open = bool(chunk)
        self._count(now, len(chunk))
        *lines, self._text = (self._text + chunk).split(b"\n")
        if len(self._text) > MAX_LINE:
            self._text = b"?"  # the rest of this line is none either
        found = [_message(line) for line in lines if line]
        self.ignored += found.count(None)
        return [message for message in found if message is not None]

    def _count(self, now: float, size: int) -> None:
        self._said.append((now, size))
        while self._said[0][0] < now - 1.0:
            self._said.popleft()
        if sum(each for _, each in self._said) >= BYTES_PER_SECOND:
            self.quiet_until = now + 1.0

    def ask(self, request: str, slot: int = 0) -> None:
        """Ask it something (``app.server.worker_context``); one that reads nothing any more is not waited for."""
        with contextlib.suppress(OSError):
            os.write(self._control, f"{request} {slot}\n".encode())

    def retire(self, seconds: float) -> None:
        """Its successor serves: let it end in order, its drain within ``seconds``, and then when its clients left."""
        if not self.leaving:
            self.leaving = True
            self.leaves_by = time.monotonic() + seconds + LINGER_SECONDS
            self.ask(RETIRE)

    def stop(self, seconds: float) -> None:
        """Let it end in order within ``seconds``; one that does not serve yet ends at once."""
        if not self.ready:
            self.signal(signal.SIGTERM)
        if not self.stopped:
            self.leaving = self.stopped = True
            self.leaves_by = time.monotonic() + seconds
            self.ask(STOP)

    def signal(self, number: signal.Signals) -> None:
        """Send it ``number``; it is not reaped yet, so the process id is its own."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it now."""
        self.killed = True
        self.signal(signal.SIGKILL)

    def has_dumped_stacks(self) -> bool:
        """Ask it where it hangs, if that was not asked yet; whether the time to answer is over."""
        now = time.monotonic()
        if not self._asked:
            self._asked = now
            self.busy = ""
            self.signal(TELL_STACKS)
        return now - self._asked > STACKS_SECONDS

    def stacks(self) -> list[str]:
        """The stacks of its threads, ``MAX_STACKS`` of them at most, the main thread's last."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while len(text) < DUMP_BYTES and (chunk := os.read(self._stacks, DUMP_BYTES)):
                text += chunk
        found = [stack.strip()[:MAX_STACK] for stack in text.decode(errors="replace").split("\n\n")]
        return [stack for stack in found if stack][-MAX_STACKS:]

    def goes_on(self) -> None:
        """It is not stuck, or not any more: what it said of a moment that is over is forgotten."""
        if self._asked:
            self._asked = 0.0
            self.stacks()

    def close(self) -> None:
        """Close its pipes."""
        for end in (self.link, self._stacks, self._control):
            os.close(end)


def _message(line: bytes) -> WorkerMessage | None:
    """The message in ``line``; None for a line that is none."""
    if len(line) > MAX_LINE:
        return None
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    for kind in ("alive", "leaving"):
        if said.get(kind) is True:
            return WorkerMessage(kind)
    if isinstance(about := said.get("ready"), dict):
        return WorkerMessage("ready", about=_facts(about))
    for kind in ("failed", "busy"):
        if isinstance(text := said.get(kind), str):
            return WorkerMessage(kind, _plain(text, MAX_TEXT), usage=said.get("usage") is True)
    return None


def _facts(about: dict[str, object]) -> dict[str, str]:
    named = {name: text for name, text in about.items() if name.isidentifier() and isinstance(text, str)}
    return {name[:MAX_NAME]: _plain(text, MAX_TEXT) for name, text in list(named.items())[:MAX_FACTS]}


def _plain(text: str, length: int) -> str:
    """``text`` in one line that moves no cursor and breaks no encoding."""
    return "".join(char if char.isprintable() else " " for char in text[:length])
