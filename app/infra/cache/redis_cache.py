"""The cache of all processes, in a Redis of its own.

A Redis that is dead, slow, frozen, full or flushed costs a quarter of a second once; then it is left alone, and what is
asked meanwhile is not there, at once. A look every second in the background finds when it is back.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from app.base.tasks import Tasks
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

SECONDS = 0.25
"""What an answer may take."""
LOOK_SECONDS = 1.0
CONNECTIONS = 16
SCANNED = 1000

FAILURES = (RedisError, OSError, TimeoutError)


class RedisCache:
    """Implements ``app.infra.cache.port.Cache``. ``ring`` has its address, which may change.

    ``beside`` is the address of the Redis that must lose nothing, if there is one: the two should not be the same.
    """

    def __init__(self, ring: RotatingSecret, beside: Secret | None = None) -> None:
        self._ring = ring
        self._beside = beside
        self._version = ring.version
        self._place = 0
        self._lost = ""
        self._full = ""
        self._looked = False
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._left: list[Redis] = []
        self._tasks = Tasks("redis_cache")
        self._redis = self._open()

    @property
    def trouble(self) -> str:
        """What is wrong with it; empty when nothing is."""
        return self._lost or self._full

    def start(self) -> None:
        """Begin to look after it."""
        self._tasks.repeat(self.refresh, LOOK_SECONDS, name="look")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._tasks.aclose()
        for redis in (*self._left, self._redis):
            await _closed(redis)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is kept at each of ``keys``: nothing while it does not answer."""
        nothing: list[bytes | None] = [None] * len(keys)
        if not keys or self._lost:
            return nothing
        try:
            async with asyncio.timeout(SECONDS), self._turns:
                found: list[Any] = await self._client().mget(keys)
        except FAILURES as error:
            self._lose(error)
            return nothing
        return found if len(found) == len(keys) else nothing

    async def put(self, values: Mapping[bytes, bytes], seconds: float) -> None:
        """Keep ``values``, if it can."""
        if not values or self._lost:
            return
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._turns,
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
        self._full = "" if refused is None else f"the cache takes no more values ({type(refused).__name__})"

    async def drop(self, prefix: bytes) -> int:
        """Forget every key that begins with ``prefix``; how many were seen. Takes as long as it takes."""
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
        """See whether it is there; close what is not used any more."""
        while self._left:
            await _closed(self._left[0])
            self._left.pop(0)
        try:
            async with asyncio.timeout(SECONDS):
                await self._client().ping()
        except FAILURES as error:
            self._lose(error)
            return
        if self._lost:
            log.info("cache_found")
        self._lost = ""
        if not self._looked:
            self._looked = True
            await self._check_place()

    def _open(self) -> "Redis":
        # redis-py would try ten times over
        calm: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": SECONDS}
        values = self._ring.values
        address = values[self._place % len(values)].reveal()
        return Redis.from_url(address, socket_timeout=SECONDS, **calm)

    def _client(self) -> "Redis":
        """The client of the address that counts now."""
        if self._ring.version != self._version:
            self._version, self._place = self._ring.version, 0
            self._change()
        return self._redis

    def _change(self) -> None:
        self._left.append(self._redis)
        self._redis = self._open()
        self._looked = False

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            log.warning("cache_lost", error=type(error).__name__)
        self._lost = f"the cache does not answer ({type(error).__name__})"
        if isinstance(error, AuthenticationError) and len(self._ring.values) > 1:
            self._place += 1
            self._change()

    async def _check_place(self) -> None:
        """Warn of a Redis that is no place for a cache."""
        with contextlib.suppress(*FAILURES):  # some let nobody ask
            server_info = await self._redis.info()
            beside = await _server_info(self._beside)
            for sentence in misplaced(server_info, beside):
                log.warning("cache_misplaced", detail=sentence)


def misplaced(server_info: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    """What is wrong with the Redis that has ``server_info`` (``INFO``) as a cache; ``beside`` is what that of REDIS_URL
    has.

    One that holds what must not be lost evicts nothing: there a cache fills the memory until nothing can be written.
    """
    found = []
    policy, limit = server_info.get("maxmemory_policy", "noeviction"), int(server_info.get("maxmemory", 0))
    shared = bool(server_info.get("run_id")) and server_info.get("run_id") == beside.get("run_id")
    if shared and (policy == "noeviction" or not limit):
        found.append(
            "REDIS_CACHE_URL is the same Redis as REDIS_URL, and nothing is evicted there: cached values may fill it "
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
    """``prefix`` as a pattern that matches itself alone."""
    return b"".join(b"\\" + bytes([one]) if one in b"*?[]\\^" else bytes([one]) for one in prefix)
