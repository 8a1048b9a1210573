"""Clients that never read large states use bounded memory and do not affect other readers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.faults.fleet import Fleet, Witness
from tests.faults.test_readers import database_url, never_reading  # noqa: F401  a fixture
from tests.outages import children_of

pytestmark = pytest.mark.timeout(240)

STATE = 10_000_000
READERS = 40
GIVEN_UP = 4
"""Idle readers disconnected before the next ones get buffers."""
MAX_GROWTH = 600_000_000
"""Memory that they may use together; their streams have 800 MB, which once took 3 GB."""


@pytest.fixture
async def fleet(database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:  # noqa: F811
    """One server."""
    witness = await asyncio.to_thread(Witness, tmp_path)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1)
    yield fleet
    await asyncio.to_thread(fleet.close)
    await asyncio.to_thread(witness.close)


def resident(fleet: Fleet) -> int:
    """Return the resident memory of the server's workers in bytes."""
    total = 0
    for pid in children_of(fleet.servers[0].process.pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


async def open_streams(http: httpx.AsyncClient, fleet: Fleet) -> int:
    text = (await http.get(f"http://127.0.0.1:{fleet.servers[0].port}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("agent_streams_open")]
    return round(sum(float(line.split()[-1]) for line in lines))


async def run_of(http: httpx.AsyncClient, base: str, agent: str, words: str) -> str:
    """Complete a run; return the path of its stream."""
    thread = (await http.post(f"{base}/threads", json={})).json()["thread_id"]
    body = {
        "assistant_id": agent,
        "input": {"messages": [{"role": "user", "content": words}]},
        "stream_mode": ["values", "updates"],
    }
    run = (await http.post(f"{base}/threads/{thread}/runs", json=body)).json()["run_id"]
    assert (await http.get(f"{base}/threads/{thread}/runs/{run}/join")).status_code == 200
    return f"/threads/{thread}/runs/{run}/stream"


async def test_clients_that_never_read_large_states_use_bounded_memory(fleet: Fleet) -> None:
    base, idle = fleet.bases()[0], list[socket.socket]()
    async with httpx.AsyncClient(timeout=120) as http:
        large, small = await run_of(http, base, "hoarder", str(STATE)), await run_of(http, base, "talker", "3")
        assert len((await http.get(base + large)).content) > 2 * STATE  # warm-up
        before, peak, done = resident(fleet), 0, asyncio.Event()

        async def watch() -> None:
            nonlocal peak
            while not done.is_set():
                peak = max(peak, resident(fleet))
                await asyncio.sleep(0.05)

        watching = asyncio.ensure_future(watch())
        try:
            idle += [never_reading(fleet.servers[0].port, "/api/v1" + large) for _ in range(READERS)]
            max_open = 0
            while max_open < READERS // 2 or await open_streams(http, fleet) > max_open - GIVEN_UP:
                max_open = max(max_open, await open_streams(http, fleet))
                assert b"event: end" in (await http.get(base + small)).content
        finally:
            for one in idle:
                one.close()
            done.set()
            await watching
    assert peak - before < MAX_GROWTH
