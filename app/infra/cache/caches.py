"""The caches of a process, by namespace."""

from uuid import UUID

from app.base.errors import StartError
from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.namespaces import CacheNamespace, tenant_prefix
from app.infra.cache.port import Cache
from app.infra.secrets.rotating_secret import RotatingSecret, SecretStore
from app.infra.settings import RedisSettings
from app.infra.telemetry.meters import Meters

EMBEDDINGS, ANSWERS = "embeddings", "answers"
NAMESPACES = (EMBEDDINGS, ANSWERS)

EMBEDDING_SECONDS = 30 * 86_400.0
"""TTL of embeddings. A vector stays valid while its model does, but a server may get another model under the same name.
"""
ANSWER_SECONDS = 3600.0


class Caches:
    """The cache ``cache`` and its namespaces for embeddings and model responses. ``shared``: the cache, if all
    processes share it.
    """

    def __init__(self, cache: Cache, meters: Meters, shared: Cache | None = None) -> None:
        self.cache = cache
        self.shared = shared
        self.embeddings = CacheNamespace(EMBEDDINGS, cache, meters, EMBEDDING_SECONDS)
        self.answers = CacheNamespace(ANSWERS, cache, meters, ANSWER_SECONDS)

    def start(self) -> None:
        """Start the cache."""
        self.cache.start()

    async def aclose(self) -> None:
        """Close the namespaces and the cache."""
        await self.embeddings.aclose()
        await self.answers.aclose()
        await self.cache.aclose()


def build_caches(settings: RedisSettings, secret_store: SecretStore, meters: Meters) -> Caches:
    """Build the cache that ``settings`` ask for: Redis, or memory of this process."""
    if settings.cache_url is None:
        return Caches(LocalCache(), meters)
    from app.infra.cache.redis_cache import RedisCache

    cache = RedisCache(secret_store.rotating("REDIS_CACHE_URL", keep=True), settings.url)
    return Caches(cache, meters, shared=cache)


async def forget(settings: RedisSettings, tenant_id: UUID) -> int:
    """Delete a tenant's values from the shared cache; return their number. Raises ``StartError`` if it fails."""
    if settings.cache_url is None:
        return 0
    from app.infra.cache.redis_cache import RedisCache

    cache = RedisCache(RotatingSecret(settings.cache_url))
    try:
        deleted = [await cache.drop(tenant_prefix(name, tenant_id)) for name in NAMESPACES]
    finally:
        await cache.aclose()
    if cache.trouble:
        raise StartError("the Redis of REDIS_CACHE_URL does not answer: start it, then try again")
    return sum(deleted)
