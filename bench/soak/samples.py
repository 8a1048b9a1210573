"""Samples of a server's resources from its metrics, processes and database."""

import re
import time
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import asyncpg

from bench.processes import PAGE, family

GAUGES = {
    "tasks": "agent_event_loop_tasks",
    "descriptors": "process_unix_file_descriptor_count",
    "open streams": "agent_streams_open",
    "runs worked on": "agent_runs_active",
    "waiting for a connection": "db_client_connection_pending_requests",
    "runs in the queue": "agent_queue_depth",
}
CONNECTIONS = re.compile(r'^db_client_connection_count\{[^}]*state="(used|idle)"[^}]*\} (\S+)$', re.MULTILINE)

UNENDED = "select count(*) from runs where status in ('pending', 'running')"
UNTOLD = "select count(*) from webhook_deliveries where status <> 'delivered'"


class Memory(NamedTuple):
    """Resident memory of a worker, ``seconds`` after the start of the load."""

    seconds: float
    megabytes: float


def workers(pid: int) -> list[int]:
    """The worker processes of the server, oldest first."""
    return sorted(one for one in family(pid) if one != pid)


def resident(pid: int) -> float:
    """Megabytes; 0 for a process that has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (OSError, IndexError):
        return 0.0


def gauges(port: int) -> dict[str, float]:
    """Return the totals of all workers from the metrics page."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    found = {}
    for name, metric in GAUGES.items():
        found[name] = sum(float(one) for one in re.findall(rf"^{metric}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE))
    connections = CONNECTIONS.findall(page)
    found["connections in use"] = sum(float(count) for state, count in connections if state == "used")
    # pools keep connections open, up to their size
    found["descriptors"] -= sum(float(count) for _, count in connections)
    return found


async def left_over(url: str) -> dict[str, int]:
    """Count unfinished work in the database."""
    connection = await asyncpg.connect(url)
    try:
        return {
            "runs that have not ended": int(await connection.fetchval(UNENDED)),
            "webhooks not delivered": int(await connection.fetchval(UNTOLD)),
        }
    finally:
        await connection.close()


class Watch:
    """The memory of one worker over time."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.seen: list[Memory] = []
        self._began = time.monotonic()

    def look(self) -> None:
        """Take one sample."""
        if (now := resident(self.pid)) > 0:
            self.seen.append(Memory(round(time.monotonic() - self._began, 1), round(now, 2)))
