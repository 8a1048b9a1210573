"""The items of a tenant as lines of a file, as they were at one moment, with the vectors that searches use."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.features.store.index.versions import IndexVersion, VectorSpace
from app.features.store.validation import labels_of, range_of
from app.infra.db.engine import Database
from app.infra.db.session import Snapshot

PAGE = 500

_COUNT = """
select count(*) from store_items where tenant_id = $1 and namespace >= $2 and namespace < $3
  and (expires_at is null or expires_at > now())
"""
_ITEMS = """
select namespace, key, item_id, value::text as value, index::text as index, ttl_minutes, expires_at, created_at,
  updated_at
from store_items where tenant_id = $1 and namespace >= $2 and namespace < $3
  and (expires_at is null or expires_at > now())
order by namespace, key
"""

OnProgress = Callable[[int, int], None]
"""Is told how many items are written, and how many there are."""

encode = msgspec.json.Encoder().encode


def _vectors(width: int) -> str:
    return (
        f"select item_id, subvector(embedding, 1, $3)::text as numbers from store_vectors_{width}"  # noqa: S608
        " where tenant_id = $1 and space = $2 and item_id = any($4) order by item_id, part"
    )


class ItemExporter:
    """Writes the items at and below ``path`` with ``write``. ``version``: whose vectors; None for none."""

    def __init__(self, database: Database, tenant_id: UUID, path: str, version: IndexVersion | None) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._path = path
        self._version = version

    async def run(self, write: Callable[[bytes], Any], on_progress: OnProgress) -> int:
        """Write all of them; how many."""
        span = range_of(self._path)
        written = 0
        async with self._database.snapshot(self._tenant_id) as snapshot:
            driver = await snapshot.driver()
            count = await driver.fetchval(_COUNT, self._tenant_id, *span)
            async for rows in snapshot.pages(_ITEMS, PAGE, self._tenant_id, *span):
                vectors = await self._with_vectors(snapshot, rows)
                for row in rows:
                    write(encode(self._line(row, vectors.get(row["item_id"]))) + b"\n")
                written += len(rows)
                on_progress(written, count)
        return written

    def _line(self, row: asyncpg.Record, vectors: list[msgspec.Raw] | None) -> dict[str, Any]:
        line: dict[str, Any] = {
            "namespace": labels_of(row["namespace"]),
            "key": row["key"],
            "value": msgspec.Raw(row["value"].encode()),
        }
        if row["index"] is not None:
            line["index"] = msgspec.Raw(row["index"].encode())
        line["ttl"] = row["ttl_minutes"]
        if row["expires_at"] is not None:
            line["expires_at"] = row["expires_at"]
        line |= {"created_at": row["created_at"], "updated_at": row["updated_at"]}
        if vectors and self._version is not None:
            line |= {"embedder": self._version.index(row["namespace"])[0].embedder, "vectors": vectors}
        return line

    async def _with_vectors(self, snapshot: Snapshot, rows: list[asyncpg.Record]) -> dict[UUID, list[msgspec.Raw]]:
        """The vectors of ``rows`` by item."""
        if self._version is None:
            return {}
        by_space: dict[VectorSpace, list[UUID]] = {}
        for row in rows:
            _, space = self._version.index(row["namespace"])
            if space is not None:
                by_space.setdefault(space, []).append(row["item_id"])
        driver = await snapshot.driver()
        found: dict[UUID, list[msgspec.Raw]] = {}
        for space, items in by_space.items():
            values = (self._tenant_id, space.number, space.dimensions, items)
            for one in await driver.fetch(_vectors(space.width), *values):
                found.setdefault(one["item_id"], []).append(msgspec.Raw(one["numbers"].encode()))
        return found
