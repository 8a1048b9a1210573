"""A running worker, as its parent knows it."""

import contextlib
import json
import os
import signal
import time

from app.base.errors import StartError

TELL_STACKS = signal.SIGUSR2
"""Has a worker write the stacks of all its threads, whatever its interpreter does meanwhile (``faulthandler``)."""

STACKS_SECONDS = 1.0
"""How long it may take to do so before it is killed."""

MOST_STACK = 3000
"""Characters of one stack, the innermost calls first: with its fields it is a line that a pipe takes whole."""


class Worker:
    """Its number among the workers, its process, and the pipes by which it tells of itself, and where it hangs."""

    def __init__(self, number: int, pid: int, link: int, stacks: int) -> None:
        self.number = number
        self.pid = pid
        self.link = link
        self._stacks = stacks
        self._asked = 0.0  # when it was asked for its stacks
        self.born = self.heard = time.monotonic()
        self.spread = os.urandom(1)[0] / 255
        self.ready = False
        self.leaving = False
        self.leaves_by = 0.0
        self.failure: StartError | None = None
        self._text = b""

    def hear(self) -> list[dict[str, object]]:
        """What it has said since the last time."""
        try:
            while chunk := os.read(self.link, 65536):
                self._text += chunk
        except BlockingIOError:
            pass
        *lines, self._text = self._text.split(b"\n")
        return [json.loads(line) for line in lines]

    def leave(self, seconds: float) -> None:
        """Let it end in order, within ``seconds``."""
        if not self.leaving:
            self.leaving = True
            self.leaves_by = time.monotonic() + seconds
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it ``number``; it is not reaped yet, so the number is its own."""
        os.kill(self.pid, number)

    def has_told_stacks(self) -> bool:
        """Ask it where it hangs, when nobody has yet; whether the time to answer is over."""
        now = time.monotonic()
        if not self._asked:
            self._asked = now
            self.signal(TELL_STACKS)
        return now - self._asked > STACKS_SECONDS

    def stacks(self) -> list[str]:
        """The stack of each of its threads, as far as it could tell them."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._stacks, 65536):
                text += chunk
        return [stack.strip()[:MOST_STACK] for stack in text.decode(errors="replace").split("\n\n") if stack.strip()]

    def goes_on(self) -> None:
        """It is not stuck, or not any more: what it told of a moment that is over is forgotten."""
        if self._asked:
            self._asked = 0.0
            self.stacks()

    def close(self) -> None:
        """Close its pipes."""
        os.close(self.link)
        os.close(self._stacks)
