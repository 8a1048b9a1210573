"""How an operator rotates each secret (docs/operations/secrets.md), for ``bench.rotating``."""

import asyncio
import base64
import collections
import hashlib
import hmac
import itertools
import os
import secrets
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access.service import AccessService
from bench.processes import Server as Running
from tests.database import execute
from tests.llm.fake_provider import FakeProvider
from tests.outages import Server
from tests.redis import RedisServer

LOOK_SECONDS = 6.0
"""Seconds after which every process has checked its files."""
SIGNALLED_SECONDS = 1.0
"""Seconds after which every process has handled SIGHUP."""
USER = "rotating"


class Bench:
    """State of the rotations, and the outcome of the requests."""

    def __init__(self, folder: Path, database: Server, provider: FakeProvider, redis: RedisServer | None) -> None:
        self.folder = folder
        self.database = database
        self.provider = provider
        self.redis = redis
        self.running: Running | None = None
        self.key_id, self.key = "", ""
        self.trusted: set[str] = set()
        self.sent = self.good = self.called = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self.rotated: collections.Counter[str] = collections.Counter()
        self._signals = itertools.cycle((True, False))

    def write(self, name: str, text: str) -> None:
        """Write a secret atomically."""
        path = self.folder / name
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    async def taken_up(self) -> None:
        """Wait until every process has loaded the secrets."""
        if next(self._signals):
            assert self.running is not None
            os.kill(self.running.pid, signal.SIGHUP)
            await asyncio.sleep(SIGNALLED_SECONDS)
        else:
            await asyncio.sleep(LOOK_SECONDS)

    def database_url(self, password: str) -> str:
        return self.database.url.replace("//postgres@", f"//{USER}:{password}@")

    def redis_url(self, password: str) -> str:
        assert self.redis is not None
        return self.redis.url.replace("//", f"//{USER}:{password}@")

    async def called_by(self, request: web.Request) -> web.Response:
        """A webhook receiver that verifies signatures with its current secrets."""
        body = await request.read()
        text = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        given = set(request.headers.get("webhook-signature", "").split())
        if not any(f"v1,{_signature(secret, text)}" in given for secret in self.trusted):
            self.failed["webhook: not signed by what is trusted"] += 1
        self.called += 1
        return web.Response()


def _signature(secret: str, text: bytes) -> str:
    return base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()


def fresh() -> str:
    """A new secret."""
    return secrets.token_hex(32)


async def rotate_provider(bench: Bench) -> None:
    """Write the new key, then invalidate the old one."""
    before = (bench.folder / "provider").read_text()
    bench.write("provider", fresh())
    await bench.taken_up()
    bench.provider.refused_keys.add(before)


async def rotate_api_key(bench: Bench) -> None:
    """Both secrets are valid; clients switch at once."""
    database = Database(bench.database.url, requests=1, engine=1)
    try:
        access = AccessService(database, Secret((bench.folder / "pepper").read_text()))
        _, key = await access.rotate_key(bench.key_id, timedelta(hours=1))
    finally:
        await database.aclose()
    bench.key = key.reveal()
    await asyncio.sleep(1.0)


async def rotate_webhooks(bench: Bench) -> None:
    """Add the new secret, switch the receiver to it, then make it the first."""
    before, new = (bench.folder / "webhooks").read_text(), fresh()
    bench.write("webhooks2", new)
    bench.trusted.add(new)
    await bench.taken_up()
    await asyncio.sleep(1.0)
    bench.trusted.discard(before)
    bench.write("webhooks", new)
    await bench.taken_up()


async def rotate_pepper(bench: Bench) -> None:
    """Add the new pepper, make it the first, then remove the old one."""
    before, new = (bench.folder / "pepper").read_text(), fresh()
    bench.write("pepper2", new)
    await bench.taken_up()
    bench.write("pepper", new)
    bench.write("pepper2", before)
    await bench.taken_up()
    await asyncio.sleep(LOOK_SECONDS)  # until caches have expired, so that the key has been rehashed
    bench.write("pepper2", new)
    await bench.taken_up()


async def rotate_database(bench: Bench) -> None:
    """Write the new password, then change it in the database."""
    password = fresh()
    bench.write("database", bench.database_url(password))
    await bench.taken_up()
    await execute(bench.database.url, f"alter role {USER} password '{password}'")
    await asyncio.sleep(1.0)


async def rotate_redis(bench: Bench) -> None:
    """Add the new password to Redis, write it, then remove the old one."""
    assert bench.redis is not None
    before, new = (bench.folder / "redis").read_text(), fresh()
    await tell_redis(bench.redis, f">{new}")
    bench.write("redis", bench.redis_url(new))
    await bench.taken_up()
    await asyncio.sleep(LOOK_SECONDS)  # the address is checked as often as the files
    await tell_redis(bench.redis, "<" + before.split(":")[2].partition("@")[0])


async def tell_redis(redis: RedisServer, *words: str) -> None:
    """Change the program's user."""
    client: Any = Redis.from_url(redis.url)
    await client.execute_command("ACL", "SETUSER", USER, "on", "~*", "&*", "+@all", *words)
    await client.aclose()


ROTATIONS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "provider key": rotate_provider,
    "API key": rotate_api_key,
    "pepper": rotate_pepper,
    "database password": rotate_database,
    "webhook secret": rotate_webhooks,
    "Redis password": rotate_redis,
}
