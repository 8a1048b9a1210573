"""Shutdown with open streams and live runs, and recovery after a kill."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.database import clone, drop
from tests.journeys.conftest import Served

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def database_of_its_own(server_url: str) -> Iterator[str]:
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


def test_sigterm_ends_a_server_with_an_open_stream_with_exit_code_zero(
    database_of_its_own: str, tmp_path: Path
) -> None:
    server = Served(database_of_its_own, tmp_path).wait_until_ready()
    with httpx.Client(base_url=server.base, timeout=20) as http:
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        later = {"assistant_id": "echo", "input": HELLO, "after_seconds": 600}
        run_id = http.post(f"/threads/{thread_id}/runs", json=later).json()["run_id"]
        with http.stream("GET", f"/threads/{thread_id}/runs/{run_id}/stream") as stream:
            chunks = stream.iter_text()
            assert "heartbeat" in next(chunks)
            server.process.send_signal(signal.SIGTERM)
            assert "retry:" in "".join(chunks)
    assert server.process.wait(15) == 0


def test_the_next_server_resumes_what_a_killed_server_left(database_of_its_own: str, tmp_path: Path) -> None:
    first = Served(database_of_its_own, tmp_path).wait_until_ready()
    with httpx.Client(base_url=first.base, timeout=20) as http:
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        run = {"assistant_id": "echo", "input": HELLO}
        before = http.post(f"/threads/{thread_id}/runs/wait", json=run).json()
        later = http.post(f"/threads/{thread_id}/runs", json={**run, "after_seconds": 1}).json()["run_id"]
    first.process.kill()
    first.process.wait(10)
    second = Served(database_of_its_own, tmp_path).wait_until_ready()
    with httpx.Client(base_url=second.base, timeout=30) as http:
        assert http.get(f"/threads/{thread_id}").json()["values"]["messages"][:2] == before["messages"]
        joined = http.get(f"/threads/{thread_id}/runs/{later}/join").json()
        assert [m["content"] for m in joined["messages"]] == ["hello", "echo: hello", "hello", "echo: hello"]
    assert second.stop() == 0


def test_no_worker_survives_a_killed_parent(database_of_its_own: str, tmp_path: Path) -> None:
    server = Served(database_of_its_own, tmp_path).wait_until_ready()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)

    deadline = time.monotonic() + 15
    while server.get("/api/v1/ok"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
