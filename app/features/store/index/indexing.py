"""Index items and search queries (words and vectors), and write items in group commits."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from pgvector import HalfVector

from app.base.errors import ModelError
from app.features.store.index.fields import MAX_TEXTS, texts_of, words_of
from app.features.store.index.versions import IndexVersion, IndexVersions, VectorSpace
from app.features.store.queries import PUT, insert_vectors
from app.features.store.vectors import ItemVector, NeighbourQuery, half_vector, prepare_connection
from app.infra.db.engine import Database
from app.infra.db.group_commit import GroupCommitter
from app.providers.embeddings.registry import is_paid

_FIELDS = ("tenant_id", "namespace", "key", "item_id", "value", "index", "words", "version", "ttl_minutes")


class PutEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An item to store. ``value`` and ``index`` are JSON; ``words`` is the text for full text search."""

    tenant_id: UUID
    namespace: str
    key: str
    item_id: UUID
    value: str
    index: str | None
    words: str | None
    version: int
    ttl_minutes: float | None
    vectors: Sequence[ItemVector] = ()


async def put_items(connection: asyncpg.Connection, items: Sequence[PutEntry]) -> list[None]:
    """Store ``items``, whose names are distinct, with their vectors, in one statement."""
    await prepare_connection(connection)
    columns: list[list[object]] = [[getattr(item, field) for item in items] for field in _FIELDS]
    statement = PUT
    for width in sorted({vector.width for item in items for vector in item.vectors}):
        rows = [
            (item.tenant_id, item.item_id, vector.space, vector.part, item.namespace, vector.vector)
            for item in items
            for vector in item.vectors
            if vector.width == width
        ]
        statement += insert_vectors(width, len(columns))
        columns += [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(f"{statement} select", *columns)
    return [None] * len(items)


class ItemWriter:
    """Stores items in group commits: concurrent puts share a round trip and a commit."""

    def __init__(self, database: Database) -> None:
        self._groups: GroupCommitter[PutEntry, None] = GroupCommitter(
            "store",
            database,
            put_items,
            key=lambda item: (item.tenant_id, item.namespace, item.key),
            tenant=lambda item: item.tenant_id,
        )

    def start(self) -> None:
        """Start to accept puts."""
        self._groups.start()

    async def aclose(self) -> None:
        """Stop; puts in progress fail with ``Unavailable``."""
        await self._groups.aclose()

    async def put(self, item: PutEntry) -> None:
        """Store or replace ``item``. It is durable when this returns."""
        await self._groups.submit(item)


log = structlog.get_logger(__name__)

Fields = bool | list[str] | None
"""The argument ``index`` of a put."""


class IndexData(msgspec.Struct, frozen=True):
    """What the index holds of an item. ``version``: the newest one whose vectors are complete."""

    words: str | None
    version: int
    vectors: list[ItemVector]


class ItemIndexer:
    """Indexes items and search queries. A failing embedder never fails a request."""

    def __init__(self, versions: IndexVersions) -> None:
        self._versions = versions
        self.admit: Callable[[UUID], Awaitable[None]] | None = None
        """Called before a paid embedder; raises ``Limited`` if the tenant has spent its budget."""

    async def _admit(self, owner: UUID | None, versions: Iterable[IndexVersion | None], path: str) -> None:
        if owner is None or self.admit is None:
            return
        embedders = [space.embedder for version in versions if version is not None for space in version.spaces(path)]
        if any(embedder is not None and is_paid(embedder.name) for embedder in embedders):
            await self.admit(owner)

    async def index_item(
        self, path: str, value: dict[str, Any], fields: Fields, owner: UUID | None = None
    ) -> IndexData:
        """Index one item of the tenant ``owner``. Raises ``Limited``."""
        (indexed,) = await self.index_items(path, [value], fields, owner)
        return indexed

    async def index_items(
        self, path: str, values: Sequence[dict[str, Any]], fields: Fields, owner: UUID | None = None
    ) -> list[IndexData]:
        """Index items at ``path``: words, and vectors of the serving version and of the one being built.

        Raises ``Limited`` if the owner's budget is spent.
        """
        serving, building = self._versions.serving, self._versions.building
        if fields is False:
            return [IndexData(None, (building or serving).number, []) for _ in values]
        await self._admit(owner, (serving, building), path)
        newest = 0
        vectors: list[list[ItemVector]] = [[] for _ in values]
        for version in (serving, building):
            if version is None:
                continue
            try:
                texts = [(path, indexed_texts(version, path, one, fields)) for one in values]
                found = await embed_items(version, texts, [owner] * len(values))
            except ModelError as error:
                log.warning("item_not_embedded", version=version.number, error=type(error).__name__, reason=str(error))
            else:
                newest = version.number
                for of_one, others in zip(vectors, found, strict=True):
                    of_one.extend(others)
        words = [words_of(indexed_texts(building or serving, path, one, fields)) for one in values]
        return [IndexData(one, newest, some) for one, some in zip(words, vectors, strict=True)]

    async def index_query(self, path: str, text: str, owner: UUID | None = None) -> list[NeighbourQuery]:
        """Return a nearest-neighbour query for each space at and below ``path``, none while its embedder fails.

        ``owner`` is the tenant of the search. Raises ``Limited`` if its budget is spent.
        """
        found: list[NeighbourQuery] = []
        await self._admit(owner, (self._versions.serving,), path)
        for space in self._versions.serving.spaces(path):
            try:
                (vector,) = await embed_texts(space, [text], [owner])
            except ModelError as error:
                log.warning("query_not_embedded", error=type(error).__name__, reason=str(error))
            else:
                found.append(NeighbourQuery(space.width, space.number, vector))
        return found


def indexed_texts(version: IndexVersion, path: str, value: dict[str, Any], fields: Fields) -> list[str]:
    """Return the texts that ``version`` indexes of an item at ``path``."""
    if fields is False:
        return []
    return texts_of(value, fields if isinstance(fields, list) else version.index(path)[0].fields)


async def embed_items(
    version: IndexVersion, items: Sequence[tuple[str, Sequence[str]]], owners: Sequence[UUID | None] = ()
) -> list[list[ItemVector]]:
    """Return the vectors in ``version`` of items, given as paths and texts, of ``owners``. Raises ``ModelError``."""
    found: list[list[ItemVector]] = [[] for _ in items]
    by_space: dict[VectorSpace, list[tuple[int, int, str]]] = {}
    for number, (path, texts) in enumerate(items):
        _, space = version.index(path)
        if space is not None:
            by_space.setdefault(space, []).extend((number, part, text) for part, text in enumerate(texts[:MAX_TEXTS]))
    for space, entries in by_space.items():
        if entries:
            text_owners = [owners[number] for number, _, _ in entries] if owners else []
            vectors = await embed_texts(space, [text for _, _, text in entries], text_owners)
            for (number, part, _), vector in zip(entries, vectors, strict=True):
                found[number].append(ItemVector(space.width, space.number, part, vector))
    return found


async def embed_texts(space: VectorSpace, texts: Sequence[str], owners: Sequence[UUID | None] = ()) -> list[HalfVector]:
    """Embed the ``texts`` of ``owners`` in ``space``. Raises ``ModelError``."""
    if space.embedder is None:
        raise ModelError("the embedder of these vectors is no longer available")
    vectors = await space.embedder.embed(texts, [owner for owner in owners if owner is not None])
    try:
        return [half_vector(numbers, space.width) for numbers in vectors]
    except OverflowError as error:
        raise ModelError(f"the embedder {space.embedder.name} returned a number beyond 65504") from error
