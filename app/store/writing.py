"""Puts, in groups: many at once share a round trip and a commit."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.db.engine import Database
from app.db.groups import Groups
from app.store.queries import PUT, PUT_VECTORS


class Vector(msgspec.Struct, frozen=True):
    """A vector of an item's text number ``part``, in the table of ``width``; ``text`` as pgvector reads it."""

    width: int
    space: int
    part: int
    text: str


class Put(msgspec.Struct, frozen=True, kw_only=True):
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
    vectors: Sequence[Vector] = ()


_FIELDS = ("tenant_id", "namespace", "key", "item_id", "value", "index", "words", "version", "ttl_minutes")


async def put(connection: asyncpg.Connection, items: Sequence[Put]) -> list[None]:
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


class Writing:
    """Stores items."""

    def __init__(self, database: Database) -> None:
        self._groups: Groups[Put, None] = Groups(
            "store", database, put, key=lambda item: (item.tenant_id, item.namespace, item.key)
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def put(self, item: Put) -> None:
        """Store ``item`` in place of what is there. It is durable when this returns."""
        await self._groups.submit(item)
