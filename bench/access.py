"""Cost of authentication and rate limits: ``python -m bench.access`` (half a minute).

The same request at three servers on one database, in turn: without authentication, with keys and a limit of the
process, with keys and a limit in Redis. One client on one connection; medians, and what they are above the first.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx

from app.infra.db import migrations
from app.infra.db.embedded import EmbeddedDatabase
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from bench.processes import Server
from bench.serving import base, server
from tests.redis import RedisServer

PEPPER = "0123456789abcdef" * 2
BLOCKS = 40
BLOCK = 50
LIMITS = {"AGENT_AUTH": "api_key", "AGENT_KEY_PEPPER": PEPPER, "AGENT_REQUESTS_PER_MINUTE": "1000000000"}
PATH = f"/assistants/{uuid.uuid5(uuid.UUID('6ba7b821-9dad-11d1-80b4-00c04fd430c8'), 'echo')}/schemas"
"""A route without other database queries."""


async def key_of(url: str) -> str:
    database = Database(url, requests=1, engine=1)
    try:
        _, key = await AccessService(database, Secret(PEPPER)).create_key("bench")
        return key.reveal()
    finally:
        await database.aclose()


async def medians(servers: dict[str, Server], key: str) -> dict[str, float]:
    """Microseconds."""
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(httpx.AsyncClient(base_url=base(one), headers={"x-api-key": key}))
            for name, one in servers.items()
        }
        taken: dict[str, list[float]] = {name: [] for name in servers}
        for block in range(BLOCKS + 1):
            for name, http in clients.items():
                for _ in range(BLOCK):
                    started_at = time.perf_counter()
                    answer = await http.get(PATH)
                    if block:  # the first one warms up
                        taken[name].append(time.perf_counter() - started_at)
                    answer.raise_for_status()
    return {name: round(statistics.median(values) * 1e6, 1) for name, values in taken.items()}


def main() -> int:
    """Print the figures as JSON."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        place = Path(folder)
        database = EmbeddedDatabase(place / "data")
        url = database.start()
        stack.callback(database.stop)
        migrations.upgrade(url)
        redis = RedisServer(place)
        stack.callback(redis.stop)
        servers = {
            "open": stack.enter_context(server(url, place)),
            "keys and limits": stack.enter_context(server(url, place, **LIMITS)),
            "with Redis": stack.enter_context(server(url, place, **LIMITS, REDIS_URL=redis.url)),
        }
        found = asyncio.run(medians(servers, asyncio.run(key_of(url))))
    above = {name: round(value - found["open"], 1) for name, value in found.items()}
    sys.stdout.write(json.dumps({"median_us": found, "above_open_us": above}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
