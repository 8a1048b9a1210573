"""Server processes and their resource usage (Linux: proc(5))."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 30.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Server:
    """A server process on a loopback port; ``seconds`` from its command to its first good response."""

    def __init__(self, pid: int, port: int, seconds: float) -> None:
        self.pid = pid
        self.port = port
        self.seconds = seconds


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], port: int, path: str, folder: Path, **environment: str) -> Iterator[Server]:
    """Run ``command`` in ``folder`` and wait for a 200 at ``path``; stop it gracefully after the block."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # servers in production have bytecode
    output = folder / f"output-{port}.log"
    started_at = time.perf_counter()
    with output.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=own, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not answers(port, path):
            if process.poll() is not None or time.perf_counter() > started_at + START_SECONDS:
                raise SystemExit(f"{' '.join(command)} did not start:\n{output.read_text()[-2000:]}")
            time.sleep(0.005)
        yield Server(process.pid, port, time.perf_counter() - started_at)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int, path: str) -> bool:
    """Whether ``GET path`` is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if fields := fields_of(stat):
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def fields_of(stat: Path) -> list[str]:
    """The fields of a process from its state on; none when it has ended."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants, with those that have ended since it started_at."""
    every = (fields_of(Path(f"/proc/{one}/stat")) for one in family(pid))
    return sum(sum(map(int, fields[11:15])) for fields in every if fields) / TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """Memory of a process and its descendants: shared pages counted in each of them, and counted once."""
    resident = shared_once = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            resident += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            shared_once += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0]) * 1024
    return round(resident / 1e6, 1), round(shared_once / 1e6, 1)


def stolen_share(before: list[int]) -> float:
    """Return the share of stolen CPU time since ``before`` (from ``cpu_times``)."""
    passed = [now - then for now, then in zip(cpu_times(), before, strict=True)]
    return round(passed[7] / max(1, sum(passed[:8])), 4)


def cpu_times() -> list[int]:
    """The machine's CPU time by kind, in ticks."""
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
