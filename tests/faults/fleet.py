"""Server processes on one database, and what is done to them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.journeys.conftest import Served, free_port
from tests.outages import children_of

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
LEASE_SECONDS = 3


class Witness:
    """The process of ``tests.faults.witness``; ``rate`` of the questions to its model are refused once."""

    def __init__(self, folder: Path, rate: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.witness", str(folder / "ledger.jsonl"), str(rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url, self.model = self._process.stdout.readline().split()

    def says(self) -> dict[str, list[dict[str, object]]]:
        """Every effect and every question to the model."""
        told: dict[str, list[dict[str, object]]] = httpx.get(self.url).json()
        return told

    def effects(self, key: str) -> int:
        """How often the call with ``key`` has happened."""
        return int(httpx.get(f"{self.url}/effects", params={"key": key}).json()["count"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class Fleet:
    """``size`` servers, started together; each can be killed, paused, stopped in order, and started again."""

    def __init__(self, database_url: str, folder: Path, witness: Witness, size: int, **settings: str) -> None:
        self._database_url = database_url
        self._folder = folder
        self._settings = {
            "AGENT_CONFIG": str(AGENTS),
            "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
            "AGENT_DRAIN_SECONDS": "2",
            "AGENT_KEEP_TRANSITIONS_DAYS": "0",  # the checker reads them all
            "FAULTS_LEDGER": witness.url,
            "OPENAI_BASE_URL": witness.model,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **settings,
        }
        self.servers = [self._serve() for _ in range(size)]
        for server in self.servers:
            server.wait_until_ready()

    def _serve(self, **settings: str) -> Served:
        port = settings.get("PORT") or str(free_port())
        own = {"PORT": port, "OPENAI_API_KEY": f"server-{port}"}  # so that the model knows who asks
        return Served(self._database_url, self._folder, **{**self._settings, **settings, **own})

    def add(self, **settings: str) -> Served:
        """One more server, with settings of its own, which it keeps over restarts."""
        server = self._serve(**settings).wait_until_ready()
        self.servers.append(server)
        return server

    def bases(self) -> list[str]:
        """The addresses of all."""
        return [server.base for server in self.servers]

    def restart(self, place: int) -> None:
        """Start the server at ``place`` again, under its address and with its settings."""
        self.servers[place] = self._serve(**self.servers[place].environment)

    def kill(self, place: int) -> None:
        """kill -9 of the parent and its workers, and a new start."""
        kill_tree(self.servers[place].process.pid)
        self.servers[place].process.wait(10)
        self.restart(place)

    def kill_worker(self, place: int) -> None:
        """kill -9 of a worker: its parent starts another."""
        for pid in children_of(self.servers[place].process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self, place: int, seconds: float) -> None:
        """SIGSTOP for longer than a lease, then SIGCONT: a zombie that still believes in its runs."""
        pids = [self.servers[place].process.pid, *children_of(self.servers[place].process.pid)]
        for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(pause)

    def roll(self, place: int) -> None:
        """SIGTERM, and a new start once it has ended in order.

        A server whose first worker was killed before it was ready has ended by itself already.
        """
        server = self.servers[place]
        if server.process.poll() is None:
            code = server.stop()
            lines = [line for line in server.log.read_text().splitlines() if "request_refused" not in line]
            said = "\n".join(lines[-40:])
            assert code == 0 or "before it was ready" in said, f"exit code {code} after SIGTERM: {said}"
        self.restart(place)

    def close(self) -> None:
        for server in self.servers:
            kill_tree(server.process.pid)
            server.process.wait(10)


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and those that it has started."""
    children = children_of(pid)
    for one in (pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
