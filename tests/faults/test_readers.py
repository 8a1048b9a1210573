"""Clients that disconnect, never read, or cancel all at once do not affect others."""

import asyncio
import itertools
import random
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.database import clone, drop
from tests.faults import checker
from tests.faults.driver import RunRecord
from tests.faults.fleet import Fleet, Witness

pytestmark = pytest.mark.timeout(120)

WORDS = 300


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
async def fleet(database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two servers."""
    witness = await asyncio.to_thread(Witness, tmp_path)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 2)
    yield fleet
    await asyncio.to_thread(fleet.close)
    await asyncio.to_thread(witness.close)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as http:
        yield http


async def started(http: httpx.AsyncClient, base: str, **rest: Any) -> tuple[str, str]:
    """Start a run that emits ``WORDS`` words, one every 5 ms; return its thread and run ids."""
    thread = (await http.post(f"{base}/threads", json={})).json()["thread_id"]
    body = {"assistant_id": "talker", "input": {"messages": [{"role": "user", "content": str(WORDS)}]}, **rest}
    answer = await http.post(f"{base}/threads/{thread}/runs", json=body)
    return thread, answer.json()["run_id"]


async def test_a_stream_cut_at_any_byte_resumes_at_another_process(fleet: Fleet, http: httpx.AsyncClient) -> None:
    """Each connection ends after a random number of bytes; the next one goes to the other server."""
    rng = random.Random(3)
    thread, run = await started(http, fleet.bases()[0], stream_mode=["custom"])
    record = RunRecord(run_id=run, program="talker")
    for base in itertools.cycle(fleet.bases()):
        last = record.frames[-1][0] if record.frames else "-1"
        url = f"{base}/threads/{thread}/runs/{run}/stream"
        room, rest = rng.randrange(1, 6000), b""
        async with http.stream("GET", url, headers={"Last-Event-ID": last}) as answer:
            async for piece in answer.aiter_bytes():
                *frames, rest = (rest + piece[:room]).split(b"\r\n\r\n")
                for frame in frames:
                    take(record, frame)
                room -= len(piece)
                if room <= 0:
                    break
        if record.frames and record.frames[-1][1] == "end":
            break
    assert list(checker.streams(record)) == []
    words = [frame for _, event, frame in record.frames if event == "custom"]
    assert len(words) == WORDS


def take(record: RunRecord, frame: bytes) -> None:
    fields = dict(line.partition(b": ")[::2] for line in frame.split(b"\r\n") if not line.startswith(b":"))
    if b"id" in fields:
        record.frames.append((fields[b"id"].decode(), fields[b"event"].decode(), frame))


async def test_clients_that_never_read_do_not_affect_others(fleet: Fleet, http: httpx.AsyncClient) -> None:
    """Forty on one run, with minimal receive windows; the run and a good reader end as usual."""
    base = fleet.bases()[0]
    thread, run = await started(http, base, stream_mode=["custom", "values"])
    idle = [never_reading(fleet.servers[0].port, f"/api/v1/threads/{thread}/runs/{run}/stream") for _ in range(40)]
    try:
        record = RunRecord(run_id=run, program="talker")
        async with http.stream("GET", f"{base}/threads/{thread}/runs/{run}/stream") as answer:
            rest = b""
            async for piece in answer.aiter_bytes():
                *frames, rest = (rest + piece).split(b"\r\n\r\n")
                for frame in frames:
                    take(record, frame)
        assert list(checker.streams(record)) == []
        assert (await http.get(f"{base}/threads/{thread}/runs/{run}")).json()["status"] == "success"
        assert (await http.get(f"{base}/health")).json()["status"] == "healthy"
    finally:
        for one in idle:
            one.close()


def never_reading(port: int, path: str) -> socket.socket:
    """Send a request without reading the response."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    one.connect(("127.0.0.1", port))
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return one


async def test_a_storm_of_cancels_ends_every_run_once(fleet: Fleet, http: httpx.AsyncClient) -> None:
    """Twenty concurrent cancels for each of ten runs, through both servers; each run ends once."""
    bases = fleet.bases()
    runs = [await started(http, base) for base in bases * 5]

    async def cancel(number: int, thread: str, run: str) -> int:
        url = f"{bases[number % 2]}/threads/{thread}/runs/{run}/cancel"
        return (await http.post(url, params={"wait": str(number % 3 == 0).lower()})).status_code

    answers = await asyncio.gather(*(cancel(number, *run) for run in runs for number in range(20)))
    assert set(answers) <= {200, 202, 404}  # 404: it has ended
    statuses = set()
    for thread, run in runs:
        ended = (await http.get(f"{bases[0]}/threads/{thread}/runs/{run}/join")).status_code
        assert ended == 200
        found = (await http.get(f"{bases[1]}/threads/{thread}/runs/{run}")).json()
        statuses.add(found["status"])
        assert (await http.get(f"{bases[1]}/threads/{thread}")).json()["status"] != "busy"
    assert "interrupted" in statuses
    assert statuses <= {"interrupted", "success"}  # on a busy machine a run may end before its cancel arrives
