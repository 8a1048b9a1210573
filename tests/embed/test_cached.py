"""Cached vectors: a text is embedded once for its owner, also by concurrent requests."""

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


class RecordingEmbedder:
    """An embedder that records its batches, waits while ``gate`` is closed and rejects the text ``bad``."""

    def __init__(self, name: str = "recording", dimensions: int = WIDE) -> None:
        self.name = name
        self.dimensions = dimensions
        self.batches: list[list[str]] = []
        self.started = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []

    async def embed(self, texts: Sequence[str], owners: Sequence[UUID] = ()) -> list[Vector]:
        """Return hashed vectors."""
        async with self.started:
            self.batches.append(list(texts))
            self.started.notify_all()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        if "bad" in texts:
            raise ModelRejected("a bad text")
        return [hash_text(text, self.dimensions) for text in texts]

    async def called(self, times: int = 1) -> None:
        """Wait until it was called that often."""
        async with self.started:
            await self.started.wait_for(lambda: len(self.batches) >= times)


class CacheFixture:
    """A cache namespace with its metrics, and embedders that use it."""

    def __init__(self) -> None:
        self.cache = LocalCache()
        self.meters = Meters()
        self.namespace = CacheNamespace("embeddings", self.cache, self.meters, 60)

    def wrap(self, embedder: Embedder, endpoint: str = "https://here") -> CachedEmbedder:
        return CachedEmbedder(embedder, self.namespace, endpoint)

    def count(self, outcome: str) -> float:
        return self.meters.cache_requests.series.get(("embeddings", outcome), 0)


@pytest.fixture
def fixture() -> CacheFixture:
    return CacheFixture()


def near(one: Vector, other: Vector) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


async def test_only_missing_texts_are_embedded_and_all_come_in_order(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    embedder = fixture.wrap(recorder)
    await embedder.embed(["b", "d"], [ONE, ONE])
    found = await embedder.embed(["a", "b", "c", "d", "a"], [ONE] * 5)
    assert recorder.batches == [["b", "d"], ["a", "c"]]
    assert all(near(vector, hash_text(text, WIDE)) for vector, text in zip(found, "abcda", strict=True))
    assert (fixture.count("hit"), fixture.count("miss")) == (2, 4)


async def test_vectors_of_one_tenant_are_not_cached_for_another(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    embedder = fixture.wrap(recorder)
    await embedder.embed(["secret"], [ONE])
    await embedder.embed(["secret", "secret"], [OTHER, ONE])
    assert recorder.batches == [["secret"], ["secret"]]


async def test_without_an_owner_nothing_is_cached(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    embedder = fixture.wrap(recorder)
    await embedder.embed(["a"])
    await embedder.embed(["a"])
    assert len(recorder.batches) == 2
    assert fixture.cache.size == 0


async def test_another_model_dimension_or_server_has_other_vectors(fixture: CacheFixture) -> None:
    every = [RecordingEmbedder(), RecordingEmbedder("other"), RecordingEmbedder(dimensions=32), RecordingEmbedder()]
    endpoints = ["https://here", "https://here", "https://here", "https://there"]
    for recorder, endpoint in zip(every, endpoints, strict=True):
        await fixture.wrap(recorder, endpoint).embed(["a"], [ONE])
    assert [len(recorder.batches) for recorder in every] == [1, 1, 1, 1]


async def test_a_text_in_flight_is_shared(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    recorder.gate.clear()
    embedder = fixture.wrap(recorder)
    first = asyncio.ensure_future(embedder.embed(["a", "b"], [ONE, ONE]))
    await recorder.called()
    others = [asyncio.ensure_future(embedder.embed(["b", "c"], [ONE, ONE])) for _ in range(5)]
    await recorder.called(2)
    recorder.gate.set()
    await first
    assert all(near(found[0], hash_text("b", WIDE)) for found in await asyncio.gather(*others))
    assert recorder.batches == [["a", "b"], ["c"]]
    assert fixture.count("shared") >= 5


async def test_the_first_caller_may_be_cancelled_while_others_wait(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    recorder.gate.clear()
    embedder = fixture.wrap(recorder)
    first = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await recorder.called()
    other = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    recorder.gate.set()
    assert near((await other)[0], hash_text("a", WIDE))
    assert recorder.batches == [["a"]]


async def test_a_failure_is_raised_and_not_cached(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    recorder.failures = [ModelUnavailable("down")]
    embedder = fixture.wrap(recorder)
    with pytest.raises(ModelUnavailable):
        await embedder.embed(["a"], [ONE])
    assert near((await embedder.embed(["a"], [ONE]))[0], hash_text("a", WIDE))


async def test_a_rejected_text_does_not_fail_other_callers_of_its_batch(fixture: CacheFixture) -> None:
    recorder = RecordingEmbedder()
    recorder.gate.clear()
    embedder = fixture.wrap(recorder)
    first = asyncio.ensure_future(embedder.embed(["a", "bad"], [ONE, ONE]))
    await recorder.called()
    other = asyncio.ensure_future(embedder.embed(["a"], [ONE]))
    await asyncio.sleep(0)
    recorder.gate.set()
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
async def test_an_invalid_cache_entry_is_ignored(fixture: CacheFixture, body: bytes) -> None:
    recorder = RecordingEmbedder()
    embedder = fixture.wrap(recorder)
    key = fixture.namespace.key(ONE, "https://here", recorder.name, WIDE, "a")
    await fixture.namespace.save({key: body})
    assert near((await embedder.embed(["a"], [ONE]))[0], hash_text("a", WIDE))
    assert recorder.batches == [["a"]]
    assert fixture.count("unusable") == 1


async def test_hashing_is_not_cached_and_a_remote_embedder_is(fixture: CacheFixture) -> None:
    """Hashing takes less time than a Redis lookup."""
    models = ModelRegistry(LlmSettings(openai_base_url="http://127.0.0.1:1/v1"), fixture.meters)
    assert isinstance(build_embedder("hashing", 0, models, fixture.namespace), HashingEmbedder)
    assert isinstance(build_embedder("openai:some", 64, models, fixture.namespace), CachedEmbedder)
    assert isinstance(build_embedder("openai:some", 64, models), OpenAIEmbedder)
    await models.aclose()
