"""Incremental parser of server-sent events (WHATWG HTML, "Server-sent events", section on parsing).

Only the ``data`` of events is parsed; comments and other fields are skipped, because both providers' APIs repeat the
event's type inside its data.
"""


class LineTooLong(ValueError):
    """A line or an event exceeds the reader's size limit."""


class SseReader:
    """Parse bytes to the data of whole events. ``cap``: limit in bytes of a line and of the joined data of an event."""

    __slots__ = ("_after_cr", "_cap", "_lines", "_rest", "_size")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that ``data`` completes, in order; events without data are skipped.

        Raises ``LineTooLong``; do not use the reader afterwards.
        """
        if self._after_cr or b"\r" in data:
            data = self._newlines(data)
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        if rest:
            self._rest += rest
            if len(self._rest) > self._cap:
                raise LineTooLong
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        held, cap = self._lines, self._cap
        for line in lines:
            if not line:
                if held:
                    if event := held[0] if len(held) == 1 else b"\n".join(held):
                        events.append(event)
                    held.clear()
                self._size = 0
                continue
            if line.startswith(b"data:"):
                held.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                held.append(b"")
            self._size += len(line)
            if self._size > cap:
                raise LineTooLong
        return events

    def _newlines(self, data: bytes) -> bytes:
        """Normalise the format's three line endings to a line feed, even if a read splits a CR LF pair."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
