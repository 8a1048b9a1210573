"""Exclusive lock on a directory, held by the kernel until its holder exits, even after a crash."""

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path
from typing import IO

from app.base.clock import now
from app.base.errors import StartError

LEAVING_SECONDS = 15.0
"""Time for the workers of a killed holder to exit."""


class FolderLock:
    """``lock`` in ``folder``: an advisory lock (flock(2)) on a file that names its holder and the time.

    Forked children hold it too, until the last one has exited.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None
        self._holder = 0

    @property
    def is_mine(self) -> bool:
        """Whether this very process holds it."""
        return self._file is not None and self._holder == os.getpid()

    def take(self) -> None:
        """Acquire the lock; wait while only workers of a dead holder remain. Raises ``StartError``, ``OSError``."""
        with contextlib.ExitStack() as undo:
            file = undo.enter_context((self._folder / "lock").open("a+"))
            deadline = time.monotonic() + LEAVING_SECONDS
            while not _try_lock(file):
                file.seek(0)
                holder = file.read().strip()
                if _is_alive(holder) or time.monotonic() > deadline:
                    raise StartError(
                        f"the data folder {self._folder} is in use by {holder or 'another program'}: stop it, or "
                        f"pass another --data-dir"
                    )
                time.sleep(0.05)
            file.truncate(0)
            file.write(f"process {os.getpid()} since {now():%Y-%m-%dT%H:%M:%SZ}\n")
            file.flush()
            undo.pop_all()
        self._file, self._holder = file, os.getpid()

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(holder: str) -> bool:
    named = re.match(r"process (\d+) ", holder)
    try:
        os.kill(int(named[1]) if named else os.getpid(), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
