"""Items of the store: imported as lines of ``agent-service store import``, then compared with them."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.cli.langgraph_import import sql
from app.cli.langgraph_import.source import Source
from app.features.store.bulk.importer import ItemImporter

decode = msgspec.json.Decoder().decode


class ItemComparison:
    """Imports the items of ``source``; an item that the tenant has already is kept."""

    def __init__(self, source: Source, importer: ItemImporter, connection: asyncpg.Connection, tenant_id: UUID) -> None:
        self._source = source
        self._importer = importer
        self._connection = connection
        self._tenant_id = tenant_id
        self.equal = 0
        self.different = 0
        """Items whose value is, or is not, that of the tenant."""

    async def run(self, on_progress: Callable[[int], None]) -> None:
        """Import all. Raises ``StartError``."""
        first = 1
        async for lines in self._source.items():
            await self._importer.run(iter(enumerate(lines, first)))
            first += len(lines)
            await self._compare([decode(line) for line in lines])
            on_progress(first - 1)

    async def _compare(self, items: Sequence[dict[str, Any]]) -> None:
        paths = [".".join((*item["namespace"], "")) for item in items]
        keys = [item["key"] for item in items]
        rows = await self._connection.fetch(sql.FOUND, self._tenant_id, paths, keys)
        ours = {(row["namespace"], row["key"]): decode(row["value"]) for row in rows}
        for path, item in zip(paths, items, strict=True):
            found = ours.get((path, item["key"]))
            if found is not None:
                self.equal += found == item["value"]
                self.different += found != item["value"]
