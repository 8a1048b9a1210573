"""A PostgreSQL server that tests can freeze, thaw and crash."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import asyncpg

from app.infra.db.embedded import EmbeddedDatabase


class Server(EmbeddedDatabase):
    """A server that can be frozen, which keeps its connections without answering, and crashed."""

    url = ""

    def begin(self) -> None:
        self.url = self.start()

    def start_on(self, port: int) -> None:
        """Start a server that also listens on TCP, at ``port``, which is also that of the socket."""
        self.url = self.start().replace("port=5432", f"port={port}")

    def ask_for_passwords(self, user: str) -> None:
        """Require a password of ``user``, effective after a reload of the configuration."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def crash(self) -> None:
        """Stop immediately and start again: committed data remain, ``url`` changes."""
        postmaster = self._data / "postmaster.pid"
        os.kill(int(postmaster.read_text().split()[0]), signal.SIGQUIT)
        while postmaster.exists():
            time.sleep(0.01)
        self.stop()
        self.begin()

    def restart(self) -> None:
        """Stop fast, which ends all connections, and start again; ``url`` may change."""
        self.stop()
        self.begin()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(FileNotFoundError):
            first = int((self._data / "postmaster.pid").read_text().split()[0])
            os.kill(first, number)  # the postmaster first, so that it starts no unfrozen children
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


class Operator:
    """Who cancels statements; ``connection`` is that of a superuser."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.cancelled = 0
        self._one = asyncio.Lock()

    async def cancel(self, connection: asyncpg.Connection) -> None:
        """Have a statement on ``connection`` cancelled. Raises the ``QueryCanceledError`` of the server."""
        asked = asyncio.ensure_future(connection.execute("select pg_sleep(10)"))
        while not asked.done():
            async with self._one:
                await self.connection.execute("select pg_cancel_backend($1)", connection.get_server_pid())
            await asyncio.wait([asked], timeout=0.005)
        self.cancelled += 1
        await asked
