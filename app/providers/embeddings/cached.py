"""Embedder wrapper with a cache of vectors and single flight for identical texts.

The cache key is the embedder, its endpoint, its dimensions, the text and the owner: entries are per tenant, so that
response times reveal nothing about the texts of others.
"""

import array
import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from uuid import UUID

from app.base.errors import ModelError, ModelUnavailable
from app.base.single_flight import SingleFlight, resolve_after
from app.infra.cache.namespaces import SHARED, CacheNamespace
from app.providers.embeddings.port import Embedder, Vector

FLOAT_BYTES = 4
"""Cached as 32-bit floats; the tables store 16 bits."""


class CachedEmbedder:
    """Caches the vectors of ``embedder`` in ``cache``. ``endpoint`` distinguishes servers with the same model names."""

    def __init__(self, embedder: Embedder, cache: CacheNamespace, endpoint: str) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self._embedder = embedder
        self._cache = cache
        self._endpoint = endpoint
        self._in_flight: SingleFlight[bytes, Vector] = SingleFlight()

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Return a vector for each text; embeds only those that are neither cached nor in flight."""
        if len(owners) != len(texts):
            return await self._embedder.embed(texts)
        keys = [
            self._cache.key(owner, self._endpoint, self.name, self.dimensions, text)
            for owner, text in zip(owners, texts, strict=True)
        ]
        vectors = await self._vectors(dict(zip(keys, zip(texts, owners, strict=True), strict=True)))
        return [vectors[key] for key in keys]

    async def _vectors(self, texts: Mapping[bytes, tuple[str, UUID]]) -> dict[bytes, Vector]:
        vectors: dict[bytes, Vector] = {}
        missing = [key for key in texts if self._in_flight.get(key) is None]
        if missing:
            vectors.update(await self._cache.find(missing, self._decode))
        flights = {key: self._in_flight.get(key) for key in texts if key not in vectors}
        shared = {key: future for key, future in flights.items() if future is not None}
        own = {key: text for key, text in texts.items() if key not in vectors and key not in shared}
        if own:
            for key, future in self._start(own).items():
                vectors[key] = await asyncio.shield(future)
        failed = {}
        for key, future in shared.items():
            self._cache.count(SHARED)
            try:
                vectors[key] = await asyncio.shield(future)
            except ModelError:  # may be caused by another text of that request
                failed[key] = texts[key]
        if failed:
            for key, future in self._start(failed).items():
                vectors[key] = await asyncio.shield(future)
        return vectors

    def _start(self, texts: Mapping[bytes, tuple[str, UUID]]) -> dict[bytes, "asyncio.Future[Vector]"]:
        """Embed ``texts`` in a task, which continues for other waiters if the caller is cancelled."""
        futures = {key: self._in_flight.begin(key) for key in texts}
        task = self._cache.tasks.start(self._embed(dict(texts), futures), name="embed")
        stopping = ModelUnavailable("Embedding was cancelled: this process shuts down.")
        resolve_after(task, list(futures.values()), stopping)
        return futures

    async def _embed(
        self, texts: Mapping[bytes, tuple[str, UUID]], futures: Mapping[bytes, "asyncio.Future[Vector]"]
    ) -> None:
        try:
            made = dict(zip(texts, await self._embedder.embed(*zip(*texts.values(), strict=True)), strict=True))
            for key, vector in made.items():
                futures[key].set_result(vector)
            await self._cache.save({key: encode_vector(vector) for key, vector in made.items()})
        except ModelError as error:
            for future in futures.values():
                if not future.done():
                    future.set_exception(error)

    def _decode(self, body: bytes) -> Vector | None:
        """Decode a cached vector, None if it is not valid."""
        if len(body) != self.dimensions * FLOAT_BYTES:
            return None
        numbers = array.array("f", body)
        if sys.byteorder == "big":
            numbers.byteswap()
        length = math.fsum(number * number for number in numbers)
        return list(numbers) if 0 < length < math.inf else None


def encode_vector(vector: Vector) -> bytes:
    """Encode a vector as little-endian 32-bit floats."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
