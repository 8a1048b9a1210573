"""Sources that change, found by looking at their times: no thread, nothing to install."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

SUFFIX = ".py"
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
LEAST = 0.4
"""Seconds between two looks, at least."""
SHARE = 20
"""A look may take one part in so many of the time: large folders are looked at less often."""


class Changes:
    """The Python files below ``folders``, hidden folders left out, and ``files``, whether they are there yet or not."""

    def __init__(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        self._folders = sorted({folder.resolve() for folder in folders})
        self._files = sorted({str(file.absolute()) for file in files})
        self._known = self._look()

    def found(self) -> str:
        """The path of a file that changed, came or went since the last time; empty when none did or it is too soon."""
        if time.monotonic() < self.due:
            return ""
        before, self._known = self._known, self._look()
        changed = before.items() ^ self._known.items()
        return min(path for path, _ in changed) if changed else ""

    def _look(self) -> dict[str, int]:
        began = time.monotonic()
        seen = dict(entry for folder in self._folders for entry in _times(str(folder)))
        for file in self._files:
            with contextlib.suppress(OSError):
                seen[file] = os.stat(file).st_mtime_ns  # noqa: PTH116  as cheap as the looks above
        now = time.monotonic()
        self.due = now + max(LEAST, (now - began) * SHARE)
        return seen


def _times(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in SKIPPED:
                    yield from _times(entry.path)
            elif entry.name.endswith(SUFFIX):
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:
            continue
