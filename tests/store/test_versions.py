"""A new embedder or other fields: vectors are backfilled in the background while searches keep working."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.features.store.index.maintenance import VectorBackfill
from app.features.store.index.versions import IndexVersions
from tests.embed.server import Embeddings
from tests.store.conftest import Store, Tenant, store_on
from tests.waiting import eventually

MODEL = '[store]\nembedder = "openai:tiny"\ndimensions = 64\n'
NOTES = {"drive": "the red car", "pet": "a small cat", "ill": "see a doctor", "tax": "quarterly report"}


@pytest.fixture
async def server() -> AsyncIterator[Embeddings]:
    async with Embeddings() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, server: Embeddings) -> Callable[[str], dict[str, Any]]:
    """Settings with an agents file of this text."""

    def write(text: str) -> dict[str, Any]:
        file = tmp_path / "agents.toml"
        file.write_text(text)
        return {"AGENT_CONFIG": str(file), "OPENAI_BASE_URL": server.url}

    return write


async def fill(tenant: Tenant) -> None:
    for key, text in NOTES.items():
        await tenant.put("notes", key, {"text": text})


def versions_of(store: Store) -> IndexVersions:
    return store.service.services.features.store._versions


async def complete(store: Store) -> None:
    """Complete the version being built, without the time for other processes to learn of it."""
    database, versions = store.service.services.persistence.database, versions_of(store)

    async def served() -> bool:
        await VectorBackfill(database, versions, settle_seconds=0).run_once()
        return versions.building is None

    await eventually(served)


async def test_a_model_finds_synonyms(fresh_database_url: str, settings: Any, server: Embeddings) -> None:
    async with store_on(fresh_database_url, **settings(MODEL)) as store, store.tenant("ours") as ours:
        await fill(ours)
        assert (await ours.keys("notes", query="automobile"))[0] == "drive"
        assert (await ours.keys("notes", query="physician"))[0] == "ill"
        assert server.texts == len(NOTES) + 2
        assert await store.count("store_vectors_384") == len(NOTES)


async def test_puts_and_searches_work_while_the_embedder_is_down_and_vectors_are_backfilled(
    fresh_database_url: str, settings: Any, server: Embeddings
) -> None:
    async with store_on(fresh_database_url, **settings(MODEL)) as store, store.tenant("ours") as ours:
        server.down = True
        await ours.put("notes", "drive", {"text": "the red car"})
        assert (await ours.get("notes", "drive"))["value"] == {"text": "the red car"}
        assert await ours.keys("notes", query="red") == ["drive"]
        assert await ours.keys("notes", query="automobile") == []
        assert await store.count("store_vectors_384") == 0
        server.down = False
        versions = versions_of(store)
        for space in versions.serving.spaces(""):
            space.embedder._embedder._vendor.reset()  # type: ignore[union-attr]
        database = store.service.services.persistence.database

        async def backfilled() -> bool:
            await VectorBackfill(database, versions).run_once()
            return await store.count("store_vectors_384") == 1

        await eventually(backfilled)
        assert await ours.keys("notes", query="automobile") == ["drive"]
        assert await VectorBackfill(database, versions).run_once() == 0


async def test_a_new_embedder_serves_once_all_its_vectors_exist(
    fresh_database_url: str, settings: Any, server: Embeddings
) -> None:
    async with store_on(fresh_database_url) as store, store.tenant("ours") as ours:
        await fill(ours)
    server.down = True
    async with store_on(fresh_database_url, **settings(MODEL)) as store, store.tenant("ours") as ours:
        versions = versions_of(store)
        assert versions.building is not None
        await ours.put("notes", "late", {"text": "a blue car"})
        assert (await ours.keys("notes", query="the red car"))[0] == "drive"
        assert (await ours.keys("notes", query="blue car"))[0] == "late"
        assert len(await ours.keys("notes", query="automobile")) == 5  # by the vectors of the serving version
        server.down = False
        for space in versions.building.spaces(""):
            space.embedder._embedder._vendor.reset()  # type: ignore[union-attr]
        await complete(store)
        assert set((await ours.keys("notes", query="automobile"))[:2]) == {"drive", "late"}
        await VectorBackfill(store.service.services.persistence.database, versions, settle_seconds=0).run_once()
        assert await store.count("store_vectors_384") == 5
        assert await store.count("store_versions") == 1
        assert await store.count("store_items", f"version = {versions.serving.number}") == 5


async def test_going_back_to_the_serving_file_drops_the_new_version(
    fresh_database_url: str, settings: Any, server: Embeddings
) -> None:
    async with store_on(fresh_database_url) as store, store.tenant("ours") as ours:
        await fill(ours)
    server.down = True
    async with store_on(fresh_database_url, **settings(MODEL)) as store:
        assert await store.count("store_versions") == 2
    async with store_on(fresh_database_url) as store, store.tenant("ours") as ours:
        assert versions_of(store).building is None
        assert await store.count("store_versions") == 1
        assert (await ours.keys("notes", query="the red car"))[0] == "drive"


async def test_other_fields_index_other_words_and_vectors(fresh_database_url: str, settings: Any) -> None:
    async with store_on(fresh_database_url) as store, store.tenant("ours") as ours:
        await ours.put("notes", "k", {"title": "violin", "body": "climbing"})
        await ours.put("notes", "own", {"title": "violin", "body": "Lisbon"}, index=["body"])
    fields = '[store]\nfields = ["title"]\n[[store.index]]\nprefix = ["quiet"]\nembedder = "none"\n'
    async with store_on(fresh_database_url, **settings(fields)) as store, store.tenant("ours") as ours:
        await complete(store)
        assert await store.count("store_items", "words @@ 'climbing'") == 0
        assert await store.count("store_items", "words @@ 'violin'") == 1
        assert await store.count("store_items", "words @@ 'lisbon'") == 1
        await ours.put("quiet", "k", {"title": "violin"})
        assert await store.count("store_vectors_384", "namespace = 'quiet.'") == 0
        assert await ours.keys("quiet", query="violin") == ["k"]
        assert await ours.keys("quiet", query="violins") == []


async def test_each_prefix_has_its_own_embedder_and_a_search_over_all_uses_each(
    fresh_database_url: str, settings: Any, server: Embeddings
) -> None:
    both = '[[store.index]]\nprefix = ["notes"]\nembedder = "openai:wide"\ndimensions = 400\n'
    server.dimensions = 400
    async with store_on(fresh_database_url, **settings(both)) as store, store.tenant("ours") as ours:
        await fill(ours)
        await ours.put("other", "hashed", {"text": "an automobile"})
        assert await store.count("store_vectors_768") == len(NOTES)
        assert await store.count("store_vectors_384") == 1
        assert set((await ours.keys(query="automobile"))[:2]) == {"drive", "hashed"}
        assert await ours.keys("other", query="automobile") == ["hashed"]
        asked = len(server.asked)
        assert await ours.keys("other", query="x") == ["hashed"]
        assert len(server.asked) == asked
