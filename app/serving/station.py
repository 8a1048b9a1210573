"""What a worker gets from its parent at its birth, and how it reports back."""

import json
import os
import socket


class Station:
    """A worker's place.

    ``number`` counts from 1. ``lifeline`` is a pipe that ends with the parent, however that dies. ``seconds`` bound the
    worker's end from there. ``metrics`` is where metrics are asked for, when that is a port of its own.
    """

    def __init__(self, number: int, listener: socket.socket, link: int, lifeline: int, seconds: float) -> None:
        self.number = number
        self.listener = listener
        self.metrics: socket.socket | None = None
        self.lifeline = lifeline
        self.seconds = seconds
        self._link = link

    def ready(self, about: dict[str, str]) -> None:
        """Tell the parent that this worker serves."""
        self._send({"ready": about})

    def alive(self) -> None:
        """Tell the parent that the event loop turns."""
        self._send({"alive": True})

    def failed(self, sentence: str, *, usage: bool = False) -> None:
        """Tell the parent why this worker cannot serve; the worker ends then."""
        self._send({"failed": sentence, "usage": usage})

    def _send(self, message: object) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._link, line) :]


def first_words(error: Exception) -> str:
    """One line for an error that nobody foresaw: what follows the first line may hold an SQL text."""
    words = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {words}; set LOG_LEVEL=debug for the traceback"
