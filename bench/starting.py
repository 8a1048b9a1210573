"""Measure start-up time to the first good response, and idle memory."""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from bench.figures import Start
from bench.processes import Server, free_port, memory_mb, serving

READY = "/api/v1/health/ready"
SETTLE = 2.0
"""Idle seconds before memory is measured."""


def serve(url: str, folder: Path) -> AbstractContextManager[Server]:
    """``serve`` on the PostgreSQL at ``url``, one worker."""
    port = free_port()
    settings = {"DATABASE_URL": url, "AGENT_AUTH": "none", "PORT": str(port), "LOG_LEVEL": "warning", "WORKERS": "1"}
    return serving([sys.executable, "-m", "app", "serve"], port, READY, folder, **settings)


def dev(folder: Path) -> AbstractContextManager[Server]:
    """``dev``, its data below ``folder``."""
    port = free_port()
    return serving([sys.executable, "-m", "app", "dev", "--port", str(port)], port, READY, folder)


def bare(application: str, path: str, folder: Path) -> AbstractContextManager[Server]:
    """An application of ``bench.floors`` on Granian, as bare as the server's own."""
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "--loop", "uvloop"]
    return serving([*command, "--no-ws", "--log-level", "error", f"bench.floors:{application}"], port, path, folder)


def measure(command: str, start: Callable[[], AbstractContextManager[Server]], times: int) -> Start:
    """Measure ``count`` starts after one warm-up; memory is that of the last."""
    seconds = []
    memory = (0.0, 0.0)
    for n in range(times + 1):
        with start() as server:
            seconds.append(round(server.seconds, 3))
            if n == times:
                time.sleep(SETTLE)
                memory = memory_mb(server.pid)
    return Start(command=command, seconds=seconds[1:], rss_mb=memory[0], pss_mb=memory[1])
