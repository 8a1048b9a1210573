"""An embedder that is asked once for a text: its vectors are kept, and one that is on its way is waited for.

A vector depends on the embedder, where it is, its dimensions and the text, and on nothing else. It is kept for the
tenant whose text it was: how soon an answer comes tells nobody what others have stored.
"""

import array
import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from uuid import UUID

from app.base.errors import ModelError, ModelUnavailable
from app.infra.cache.namespaces import SHARED, CacheNamespace
from app.providers.embeddings.port import Embedder, Vector

BYTES = 4
"""Of a number: the tables keep half of that."""


class CachedEmbedder:
    """``embedder`` with its vectors on ``shelf``; ``place`` tells servers apart that have models of one name."""

    def __init__(self, embedder: Embedder, shelf: CacheNamespace, place: str) -> None:
        self.name = embedder.name
        self.dimensions = embedder.dimensions
        self._embedder = embedder
        self._shelf = shelf
        self._place = place
        self._coming: dict[bytes, asyncio.Future[Vector]] = {}

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """One vector for each text, of which only those are made that are neither there nor on their way."""
        if len(owners) != len(texts):
            return await self._embedder.embed(texts)
        keys = [
            self._shelf.key(owner, self._place, self.name, self.dimensions, text)
            for owner, text in zip(owners, texts, strict=True)
        ]
        vectors = await self._vectors(dict(zip(keys, zip(texts, owners, strict=True), strict=True)))
        return [vectors[key] for key in keys]

    async def _vectors(self, texts: Mapping[bytes, tuple[str, UUID]]) -> dict[bytes, Vector]:
        vectors: dict[bytes, Vector] = {}
        sought = [key for key in texts if key not in self._coming]
        if sought:
            vectors.update(await self._shelf.find(sought, self._read))
        shared = {key: self._coming[key] for key in texts if key not in vectors and key in self._coming}
        own = {key: text for key, text in texts.items() if key not in vectors and key not in shared}
        if own:
            begun = self._begin(own)
            for key, future in begun.items():
                vectors[key] = await asyncio.shield(future)
        failed = {}
        for key, future in shared.items():
            self._shelf.count(SHARED)
            try:
                vectors[key] = await asyncio.shield(future)
            except ModelError:  # for a text, maybe, that went out beside ours
                failed[key] = texts[key]
        if failed:
            for key, future in self._begin(failed).items():
                vectors[key] = await asyncio.shield(future)
        return vectors

    def _begin(self, texts: Mapping[bytes, tuple[str, UUID]]) -> dict[bytes, "asyncio.Future[Vector]"]:
        """Ask for ``texts``, for all who want them: it goes on when whoever began it is cancelled."""
        loop = asyncio.get_running_loop()
        begun: dict[bytes, asyncio.Future[Vector]] = {key: loop.create_future() for key in texts}
        for key, future in begun.items():
            future.add_done_callback(_normalised)
            self._coming[key] = future
        self._shelf.tasks.start(self._ask(dict(texts), begun), name="embed")
        return begun

    async def _ask(
        self, texts: Mapping[bytes, tuple[str, UUID]], futures: Mapping[bytes, "asyncio.Future[Vector]"]
    ) -> None:
        error: ModelError = ModelUnavailable("The embedder was not waited for: this process stops.")
        made: dict[bytes, Vector] = {}
        try:
            made = dict(zip(texts, await self._embedder.embed(*zip(*texts.values(), strict=True)), strict=True))
            for key, vector in made.items():
                futures[key].set_result(vector)
            await self._shelf.save({key: written(vector) for key, vector in made.items()})
        except ModelError as failure:
            error = failure
        finally:
            for key, future in futures.items():
                if self._coming.get(key) is future:
                    del self._coming[key]
                if not future.done():
                    future.set_exception(error)

    def _read(self, body: bytes) -> Vector | None:
        """The vector that was kept as ``body``; None where that is none of ours."""
        if len(body) != self.dimensions * BYTES:
            return None
        numbers = array.array("f", body)
        if sys.byteorder == "big":
            numbers.byteswap()
        length = math.fsum(number * number for number in numbers)
        return list(numbers) if 0 < length < math.inf else None


def written(vector: Vector) -> bytes:
    """``vector`` as it is kept: 32-bit floats, the lowest byte first."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _normalised(future: "asyncio.Future[Vector]") -> None:
    """What went wrong is told to those who wait; where nobody does, nobody need hear of it."""
    if not future.cancelled():
        future.exception()
