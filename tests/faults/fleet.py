"""Server processes on one database, with the faults injected into them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.journeys.conftest import Served
from tests.outages import children_of
from tests.ports import free_port

AGENTS = Path(__file__).parent / "agents" / "agents.toml"
LEASE_SECONDS = 3
STARTS_FAIL = re.compile(r"before it was ready|database cannot be reached|database connection broke|port \d+ is in use")
"""What a server prints that exits because it could not start."""


class Witness:
    """The process of ``tests.faults.witness``; ``rate`` of the requests to its model fail once."""

    def __init__(self, folder: Path, rate: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.witness", str(folder / "ledger.jsonl"), str(rate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url, self.model = self._process.stdout.readline().split()

    def report(self) -> dict[str, list[dict[str, object]]]:
        """Return all effects and model requests."""
        found: dict[str, list[dict[str, object]]] = httpx.get(self.url).json()
        return found

    def effects(self, key: str) -> int:
        """Count the effects of the call with ``key``."""
        return int(httpx.get(f"{self.url}/effects", params={"key": key}).json()["count"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


class Fleet:
    """``size`` servers that can be killed, frozen, stopped gracefully and restarted."""

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
        self.unexpected_exits: list[str] = []
        """What servers printed that exited although nothing had been done to them."""
        self.servers = [self._serve() for _ in range(size)]
        for server in self.servers:
            server.wait_until_ready()

    def _serve(self, **settings: str) -> Served:
        port = settings.get("PORT") or str(free_port())
        own = {"PORT": port, "OPENAI_API_KEY": f"server-{port}"}  # identifies the server to the model
        return Served(self._database_url, self._folder, **{**self._settings, **settings, **own})

    def add(self, **settings: str) -> Served:
        """Start another server with its own settings, which it keeps over restarts."""
        server = self._serve(**settings).wait_until_ready()
        self.servers.append(server)
        return server

    def bases(self) -> list[str]:
        """Return the base URLs of all servers."""
        return [server.base for server in self.servers]

    def restart(self, index: int) -> None:
        """Start a stopped server again with its address and settings."""
        self.servers[index] = self._serve(**self.servers[index].environment)

    def kill(self, index: int) -> None:
        """SIGKILL to the parent and its workers, then start again."""
        kill_tree(self.servers[index].process.pid)
        self.servers[index].process.wait(10)
        self.restart(index)

    def kill_worker(self, index: int) -> None:
        """SIGKILL to the workers: the parent starts others."""
        for pid in children_of(self.servers[index].process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self, index: int, seconds: float) -> None:
        """SIGSTOP for ``seconds``, then SIGCONT: a process that still believes it owns its runs."""
        pids = [self.servers[index].process.pid, *children_of(self.servers[index].process.pid)]
        for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(pause)

    def roll(self, index: int) -> None:
        """Stop gracefully with SIGTERM, then start again."""
        self.start_exited()
        server = self.servers[index]
        if server.stop() != 0:
            self._record_exit(server)
        self.restart(index)

    def start_exited(self) -> None:
        """Start servers again that have exited, as an orchestrator does.

        A server exits whose first worker was killed, or had no database, before it was ready; or whose predecessor's
        last worker still listens, since it has not noticed yet that its parent was killed. Others are recorded.
        """
        for index, server in enumerate(self.servers):
            if server.process.poll() is not None:
                self._record_exit(server)
                self.restart(index)

    def _record_exit(self, server: Served) -> None:
        output = _output(server)
        if not STARTS_FAIL.search(output):
            self.unexpected_exits.append(f"a server exited with {server.process.returncode}: {output}")

    def close(self) -> None:
        for server in self.servers:
            kill_tree(server.process.pid)
            server.process.wait(10)


def _output(server: Served) -> str:
    lines = [line for line in server.log.read_text().splitlines() if "request_refused" not in line]
    return "\n".join(lines[-40:])


def kill_tree(pid: int) -> None:
    """Send SIGKILL to a process and its children."""
    children = children_of(pid)
    for one in (pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
