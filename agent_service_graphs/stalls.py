"""Find the code that blocks the event loop of the worker, from a thread that watches it and the parent process."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

STALL_SECONDS = 1.0
"""A loop that has not turned for so long is blocked."""
POLL_SECONDS = 0.25


class StallWatch:
    """Calls ``on_stall`` with the place, innermost last, once for each time that the loop is blocked.

    Ends the process when its parent has ended, which a blocked loop does not notice.
    """

    def __init__(self, on_stall: Callable[[float, list[str]], None], seconds: float = STALL_SECONDS) -> None:
        self._on_stall = on_stall
        self._seconds = seconds
        self._turned_at = time.monotonic()
        self._loop_thread = threading.get_ident()
        self._reported = False
        self._parent = os.getppid()

    def start(self) -> None:
        """Begin to watch, from the loop's thread."""
        self.turn()
        threading.Thread(target=self._watch, name="stalls", daemon=True).start()

    def turn(self) -> None:
        """Note that the loop turns; call it from a timer in the loop."""
        self._turned_at = time.monotonic()
        self._reported = False

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            if os.getppid() != self._parent:
                os._exit(1)
            blocked = time.monotonic() - self._turned_at
            if blocked < self._seconds + POLL_SECONDS or self._reported:
                continue
            frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  documented, in spite of its name
            self._reported = True
            if frame is not None:
                stack = traceback.extract_stack(frame)
                self._on_stall(blocked, [f"{one.filename}:{one.lineno} {one.name}" for one in stack])
