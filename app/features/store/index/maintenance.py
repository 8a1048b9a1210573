"""Background maintenance of the store for all tenants: backfill missing vectors, delete expired items.

Vectors are missing while a new index version is built, and of items put while the embedder failed.
"""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.base.errors import ModelError, ModelRejected
from app.base.tasks import Tasks
from app.features.store.index import sql
from app.features.store.index.fields import words_of
from app.features.store.index.indexing import embed_items, indexed_texts
from app.features.store.index.versions import REFRESH_SECONDS, SPACES_PER_VERSION, IndexVersion, IndexVersions
from app.features.store.queries import DELETE_EXPIRED, insert_vectors
from app.features.store.tables import WIDTHS
from app.features.store.vectors import ItemVector, prepare_connection
from app.infra.db.batches import repeat_deletion
from app.infra.db.engine import Database

log = structlog.get_logger(__name__)

BATCH_SIZE = 64
SETTLE_SECONDS = 2 * REFRESH_SECONDS
"""By then every process knows a new version: it writes its vectors, or no longer reads those of the old one."""

LOCK_ID = 0x73746F7265  # "store": one process at a time runs the backfill

SWEEP_SECONDS = 60.0


class UnindexedItem(msgspec.Struct, frozen=True):
    """An item that lacks vectors, with its indexed texts."""

    tenant_id: UUID
    item_id: UUID
    path: str
    texts: list[str]


class VectorBackfill:
    """Brings the items of all tenants to the newest index version. ``settle_seconds``: see ``SETTLE_SECONDS``."""

    def __init__(self, database: Database, versions: IndexVersions, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._database = database
        self._versions = versions
        self._settle_seconds = settle_seconds

    async def run_once(self) -> int:
        """Make all missing vectors, unless another process does. Return the number of items that got theirs."""
        async with self._database.engine_connection() as connection:
            if not await connection.fetchval(sql.TRY_LOCK, LOCK_ID):
                return 0
            try:
                return await self._run_locked(connection)
            finally:
                if not connection.is_closed():
                    await connection.execute(sql.UNLOCK, LOCK_ID)

    async def _run_locked(self, connection: asyncpg.Connection) -> int:
        version = self._versions.building or self._versions.serving
        made = 0
        try:
            while rows := await self._outdated(connection, version):
                await self._update(connection, version, rows)
                made += len(rows)
        except ModelError as error:
            log.warning("backfill_waits", version=version.number, error=type(error).__name__, reason=str(error))
            return made
        if self._versions.building is not None:
            done = await connection.execute(sql.SERVE_VERSION, version.number, self._settle_seconds)
            if done == "UPDATE 1":
                log.info("store_version_serves", version=version.number)
                await self._versions.refresh()
        await self._delete_old_versions(connection)
        return made

    async def _outdated(self, connection: asyncpg.Connection, version: IndexVersion) -> list[UnindexedItem]:
        found = []
        for row in await connection.fetch(sql.OUTDATED_ITEMS, version.number, BATCH_SIZE):
            fields = None if row["index"] is None else msgspec.json.decode(row["index"])
            texts = indexed_texts(version, row["namespace"], msgspec.json.decode(row["value"]), fields)
            found.append(UnindexedItem(row["tenant_id"], row["item_id"], row["namespace"], texts))
        return found

    async def _update(
        self, connection: asyncpg.Connection, version: IndexVersion, items: Sequence[UnindexedItem]
    ) -> None:
        """Write the words and vectors of ``items`` in ``version``. Raises ``ModelError``."""
        vectors = await _embed(version, items)
        await prepare_connection(connection)
        words = [words_of(item.texts) for item in items]
        tenants, ids = [item.tenant_id for item in items], [item.item_id for item in items]
        parameters: list[object] = [tenants, ids, words, version.number]
        statement = sql.UPDATE_INDEXED
        for width in sorted({vector.width for some in vectors for vector in some}):
            rows = [
                (item.tenant_id, item.item_id, vector.space, vector.part, item.path, vector.vector)
                for item, some in zip(items, vectors, strict=True)
                for vector in some
                if vector.width == width
            ]
            statement += insert_vectors(width, len(parameters), only="done")
            parameters += [list(column) for column in zip(*rows, strict=True)]
        await connection.execute(f"{statement} select", *parameters)

    async def _delete_old_versions(self, connection: asyncpg.Connection) -> None:
        """Delete versions that no process reads any more, with their vectors."""
        settled = await connection.fetchval(sql.SETTLED_VERSION, self._settle_seconds)
        if settled is None or not await connection.fetchval(sql.HAS_OLDER_VERSION, settled):
            return
        for width in WIDTHS:
            while await connection.execute(sql.delete_old_vectors(width), settled * SPACES_PER_VERSION) != "DELETE 0":
                pass
        await connection.execute(sql.DELETE_OLDER_VERSIONS, settled)


async def _embed(version: IndexVersion, items: Sequence[UnindexedItem]) -> list[list[ItemVector]]:
    """Return the vectors of each item, none for one that the model rejects. Raises ``ModelError``."""
    try:
        return await embed_items(
            version, [(item.path, item.texts) for item in items], [item.tenant_id for item in items]
        )
    except ModelRejected as error:
        if len(items) == 1:  # a retry would be rejected too: such an item is found by its words alone
            log.warning("item_not_embeddable", item=str(items[0].item_id), reason=str(error))
            return [[]]
    return [vectors for item in items for vectors in await _embed(version, [item])]


class StoreMaintenance:
    """Runs the backfill and the deletion of expired items periodically."""

    def __init__(self, database: Database, backfill: VectorBackfill) -> None:
        self._database = database
        self._backfill = backfill
        self._tasks = Tasks("store")

    def start(self) -> None:
        """Start both tasks: the backfill every few seconds, the deletion every minute."""
        self._tasks.repeat(self._backfill.run_once, REFRESH_SECONDS, name="backfill")
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def aclose(self) -> None:
        """Stop both tasks."""
        await self._tasks.aclose()

    async def sweep(self) -> int:
        """Delete expired items. Return their number."""
        return await repeat_deletion(self._database, "store items", DELETE_EXPIRED)
