"""Export a tenant's items as JSON lines from one snapshot, with the vectors of the serving index version."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.features.store.bulk.sql import COUNT_ITEMS, EXPORT_ITEMS, export_vectors
from app.features.store.index.versions import IndexVersion, VectorSpace
from app.features.store.validation import labels_of, range_of
from app.infra.db.engine import Database
from app.infra.db.session import Snapshot

PAGE_SIZE = 500

OnProgress = Callable[[int, int], None]
"""Called with the number of items written and their total."""

encode = msgspec.json.Encoder().encode


class ItemExporter:
    """Exports the items at and below ``path``, with the vectors of ``version`` (None: without vectors)."""

    def __init__(self, database: Database, tenant_id: UUID, path: str, version: IndexVersion | None) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._path = path
        self._version = version

    async def run(self, write: Callable[[bytes], Any], on_progress: OnProgress) -> int:
        """Call ``write`` with each line. Return the number of items."""
        span = range_of(self._path)
        written = 0
        async with self._database.snapshot(self._tenant_id) as snapshot:
            driver = await snapshot.driver()
            count = await driver.fetchval(COUNT_ITEMS, self._tenant_id, *span)
            async for rows in snapshot.pages(EXPORT_ITEMS, PAGE_SIZE, self._tenant_id, *span):
                vectors = await self._fetch_vectors(snapshot, rows)
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

    async def _fetch_vectors(self, snapshot: Snapshot, rows: list[asyncpg.Record]) -> dict[UUID, list[msgspec.Raw]]:
        """Return the vectors of ``rows`` by item id."""
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
            for one in await driver.fetch(export_vectors(space.width), *values):
                found.setdefault(one["item_id"], []).append(msgspec.Raw(one["numbers"].encode()))
        return found
