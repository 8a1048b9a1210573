"""A flood of invented API keys, with valid keys of other clients among them."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from tests.journeys.conftest import PEPPER, Served

CONNECTIONS = 1500
VALID = 10
PROMPT_SECONDS = 2.0
"""Generous for busy machines; a key that waited for the whole flood would get a 503."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def guarded(fresh_database_url: str, tmp_path: Path) -> AsyncIterator[tuple[Served, list[str]]]:
    """A server with API keys, and valid keys that are not cached."""
    database = Database(fresh_database_url, requests=2, engine=1)
    access = AccessService(database, Secret(PEPPER))
    keys = [(await access.create_key(f"client {number}"))[1].reveal() for number in range(VALID)]
    await database.aclose()
    server = Served(fresh_database_url, tmp_path, AGENT_AUTH="api_key", AGENT_KEY_PEPPER=PEPPER)
    try:
        await asyncio.to_thread(server.wait_until_ready)
        yield server, keys
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_flood_of_invented_keys_delays_no_valid_one(guarded: tuple[Served, list[str]]) -> None:
    server, keys = guarded
    refused = [0]
    async with flood(server.port, refused):
        await until_more_than(CONNECTIONS, refused)
        seconds, statuses = [], []
        async with httpx.AsyncClient(base_url=server.base, timeout=30) as http:
            for key in keys:
                began, before = time.monotonic(), refused[0]
                answer = await http.get("/threads/x/state", headers={"X-Api-Key": key})
                seconds.append(time.monotonic() - began)
                statuses.append(answer.status_code)
                await until_more_than(before, refused)  # the flood continues
    assert statuses == [422] * VALID, "authenticated: only the id of the thread is invalid"
    assert max(seconds) < PROMPT_SECONDS, seconds


async def until_more_than(number: int, refused: list[int]) -> None:
    async with asyncio.timeout(60):
        while True:
            if refused[0] > number:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def flood(port: int, refused: list[int]) -> AsyncIterator[None]:
    """Send invented keys on ``CONNECTIONS`` connections; ``refused`` counts the responses."""

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                key = f"as_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
                writer.write(f"GET /api/v1/threads/x/state HTTP/1.1\r\nHost: x\r\nX-Api-Key: {key}\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                refused[0] += b"401" in head[:16]
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split()[1]))
        finally:
            writer.close()

    tasks = [asyncio.ensure_future(connection()) for _ in range(CONNECTIONS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
