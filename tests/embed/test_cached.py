"""Vectors that are kept: a text is embedded once for its owner, also when several want it at the same time."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from app.base.errors import ModelRejected, ModelUnavailable
from app.infra.cache.memory_cache import LocalCache
from app.infra.cache.namespaces import CacheNamespace
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.providers.embeddings.cached import CachedEmbedder, encode_vector
from app.providers.embeddings.hashing import HashingEmbedder, hash_text
from app.providers.embeddings.openai import OpenAIEmbedder
from app.providers.embeddings.port import Embedder, Vector
from app.providers.embeddings.registry import build_embedder
from app.providers.llm.registry import ModelRegistry

ONE, OTHER = UUID(int=1), UUID(int=2)
WIDE = 16


class Asked:
    """An embedder that keeps what it was asked; it waits while ``gate`` is closed and refuses what is ``bad``."""

    def __init__(self, name: str = "asked", dimensions: int = WIDE) -> None:
        self.name = name
        self.dimensions = dimensions
        self.batches: list[list[str]] = []
        self.begun = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Real vectors."""
        async with self.begun:
            self.batches.append(list(texts))
            self.begun.notify_all()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        if "bad" in texts:
            raise ModelRejected("a bad text")
        return [hash_text(text, self.dimensions) for text in texts]

    async def asked(self, times: int = 1) -> None:
        """Wait until it was asked so often."""
        async with self.begun:
            await self.begun.wait_for(lambda: len(self.batches) >= times)


class Desk:
    """A cache with a shelf, and embedders over it."""

    def __init__(self) -> None:
        self.cache = LocalCache()
        self.meters = Meters()
        self.shelf = CacheNamespace("embeddings", self.cache, self.meters, 60)

    def over(self, embedder: Embedder, place: str = "https://here") -> CachedEmbedder:
        return CachedEmbedder(embedder, self.shelf, place)

    def count(self, outcome: str) -> float:
        return self.meters.cache_requests.series.get(("embeddings", outcome), 0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def near(one: Vector, other: Vector) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


async def test_only_texts_that_are_not_there_are_asked_for_and_all_come_in_their_order(desk: Desk) -> None:
    asked = Asked()
    embedder = desk.over(asked)
    await embedder.embed(["b", "d"], [ONE, ONE])
    found = await embedder.embed(["a", "b", "c", "d", "a"], [ONE] * 5)
    assert asked.batches == [["b", "d"], ["a", "c"]]
    assert all(near(vector, hash_text(text, WIDE)) for vector, text in zip(found, "abcda", strict=True))
    assert (desk.count("hit"), desk.count("miss")) == (2, 4)


async def test_what_one_tenant_has_had_embedded_is_not_there_for_another(desk: Desk) -> None:
    asked = Asked()
    embedder = desk.over(asked)
    await embedder.embed(["secret"], [ONE])
    await embedder.embed(["secret", "secret"], [OTHER, ONE])
    assert asked.batches == [["secret"], ["secret"]]


async def test_without_an_owner_nothing_is_kept(desk: Desk) -> None:
    asked = Asked()
    embedder = desk.over(asked)
    await embedder.embed(["a"])
    await embedder.embed(["a"])
    assert len(asked.batches) == 2
    assert desk.cache.size == 0


async def test_another_model_dimension_or_server_has_other_vectors(desk: Desk) -> None:
    every = [Asked(), Asked("other"), Asked(dimensions=32), Asked()]
    places = ["https://here", "https://here", "https://here", "https://there"]
    for asked, place in zip(every, places, strict=True):
        await desk.over(asked, place).embed(["a"], [ONE])
    assert [len(asked.batches) for asked in every] == [1, 1, 1, 1]


async def test_a_text_that_is_on_its_way_is_waited_for(desk: Desk) -> None:
    asked = Asked()
    asked.gate.clear()
    embedder = desk.over(asked)
    first = asyncio.ensure_future(embedder.embed(["a", "b"], [ONE, ONE]))
    await asked.asked()
    others = [asyncio.ensure_future(embedder.embed(["b", "c"], [ONE, ONE])) for _ in range(5)]
    await asked.asked(2)
    asked.gate.set()
    await first
    assert all(near(found[0], hash_text("b", WIDE)) for found in await asyncio.gather(*others))
    assert asked.batches == [["a", "b"], ["c"]]
    assert desk.count("shared") >= 5


async def test_who_asked_first_may_go_away_while_others_wait(desk: Desk) -> None:
    asked = Asked()
    asked.gate.clear()
    embedder = desk.over(asked)
    first = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await asked.asked()
    other = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    asked.gate.set()
    assert near((await other)[0], hash_text("a", WIDE))
    assert asked.batches == [["a"]]


async def test_a_failure_is_told_and_not_kept(desk: Desk) -> None:
    asked = Asked()
    asked.failures = [ModelUnavailable("down")]
    embedder = desk.over(asked)
    with pytest.raises(ModelUnavailable):
        await embedder.embed(["a"], [ONE])
    assert near((await embedder.embed(["a"], [ONE]))[0], hash_text("a", WIDE))


async def test_a_text_that_is_refused_spoils_no_other_caller_of_its_neighbour(desk: Desk) -> None:
    asked = Asked()
    asked.gate.clear()
    embedder = desk.over(asked)
    first = asyncio.ensure_future(embedder.embed(["a", "bad"], [ONE, ONE]))
    await asked.asked()
    other = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await asyncio.sleep(0)
    asked.gate.set()
    with pytest.raises(ModelRejected):
        await first
    assert near((await other)[0], hash_text("a", WIDE))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        encode_vector([0.0] * WIDE),
        encode_vector([float("nan")] * WIDE),
        encode_vector([float("inf")] * WIDE),
        b"\0" * 999,
    ],
)
async def test_bytes_that_are_no_vector_of_this_embedder_are_as_if_they_were_not(desk: Desk, body: bytes) -> None:
    asked = Asked()
    embedder = desk.over(asked)
    key = desk.shelf.key(ONE, "https://here", asked.name, WIDE, "a")
    await desk.shelf.save({key: body})
    assert near((await embedder.embed(["a"], [ONE]))[0], hash_text("a", WIDE))
    assert asked.batches == [["a"]]
    assert desk.count("unusable") == 1


async def test_an_embedder_that_computes_is_not_kept_one_that_is_asked_is(desk: Desk) -> None:
    """Hashing takes less time than a look into Redis."""
    models = ModelRegistry(LlmSettings(openai_base_url="http://127.0.0.1:1/v1"), desk.meters)
    assert isinstance(build_embedder("hashing", 0, models, desk.shelf), HashingEmbedder)
    assert isinstance(build_embedder("openai:some", 64, models, desk.shelf), CachedEmbedder)
    assert isinstance(build_embedder("openai:some", 64, models), OpenAIEmbedder)
    await models.aclose()
