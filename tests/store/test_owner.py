"""The owner of a production database is not a superuser: its migrations create a store with full text search, too."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.base.errors import StartError
from app.features.store.search import hybrid_search
from app.infra.db import migrations
from tests.database import execute, hasty_server
from tests.statements import sent_by
from tests.store.conftest import always_hnsw, store_on

OWNER = (
    "create role agents login createrole",
    "alter database postgres owner to agents",
    "alter schema public owner to agents",
)


@pytest.fixture
def server() -> Iterator[str]:
    """A server without migrations, with an owner as ``deploy/postgres/owner.sh`` creates it."""
    with hasty_server() as url:
        asyncio.run(execute(url, *OWNER))
        yield url


def owner_url(url: str) -> str:
    return url.replace(f"//{urlsplit(url).username}@", "//agents@")


def test_without_pgvector_the_migration_says_what_is_missing(server: str) -> None:
    with pytest.raises(StartError, match="needs pgvector"):
        migrations.upgrade(owner_url(server))


def test_a_store_created_by_its_owner_is_searched_by_words_and_vectors(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(execute(server, "create extension vector"))
    migrations.upgrade(owner_url(server))
    monkeypatch.setattr(hybrid_search, "prefers_exact_scan", always_hnsw)

    async def work() -> list[Any]:
        async with store_on(owner_url(server)) as store, store.tenant("ours") as ours, store.tenant("theirs") as theirs:
            await ours.put("a", "one", {"text": "climbing"})
            await ours.put("a", "two", {"text": "violin"}, index=["text"])
            await theirs.put("a", "three", {"text": "violin"})
            async with sent_by(store.service.services.persistence.database) as sent:
                found = await ours.keys("a", query="violin")
            assert any("store_matches" in statement for statement in sent)
            await execute(
                server, "alter function store_matches owner to agents"
            )  # as a restore without owners leaves it
            assert await ours.keys("a", query="violin") == found
            await execute(server, "delete from store_vectors_384")
            assert await theirs.keys("a", query="violin") == ["three"]
            return [*found, *await ours.keys("a", query="violin")]

    assert asyncio.run(work()) == ["two", "one", "two"]
