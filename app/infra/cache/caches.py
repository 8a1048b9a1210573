"""The cache of a process and its shelves."""

from uuid import UUID

from app.base.errors import StartError
from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.namespaces import CacheNamespace, tenant_prefix
from app.infra.cache.port import Cache
from app.infra.secrets.rotating_secret import RotatingSecret, SecretStore
from app.infra.settings import RedisSettings
from app.infra.telemetry.meters import Meters

EMBEDDINGS, ANSWERS = "embeddings", "answers"
SHELVES = (EMBEDDINGS, ANSWERS)

EMBEDDING_SECONDS = 30 * 86_400.0
"""A vector is as good as ever while its model is; a server may get another model under the same name."""
ANSWER_SECONDS = 3600.0


class Caches:
    """``cache``, a shelf for embeddings and one for answers of models. ``shared`` is it where all processes have it."""

    def __init__(self, cache: Cache, meters: Meters, shared: Cache | None = None) -> None:
        self.cache = cache
        self.shared = shared
        self.embeddings = CacheNamespace(EMBEDDINGS, cache, meters, EMBEDDING_SECONDS)
        self.answers = CacheNamespace(ANSWERS, cache, meters, ANSWER_SECONDS)

    def start(self) -> None:
        """Begin."""
        self.cache.start()

    async def aclose(self) -> None:
        """Stop."""
        await self.embeddings.aclose()
        await self.answers.aclose()
        await self.cache.aclose()


def build_caches(settings: RedisSettings, vault: SecretStore, meters: Meters) -> Caches:
    """The cache that ``settings`` ask for; this process's own where they name no Redis."""
    if settings.cache_url is None:
        return Caches(LocalCache(), meters)
    from app.infra.cache.redis_cache import RedisCache

    cache = RedisCache(vault.ring("REDIS_CACHE_URL", keep=True), settings.url)
    return Caches(cache, meters, shared=cache)


async def forget(settings: RedisSettings, tenant_id: UUID) -> int:
    """Remove what the shared cache holds of a tenant; how many values. Raises ``StartError`` if it does not answer."""
    if settings.cache_url is None:
        return 0
    from app.infra.cache.redis_cache import RedisCache

    cache = RedisCache(RotatingSecret(settings.cache_url))
    try:
        dropped = [await cache.drop(tenant_prefix(name, tenant_id)) for name in SHELVES]
    finally:
        await cache.aclose()
    if cache.trouble:
        raise StartError("the Redis of REDIS_CACHE_URL does not answer: do this again when it does")
    return sum(dropped)
