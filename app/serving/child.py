"""A running worker, as its parent knows it."""

import json
import os
import signal
import time

from app.base.errors import StartError


class Worker:
    """Its number among the workers, its process, and the pipe by which it tells of itself."""

    def __init__(self, number: int, pid: int, link: int) -> None:
        self.number = number
        self.pid = pid
        self.link = link
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
