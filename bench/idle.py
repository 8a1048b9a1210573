"""Cost of a thousand idle open streams: ``python -m bench.idle`` (a minute and a half).

One kind after the other, each on a server of its own: a bare ASGI application on Granian (the floor: one answer that
waits, no heartbeat), streams of runs, the same in another process than that of the runs, streams of threads with and
without a run, and results that are waited for. The clients are bare sockets that send a request each and read once.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench.processes import Server, cpu_seconds, memory_mb
from bench.serving import base, postgres, server
from bench.starting import bare

STREAMS = 1000
RUNS = 20
"""Runs that have the streams among them, each on a thread of its own."""
WARM = 100
"""Streams that are opened and closed before memory is read: what a server needs for the first ones stays with it."""
SETTLE = 2.0

Streams = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


async def opened(port: int, paths: Sequence[str], count: int, until: bytes) -> Streams:
    """``count`` requests for ``paths`` in turn, each read up to ``until``."""
    streams = []
    for number in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {paths[number % len(paths)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        streams.append((reader, writer))
        if number % 50 == 49:
            await asyncio.sleep(0)
    for reader, _ in streams:
        await reader.readuntil(until)
    return streams


async def shut(streams: Streams) -> None:
    """Disconnect."""
    for _, writer in streams:
        writer.close()
    await asyncio.sleep(SETTLE)


async def cost(one: Server, paths: Sequence[str], count: int, seconds: float, until: bytes) -> dict[str, float]:
    """Memory of each stream, and the share of a core that all take."""
    await shut(await opened(one.port, paths, min(WARM, count), until))
    before = memory_mb(one.pid)[0]
    streams = await opened(one.port, paths, count, until)
    await asyncio.sleep(SETTLE)
    used, started_at = cpu_seconds(one.pid), time.monotonic()
    await asyncio.sleep(seconds)
    share = (cpu_seconds(one.pid) - used) / (time.monotonic() - started_at)
    kilobytes = (memory_mb(one.pid)[0] - before) * 1000 / count
    await shut(streams)
    return {"streams": count, "kB_each": round(kilobytes, 1), "share_of_a_core": round(share, 4)}


def paths_of(made: list[dict[str, Any]], end: str) -> list[str]:
    """The addresses that begin with each run's thread."""
    return [f"/api/v1/threads/{one['thread_id']}{end.format(run=one['run_id'])}" for one in made]


@contextlib.contextmanager
def resting(
    url: str, folder: Path, seconds: float, *, elsewhere: bool
) -> Iterator[tuple[Server, list[dict[str, Any]]]]:
    """A server with runs that do nothing for ``seconds``, in its own process or in another one."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(server(url, folder, AGENT_ROLE="api" if elsewhere else "all"))
        if elsewhere:
            stack.enter_context(server(url, folder, AGENT_ROLE="worker"))
        http = stack.enter_context(httpx.Client(base_url=base(api), timeout=30))
        body = {"assistant_id": "clock", "input": {"rest": seconds}, "stream_mode": "custom"}
        threads = [http.post("/threads", json={}).json()["thread_id"] for _ in range(RUNS)]
        made = [http.post(f"/threads/{thread}/runs", json=body).json() for thread in threads]
        yield api, made
        for run in made:
            http.post(f"/threads/{run['thread_id']}/runs/{run['run_id']}/cancel")


ELSEWHERE = "streams of runs elsewhere"
AT_REST = "streams of threads at rest"
KINDS = {
    "streams of runs": ("/runs/{run}/stream", b"event: metadata"),
    ELSEWHERE: ("/runs/{run}/stream", b"event: metadata"),
    "streams of threads": ("/stream", b"event: metadata"),
    AT_REST: ("/stream", b"\r\n\r\n"),
    "results waited for": ("/runs/{run}/join", b"\r\n\r\n"),
}


def idle(url: str, folder: Path, count: int, seconds: float) -> dict[str, dict[str, float]]:
    """What each kind costs; the floor first."""
    with bare("idle", "/ready", folder) as floor:
        found = {"floor": asyncio.run(cost(floor, ["/"], count, seconds, b"data: "))}
    for kind, (end, until) in KINDS.items():
        rest = 0 if kind == AT_REST else seconds + 120
        with resting(url, folder, rest, elsewhere=kind == ELSEWHERE) as (api, made):
            found[kind] = asyncio.run(cost(api, paths_of(made, end), count, seconds, until))
            found[kind]["over_floor"] = round(found[kind]["kB_each"] / found["floor"]["kB_each"], 2)
            print(kind, found[kind], file=sys.stderr)
    return found


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=15.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        database = stack.enter_context(postgres(folder))
        sys.stdout.write(json.dumps(idle(database.url, folder, given.streams, given.seconds), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
