"""Items and questions → what the index holds of them: words and vectors.

Puts, in groups: many at once share a round trip and a commit.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.base.errors import ModelError
from app.features.store.index.fields import MAX_TEXTS, texts_of, words_of
from app.features.store.index.versions import IndexVersion, IndexVersions, VectorSpace
from app.features.store.queries import PUT, PUT_VECTORS
from app.infra.db.engine import Database
from app.infra.db.group_commit import GroupCommitter
from app.providers.embeddings.port import Vector as Numbers
from app.providers.embeddings.registry import is_paid


class ItemVector(msgspec.Struct, frozen=True):
    """A vector of an item's text number ``part``, in the table of ``width``; ``text`` as pgvector reads it."""

    width: int
    space: int
    part: int
    text: str


class PutEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An item to store. ``value`` and ``index`` are JSON; ``words`` is text to search in, None for none."""

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


_FIELDS = ("tenant_id", "namespace", "key", "item_id", "value", "index", "words", "version", "ttl_minutes")


async def put(connection: asyncpg.Connection, items: Sequence[PutEntry]) -> list[None]:
    """Store ``items``, each at another place, with their vectors, in one statement."""
    columns: list[list[object]] = [[getattr(item, field) for item in items] for field in _FIELDS]
    statement = PUT
    for width in sorted({vector.width for item in items for vector in item.vectors}):
        rows = [
            (item.tenant_id, item.item_id, vector.space, vector.part, item.namespace, vector.text)
            for item in items
            for vector in item.vectors
            if vector.width == width
        ]
        statement += PUT_VECTORS(width, len(columns))
        columns += [list(column) for column in zip(*rows, strict=True)]
    await connection.execute(f"{statement} select", *columns)
    return [None] * len(items)


class ItemWriter:
    """Stores items."""

    def __init__(self, database: Database) -> None:
        self._groups: GroupCommitter[PutEntry, None] = GroupCommitter(
            "store", database, put, key=lambda item: (item.tenant_id, item.namespace, item.key)
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def put(self, item: PutEntry) -> None:
        """Store ``item`` in place of what is there. It is durable when this returns."""
        await self._groups.submit(item)


log = structlog.get_logger(__name__)

Fields = bool | list[str] | None
"""The argument ``index`` of a put."""


class IndexData(msgspec.Struct, frozen=True):
    """What is stored beside an item. ``version``: the newest whose vectors are all there."""

    words: str | None
    version: int
    vectors: list[ItemVector]


class NeighbourQuery(msgspec.Struct, frozen=True):
    """Where to look for the neighbours of a question: in the table of ``width``, in ``space``, around ``vector``."""

    width: int
    space: int
    vector: str


class ItemIndexer:
    """Makes what is stored beside items, and what is asked for. An embedder that fails never fails a request."""

    def __init__(self, versions: IndexVersions) -> None:
        self._versions = versions
        self.admit: Callable[[UUID], Awaitable[None]] | None = None
        """Raises ``Limited`` for a tenant that may have no more embedded by an embedder that costs money."""

    async def _admit(self, owner: UUID | None, versions: Iterable[IndexVersion | None], path: str) -> None:
        if owner is None or self.admit is None:
            return
        embedders = [space.embedder for version in versions if version is not None for space in version.spaces(path)]
        if any(embedder is not None and is_paid(embedder.name) for embedder in embedders):
            await self.admit(owner)

    async def item(self, path: str, value: dict[str, Any], fields: Fields, owner: UUID | None = None) -> IndexData:
        """What is stored beside one item of the tenant ``owner``."""
        (indexed,) = await self.items(path, [value], fields, owner)
        return indexed

    async def items(
        self, path: str, values: Sequence[dict[str, Any]], fields: Fields, owner: UUID | None = None
    ) -> list[IndexData]:
        """Words, and the vectors of the version that serves and of the one that is on its way; embedded together.

        Raises ``Limited`` where the owner's budget is spent.
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
                texts = [(path, texts_in(version, path, one, fields)) for one in values]
                found = await vectors_of(version, texts, [owner] * len(values))
            except ModelError as error:
                log.warning("item_not_embedded", version=version.number, error=type(error).__name__, reason=str(error))
            else:
                newest = version.number
                for of_one, others in zip(vectors, found, strict=True):
                    of_one.extend(others)
        words = [words_of(texts_in(building or serving, path, one, fields)) for one in values]
        return [IndexData(one, newest, some) for one, some in zip(words, vectors, strict=True)]

    async def question(self, path: str, text: str, owner: UUID | None = None) -> list[NeighbourQuery]:
        """Where items at or below ``path`` that are like ``text`` lie; nowhere while the embedder fails.

        ``owner`` is the tenant who asks. Raises ``Limited`` where its budget is spent.
        """
        found: list[NeighbourQuery] = []
        await self._admit(owner, (self._versions.serving,), path)
        for space in self._versions.serving.spaces(path):
            try:
                (numbers,) = await embedded(space, [text], [owner])
            except ModelError as error:
                log.warning("question_not_embedded", error=type(error).__name__, reason=str(error))
            else:
                found.append(NeighbourQuery(space.width, space.number, written(numbers, space.width)))
        return found


def texts_in(version: IndexVersion, path: str, value: dict[str, Any], fields: Fields) -> list[str]:
    """The texts that ``version`` looks at in an item at ``path``."""
    if fields is False:
        return []
    return texts_of(value, fields if isinstance(fields, list) else version.index(path)[0].fields)


async def vectors_of(
    version: IndexVersion, items: Sequence[tuple[str, Sequence[str]]], owners: Sequence[UUID | None] = ()
) -> list[list[ItemVector]]:
    """The vectors in ``version`` of items, each given by its path and its texts. Raises ``ModelError``.

    ``owners`` are the tenants whose items they are.
    """
    found: list[list[ItemVector]] = [[] for _ in items]
    wanted: dict[VectorSpace, list[tuple[int, int, str]]] = {}
    for number, (path, texts) in enumerate(items):
        _, space = version.index(path)
        if space is not None:
            wanted.setdefault(space, []).extend((number, part, text) for part, text in enumerate(texts[:MAX_TEXTS]))
    for space, asked in wanted.items():
        if asked:
            text_owners = [owners[number] for number, _, _ in asked] if owners else []
            vectors = await embedded(space, [text for _, _, text in asked], text_owners)
            for (number, part, _), vector in zip(asked, vectors, strict=True):
                found[number].append(ItemVector(space.width, space.number, part, written(vector, space.width)))
    return found


async def embedded(space: VectorSpace, texts: Sequence[str], owners: Sequence[UUID | None] = ()) -> list[Numbers]:
    """The vectors in ``space`` of ``texts``, which are those of ``owners``. Raises ``ModelError``."""
    if space.embedder is None:
        raise ModelError("the embedder of these vectors cannot be had any more")
    return await space.embedder.embed(texts, [owner for owner in owners if owner is not None])


def written(numbers: Numbers, width: int) -> str:
    """A vector as pgvector reads it, filled up with zeros. Halves keep three digits: five are enough."""
    digits = [format(number, ".5g") if number else "0" for number in numbers]
    return f"[{','.join(digits)}{',0' * (width - len(digits))}]"
