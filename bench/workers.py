"""Runs per second of one worker process against two: a part of ``python -m bench.across``.

Both servers run on one PostgreSQL, each on a database of its own, and take turns; the other is idle.
"""

import asyncio
import contextlib
import statistics
import sys
from pathlib import Path
from typing import Any

from app.infra.db import migrations
from bench.figures import Load
from bench.load import Target, closed
from bench.operations import echo
from bench.processes import free_port, serving
from bench.starting import READY
from tests.database import at, execute

CLIENTS = 64
COUNTS = (1, 2)


def measure(url: str, postgres: int, folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """``echo`` on a new thread, waited for, by 64 clients; ``postgres`` is the database process."""
    loads: dict[int, list[Load]] = {count: [] for count in COUNTS}
    with contextlib.ExitStack() as stack:
        targets = {}
        for count in COUNTS:
            name = f"workers_{count}"
            asyncio.run(execute(url, f"create database {name}"))
            migrations.upgrade(at(url, name))
            port = free_port()
            settings = {"DATABASE_URL": at(url, name), "AGENT_AUTH": "none", "LOG_LEVEL": "warning"}
            command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--workers", str(count)]
            server = stack.enter_context(serving(command, port, READY, folder, **settings))
            targets[count] = Target(port, server.pid, postgres)
        for n in range(rounds):
            for count in COUNTS if n % 2 == 0 else reversed(COUNTS):
                loads[count].append(closed("echo", targets[count], echo, clients=CLIENTS, seconds=seconds))
    if errors := [error for many in loads.values() for load in many for error in load.errors]:
        raise SystemExit(f"{len(errors)} requests failed: {errors[0]}")
    found = {str(count): _figures(loads[count]) for count in COUNTS}
    ratios = [two.per_second / one.per_second for one, two in zip(loads[1], loads[2], strict=True)]
    return {
        **found,
        "two over one": round(statistics.median(ratios), 2),
        "of each round": [round(r, 2) for r in ratios],
    }


def _figures(loads: list[Load]) -> dict[str, Any]:
    return {
        "runs_per_second": statistics.median(load.per_second for load in loads),
        "p50_ms": statistics.median(load.p50_ms for load in loads),
        "server_us_a_run": statistics.median(load.server_us for load in loads),
        "postgres_us_a_run": statistics.median(load.postgres_us for load in loads),
        "client_us_a_run": statistics.median(load.client_us for load in loads),
    }
