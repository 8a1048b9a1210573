"""Cache shared by all processes, in a Redis of its own.

A Redis that is dead, slow, frozen, full or flushed costs one timeout of 0.25 s; then every read is an immediate miss
until a probe, once per second in the background, succeeds.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError

from app.base.tasks import Tasks
from app.infra.redis.connection import FAILURES
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

SECONDS = 0.25
"""Timeout of a request."""
PROBE_SECONDS = 1.0
CONNECTIONS = 16
SCANNED = 1000


class RedisCache:
    """Implements ``app.infra.cache.port.Cache``. ``urls`` holds its address, which may be rotated.

    ``primary`` is the address of the Redis that must not lose data, if there is one; the two should not be the same.
    """

    def __init__(self, urls: RotatingSecret, primary: Secret | None = None) -> None:
        self._urls = urls
        self._primary = primary
        self._version = urls.version
        self._url_index = 0
        self._lost = ""
        self._full = ""
        self._checked = False
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._retired: list[Redis] = []
        self._tasks = Tasks("redis_cache")
        self._redis = self._open()

    @property
    def trouble(self) -> str:
        """The current failure in a sentence, empty if there is none."""
        return self._lost or self._full

    def start(self) -> None:
        """Start the periodic probe."""
        self._tasks.repeat(self.refresh, PROBE_SECONDS, name="probe")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._tasks.aclose()
        for redis in (*self._retired, self._redis):
            await _closed(redis)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values at ``keys``, all None while Redis does not answer."""
        nothing: list[bytes | None] = [None] * len(keys)
        if not keys or self._lost:
            return nothing
        try:
            async with asyncio.timeout(SECONDS), self._slots:
                found: list[Any] = await self._client().mget(keys)
        except FAILURES as error:
            self._lose(error)
            return nothing
        return found if len(found) == len(keys) else nothing

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Store ``values``, if Redis answers."""
        if not values or self._lost:
            return
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._slots,
                self._client().pipeline(transaction=False) as pipeline,
            ):
                for key, value in values.items():
                    pipeline.set(key, value, px=max(1, int(seconds * 1000)))
                server_info = await pipeline.execute(raise_on_error=False)
        except FAILURES as error:
            self._lose(error)
            return
        refused = next((one for one in server_info if isinstance(one, ResponseError)), None)
        if refused is not None and not self._full:
            log.warning("cache_refuses", error=type(refused).__name__)
        self._full = "" if refused is None else f"the cache stores no more values ({type(refused).__name__})"

    async def drop(self, prefix: bytes) -> int:
        """Delete every key with ``prefix`` and return their number. Not bounded in time."""
        dropped = 0
        try:
            redis = self._client()
            batch: list[bytes] = []
            async for key in redis.scan_iter(match=_literal(prefix) + b"*", count=SCANNED):
                batch.append(key)
                if len(batch) == SCANNED:
                    dropped += int(await redis.unlink(*batch))
                    batch = []
            if batch:
                dropped += int(await redis.unlink(*batch))
        except FAILURES as error:
            self._lose(error)
        return dropped

    async def refresh(self) -> None:
        """Probe Redis, and close clients that are no longer used."""
        while self._retired:
            await _closed(self._retired[0])
            self._retired.pop(0)
        try:
            async with asyncio.timeout(SECONDS):
                await self._client().ping()
        except FAILURES as error:
            self._lose(error)
            return
        if self._lost:
            log.info("cache_found")
        self._lost = ""
        if not self._checked:
            self._checked = True
            await self._check_configuration()

    def _open(self) -> "Redis":
        # without this redis-py retries ten times
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": SECONDS}
        values = self._urls.values
        address = values[self._url_index % len(values)].reveal()
        return Redis.from_url(address, socket_timeout=SECONDS, **options)

    def _client(self) -> "Redis":
        """Return the client of the current address."""
        if self._urls.version != self._version:
            self._version, self._url_index = self._urls.version, 0
            self._change()
        return self._redis

    def _change(self) -> None:
        self._retired.append(self._redis)
        self._redis = self._open()
        self._checked = False

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            log.warning("cache_lost", error=type(error).__name__)
        self._lost = f"the cache does not answer ({type(error).__name__})"
        if isinstance(error, AuthenticationError) and len(self._urls.values) > 1:
            self._url_index += 1
            self._change()

    async def _check_configuration(self) -> None:
        """Warn if the Redis is not configured as a cache."""
        with contextlib.suppress(*FAILURES):  # INFO may be forbidden
            server_info = await self._redis.info()
            primary = await _server_info(self._primary)
            for sentence in misplaced(server_info, primary):
                log.warning("cache_misplaced", detail=sentence)


def misplaced(server_info: Mapping[str, Any], primary: Mapping[str, Any]) -> list[str]:
    """Return warnings about the Redis with ``server_info`` (``INFO``) as a cache; ``primary`` is the ``INFO`` of
    REDIS_URL's.

    A Redis that must not lose data evicts nothing: there a cache fills the memory until writes fail.
    """
    found = []
    policy, limit = server_info.get("maxmemory_policy", "noeviction"), int(server_info.get("maxmemory", 0))
    shared = bool(server_info.get("run_id")) and server_info.get("run_id") == primary.get("run_id")
    if shared and (policy == "noeviction" or not limit):
        found.append(
            "REDIS_CACHE_URL is the same Redis as REDIS_URL, which evicts nothing: cached values may fill it "
            "until limits and streams fail; give the cache an instance of its own with maxmemory and allkeys-lru"
        )
    elif shared:
        found.append(
            f"REDIS_CACHE_URL is the same Redis as REDIS_URL, and its policy is {policy}: it may evict what limits and "
            "streams need; give the cache an instance of its own"
        )
    elif not limit:
        found.append("the Redis of REDIS_CACHE_URL has no maxmemory: set one, with maxmemory-policy allkeys-lru")
    elif policy == "noeviction":
        found.append("the Redis of REDIS_CACHE_URL evicts nothing when it is full: set maxmemory-policy allkeys-lru")
    return found


async def _server_info(address: Secret | None) -> Mapping[str, Any]:
    if address is None:
        return {}
    other: Redis = Redis.from_url(
        address.reveal(), retry=Retry(NoBackoff(), 0), socket_connect_timeout=SECONDS, socket_timeout=SECONDS
    )
    try:
        server_info: Mapping[str, Any] = await other.info("server")
        return server_info
    finally:
        await _closed(other)


async def _closed(redis: "Redis") -> None:
    with contextlib.suppress(*FAILURES):
        await redis.aclose()


def _literal(prefix: bytes) -> bytes:
    """Escape ``prefix`` as a pattern that matches only itself."""
    return b"".join(b"\\" + bytes([one]) if one in b"*?[]\\^" else bytes([one]) for one in prefix)
