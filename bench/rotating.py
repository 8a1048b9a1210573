"""Rotate every secret under load: ``python -m bench.rotating`` (a minute and a half; ``--seconds``, ``--rate``).

Requests come at a fixed rate. Each asks a model, whose provider wants a
key, as the holder of an API key, and has a webhook called. Meanwhile an operator rotates, one after the other: the
provider's key, the API key, the webhooks' secret, the pepper, the database's password, and that of Redis where there
is one. SIGHUP and waiting for the file check alternate. Exit code 1 if anything failed.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from app.infra.db import migrations
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from bench.rotations import ROTATIONS, USER, Bench, fresh, tell_redis
from bench.serving import base, server
from tests.database import execute
from tests.llm.fake_provider import FakeProvider
from tests.outages import Server
from tests.redis import RedisServer

AGENTS = '[agents.asking]\nmodel = "openai:tiny-chat"\n'


async def operate(bench: Bench, until: float) -> None:
    """Rotate one after the other: each once, and again while there is time."""
    kinds = [kind for kind in ROTATIONS if kind != "Redis password" or bench.redis is not None]
    for kind in itertools.cycle(kinds):
        if time.monotonic() > until and len(bench.rotated) == len(kinds):
            return
        await ROTATIONS[kind](bench)
        bench.rotated[kind] += 1


async def ask(bench: Bench, http: httpx.AsyncClient, webhook: str) -> None:
    """Send one request and count failures."""
    body = {"assistant_id": "asking", "input": {"messages": [{"role": "user", "content": "hi"}]}, "webhook": webhook}
    try:
        answer = await http.post("/runs/wait", json=body, headers={"x-api-key": bench.key})
    except httpx.HTTPError as error:
        bench.failed[type(error).__name__] += 1
        return
    if answer.status_code != 200 or "__error__" in answer.text:
        bench.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
    else:
        bench.good += 1


async def load(bench: Bench, rate: float, working: "asyncio.Future[None]", webhook: str) -> None:
    """Send requests at ``rate`` per second until ``working`` is done."""
    assert bench.running is not None
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=base(bench.running), timeout=30, limits=limits) as http:
        tasks: set[asyncio.Task[None]] = set()
        started_at = time.monotonic()
        while not working.done():
            due = int((time.monotonic() - started_at) * rate)
            for _ in range(due - bench.sent):
                task = asyncio.create_task(ask(bench, http, webhook))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            bench.sent = max(bench.sent, due)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)


async def measure(bench: Bench, rate: float, seconds: float) -> dict[str, Any]:
    """Run load and rotations; return the figures."""
    app = web.Application()
    app.router.add_post("/hook", bench.called_by)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    started_at = time.monotonic()
    working = asyncio.ensure_future(operate(bench, started_at + seconds))
    await load(bench, rate, working, f"http://127.0.0.1:{runner.addresses[0][1]}/hook")
    await working
    took = time.monotonic() - started_at
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while bench.called < bench.good:  # noqa: ASYNC110  what the receiver has counted
                await asyncio.sleep(0.1)
    if bench.called < bench.good:
        bench.failed["webhook: not called"] += bench.good - bench.called
    await runner.cleanup()
    return {
        "seconds": round(took, 1),
        "requests": bench.sent,
        "per_second": round(bench.sent / took, 1),
        "webhooks": bench.called,
        "rotated": dict(bench.rotated),
        "failed": sum(bench.failed.values()),
        "failures": dict(bench.failed.most_common(10)),
    }


async def furnish(bench: Bench) -> dict[str, str]:
    """Write the first secrets; return the settings that name them."""
    password, pepper = fresh(), fresh()
    bench.database.ask_for_passwords(USER)
    await execute(
        bench.database.url,
        f"create role {USER} login password '{password}'",
        f"grant agent_app, agent_engine to {USER} with inherit false, set true",
        "select pg_reload_conf()",
    )
    names = {"database": bench.database_url(password), "pepper": pepper, "pepper2": pepper}
    names |= {"provider": fresh(), "webhooks": (webhooks := fresh()), "webhooks2": webhooks}
    bench.trusted.add(webhooks)
    variables = {
        "database": "DATABASE_URL",
        "pepper": "AGENT_KEY_PEPPER",
        "pepper2": "AGENT_KEY_PEPPER_SECONDARY",
        "provider": "OPENAI_API_KEY",
        "webhooks": "AGENT_WEBHOOK_SECRET",
        "webhooks2": "AGENT_WEBHOOK_SECRET_SECONDARY",
    }
    if bench.redis is not None:
        await tell_redis(bench.redis, f">{(word := fresh())}")
        names["redis"], variables["redis"] = bench.redis_url(word), "REDIS_URL"
    for name, text in names.items():
        bench.write(name, text)
    database = Database(bench.database.url, requests=1, engine=1)
    info, key = await AccessService(database, Secret(pepper)).create_key("bench")
    await database.aclose()
    bench.key_id, bench.key = info.key_id, key.reveal()
    return {f"{variable}_FILE": str(bench.folder / name) for name, variable in variables.items()}


async def bench_of(folder: Path, rate: float, seconds: float) -> dict[str, Any]:
    """Set up, measure and tear down."""
    database = Server(folder / "data")
    await asyncio.to_thread(database.begin)
    redis: RedisServer | None = None
    with contextlib.suppress(pytest.skip.Exception):
        redis = RedisServer(folder)
    try:
        await asyncio.to_thread(migrations.upgrade, database.url)
        async with FakeProvider() as provider:
            bench = Bench(folder, database, provider, redis)
            settings = await furnish(bench)
            settings |= {"AGENT_AUTH": "api_key", "WORKERS": "2", "AGENT_RATE_PER_MINUTE": "1000000"}
            settings |= {"OPENAI_BASE_URL": f"{provider.url}/v1", "AGENT_EGRESS_ALLOW": "127.0.0.1", "DATABASE_URL": ""}
            (folder / "asking.toml").write_text(AGENTS)
            settings["AGENT_CONFIG"] = str(folder / "asking.toml")
            with server("", folder, **settings) as running:
                bench.running = running
                return await measure(bench, rate, seconds)
    finally:
        if redis is not None:
            redis.stop()
        await asyncio.to_thread(database.stop)


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="at least so long (default: 60)")
    parser.add_argument("--rate", type=float, default=100, help="requests a second (default: 100)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(bench_of(Path(folder), given.rate, given.seconds))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
