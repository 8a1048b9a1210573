"""``make bench``: the server against the floors of this machine, in one run.

One worker, the embedded PostgreSQL beside it with fsync on, the load client in this process. Absolute figures drift
from machine to machine and from hour to hour: compare ratios. Results are written to ``bench/results/``.
"""

import argparse
import asyncio
import contextlib
import http.client
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from app.db import migrate
from app.db.embedded import EmbeddedDatabase
from bench import load

RESULTS = Path(__file__).parent / "results"
START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], port: int, path: str, **environment: str) -> Iterator[int]:
    """A server of its own process, until the block ends; its pid."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not start")
            time.sleep(0.01)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measure_floor(target: str, path: str, seconds: float) -> load.Figures:
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "--loop", "uvloop"]
    with serving([*command, "--no-ws", "--log-level", "error", target], port, path) as pid:
        ask = load.getting(f"http://127.0.0.1:{port}{path}")
        return asyncio.run(load.run(f"floor {target.rpartition(':')[2]}", pid, ask, clients=64, seconds=seconds))


def measure_service(url: str, seconds: float) -> tuple[list[load.Figures], float, float]:
    """The scenarios, the seconds to ready, and the idle memory."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/api/v1"
    environment = {"DATABASE_URL": url, "AGENT_AUTH": "none", "PORT": str(port), "LOG_LEVEL": "warning"}
    began = time.perf_counter()
    with serving([sys.executable, "-m", "app", "serve"], port, "/api/v1/health/ready", **environment) as pid:
        ready = time.perf_counter() - began
        idle = load.rss_mb(pid)
        plan = (
            ("ok", load.getting(f"{base}/ok"), 64),
            ("echo wait, new thread", load.waiting(base), 1),
            ("echo wait, new thread", load.waiting(base), 16),
            ("echo wait, new thread", load.waiting(base), 64),
            ("stream100", load.streaming(base), 1),
            ("stream100", load.streaming(base), 64),
        )
        figures = [asyncio.run(load.run(name, pid, ask, clients=n, seconds=seconds)) for name, ask, n in plan]
    return figures, ready, idle


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the server against the floors of this machine.")
    parser.add_argument("--quick", action="store_true", help="2 s a scenario instead of 8")
    seconds = 2.0 if parser.parse_args().quick else 8.0
    folder = Path(tempfile.mkdtemp(prefix="agent-bench-"))
    database = EmbeddedDatabase(folder)
    try:
        url = database.start()
        migrate.upgrade(url)
        floors = [
            measure_floor("bench.floors:hello", "/hello", seconds),
            measure_floor("bench.floors:stream", "/", seconds),
        ]
        figures, ready, idle = measure_service(url, seconds)
    finally:
        database.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(report(floors + figures))
    print(f"\ncold start to ready {ready:.2f} s, idle memory {idle:.0f} MB")
    print(f"ok / hello: {figures[0].per_second / floors[0].per_second:.2f}")
    save(floors + figures, ready, idle)


def report(figures: list[load.Figures]) -> str:
    names = ("clients", "ops/s", "events/s", "p50 ms", "p99 ms", "CPU µs/op", "errors")
    widths = (8, 10, 11, 9, 9, 11, 8)
    header = f"{'scenario':<24}" + "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))
    lines = [
        f"{f.scenario:<24}{f.clients:>8}{f.per_second:>10.0f}{f.events_per_second:>11.0f}{f.p50_ms:>9.2f}"
        f"{f.p99_ms:>9.2f}{f.cpu_us_per_operation:>11.0f}{f.errors:>8}"
        for f in figures
    ]
    return "\n".join([header, *lines])


def save(figures: list[load.Figures], ready: float, idle: float) -> None:
    RESULTS.mkdir(exist_ok=True)
    result = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "ready_s": round(ready, 2),
        "idle_mb": round(idle),
        "figures": figures,
    }
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    (RESULTS / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))


if __name__ == "__main__":
    main()
