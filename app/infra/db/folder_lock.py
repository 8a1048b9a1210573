"""One program at a time on a folder, also after a crash: the lock is the kernel's and ends with its holder."""

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
"""How long the workers of a holder that was killed may take to leave."""


class FolderLock:
    """``lock`` in ``folder``: an advisory lock (flock(2)) on a file that says who holds it since when.

    Children that the holder forks hold it too, until the last of them has ended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None
        self._holder = 0

    @property
    def is_mine(self) -> bool:
        """Whether this very process has taken it."""
        return self._file is not None and self._holder == os.getpid()

    def take(self) -> None:
        """Take it, waiting while only the workers of a dead holder are left. Raises ``StartError``, ``OSError``."""
        with contextlib.ExitStack() as undo:
            file = undo.enter_context((self._folder / "lock").open("a+"))
            deadline = time.monotonic() + LEAVING_SECONDS
            while not _locked(file):
                file.seek(0)
                words = file.read().strip()
                if _is_alive(words) or time.monotonic() > deadline:
                    raise StartError(
                        f"the data folder {self._folder} is in use by {words or 'another program'}: stop that one, or "
                        f"pass another --data-dir"
                    )
                time.sleep(0.05)
            file.truncate(0)
            file.write(f"process {os.getpid()} since {now():%Y-%m-%dT%H:%M:%SZ}\n")
            file.flush()
            undo.pop_all()
        self._file, self._holder = file, os.getpid()

    def release(self) -> None:
        """Give it free."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(words: str) -> bool:
    named = re.match(r"process (\d+) ", words)
    try:
        os.kill(int(named[1]) if named else os.getpid(), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
