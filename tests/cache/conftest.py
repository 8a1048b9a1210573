"""A real Redis for caches, and both kinds of cache."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.infra.cache import redis_cache as module
from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.port import Cache
from app.infra.cache.redis_cache import RedisCache
from app.infra.secrets.rotating_secret import RotatingSecret
from app.infra.secrets.secret import Secret
from tests.redis import RedisServer

PATIENCE = 2.0
"""Tolerates a machine that is busy with other tests."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", PATIENCE)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def cache_on(*urls: str) -> AsyncIterator[RedisCache]:
    """A cache on the first of ``urls`` that accepts it."""
    cache = RedisCache(RotatingSecret(*map(Secret, urls)))
    cache.start()
    try:
        yield cache
    finally:
        await cache.aclose()


@pytest.fixture(params=["local", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    """Both kinds of cache."""
    if request.param == "local":
        local = LocalCache()
        local.start()
        yield local
        await local.aclose()
    else:
        async with cache_on(request.getfixturevalue("redis").url) as shared:
            yield shared
