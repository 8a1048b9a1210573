"""A PostgreSQL of a test's own that can be frozen, thawed and crashed; and whose child a process is."""

import contextlib
import os
import signal
import time
from pathlib import Path

from app.infra.db.embedded import EmbeddedDatabase


class Server(EmbeddedDatabase):
    """A server that can be frozen, which keeps its connections and answers nothing, and crashed."""

    url = ""

    def begin(self) -> None:
        self.url = self.start()

    def start_on(self, port: int) -> None:
        """Start where TCP is listened on as well, at ``port``, which also names the socket."""
        self.url = self.start().replace("port=5432", f"port={port}")

    def ask_for_passwords(self, user: str) -> None:
        """Let nobody in as ``user`` without one, once the configuration is read anew."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def crash(self) -> None:
        """An immediate stop and a new start: what was committed is there, ``url`` is another."""
        postmaster = self._data / "postmaster.pid"
        os.kill(int(postmaster.read_text().split()[0]), signal.SIGQUIT)
        while postmaster.exists():
            time.sleep(0.01)
        self.stop()
        self.begin()

    def restart(self) -> None:
        """A fast stop, which ends every connection, and a new start; ``url`` may be another."""
        self.stop()
        self.begin()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(FileNotFoundError):
            first = int((self._data / "postmaster.pid").read_text().split()[0])
            os.kill(first, number)  # the postmaster first: what it would start meanwhile is not frozen
            for pid in children_of(first):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


def children_of(parent: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(place.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(place.parent.name))
    return found
