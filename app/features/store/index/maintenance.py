"""Vectors that are missing are made in the background: of a version on its way, and where an embedder had failed.

What is done for the store of all tenants in the background: items whose time is over go, missing vectors come.
"""

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.base.errors import ModelError, ModelRejected
from app.base.tasks import Tasks
from app.features.store.index.fields import words_of
from app.features.store.index.indexing import ItemVector, texts_in, vectors_of
from app.features.store.index.versions import LOOK_SECONDS, SPACES, IndexVersion, IndexVersions
from app.features.store.queries import PUT_VECTORS, SWEEP
from app.features.store.tables import WIDTHS
from app.infra.db.batches import repeat_deletion
from app.infra.db.engine import Database

log = structlog.get_logger(__name__)

AT_ONCE = 64
SETTLED_SECONDS = 2 * LOOK_SECONDS
"""After this time every process makes vectors of a new version, or has stopped to look at those of the one before."""

LOCK = 0x73746F7265  # "store": one process does this

_MISSING = """
select tenant_id, item_id, namespace, value::text as value, index::text as index
from store_items where version < $1 order by version limit $2
"""
_THERE = """
with done as (
  update store_items i set version = $4,
    words = to_tsvector('simple', g.words) || array_to_tsvector(array['@' || i.tenant_id])
  from unnest($1::uuid[], $2::uuid[], $3::text[]) as g(tenant_id, item_id, words)
  where i.tenant_id = g.tenant_id and i.item_id = g.item_id
  returning i.tenant_id, i.item_id
)
"""
_SERVE = """
update store_versions set serving_since = now()
where version = $1 and serving_since is null and created_at < now() - make_interval(secs => $2)
  and not exists (select from store_items where version < $1)
"""
_SERVED = "select max(version) from store_versions where serving_since < now() - make_interval(secs => $1)"
_BEFORE = "delete from store_versions where version < $1"


def _forget(width: int) -> str:
    return (
        f"delete from store_vectors_{width} where ctid = any(array("  # noqa: S608  a number of ours
        f"select ctid from store_vectors_{width} where space < $1 limit 5000))"
    )


class UnindexedItem(msgspec.Struct, frozen=True):
    """An item that lacks vectors, and the texts that are looked at."""

    tenant_id: UUID
    item_id: UUID
    path: str
    texts: list[str]


class VectorBackfill:
    """Brings the items of all tenants to the newest version. ``settled`` seconds: see ``SETTLED_SECONDS``."""

    def __init__(self, database: Database, versions: IndexVersions, settled: float = SETTLED_SECONDS) -> None:
        self._database = database
        self._versions = versions
        self._settled = settled

    async def work(self) -> int:
        """Make what is missing, unless another process does; how many items got their vectors."""
        async with self._database.engine_connection() as connection:
            if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
                return 0
            try:
                return await self._work(connection)
            finally:
                if not connection.is_closed():
                    await connection.execute("select pg_advisory_unlock($1)", LOCK)

    async def _work(self, connection: asyncpg.Connection) -> int:
        version = self._versions.building or self._versions.serving
        made = 0
        try:
            while rows := await self._missing(connection, version):
                await self._bring(connection, version, rows)
                made += len(rows)
        except ModelError as error:
            log.warning("backfill_waits", version=version.number, error=type(error).__name__, reason=str(error))
            return made
        if self._versions.building is not None:
            done = await connection.execute(_SERVE, version.number, self._settled)
            if done == "UPDATE 1":
                log.info("store_version_serves", version=version.number)
                await self._versions.refresh()
        await self._remove_old(connection)
        return made

    async def _missing(self, connection: asyncpg.Connection, version: IndexVersion) -> list[UnindexedItem]:
        found = []
        for row in await connection.fetch(_MISSING, version.number, AT_ONCE):
            fields = None if row["index"] is None else msgspec.json.decode(row["index"])
            texts = texts_in(version, row["namespace"], msgspec.json.decode(row["value"]), fields)
            found.append(UnindexedItem(row["tenant_id"], row["item_id"], row["namespace"], texts))
        return found

    async def _bring(
        self, connection: asyncpg.Connection, version: IndexVersion, items: Sequence[UnindexedItem]
    ) -> None:
        """Give ``items`` the words and vectors of ``version``. Raises ``ModelError``."""
        vectors = await _vectors(version, items)
        words = [words_of(item.texts) for item in items]
        tenants, ids = [item.tenant_id for item in items], [item.item_id for item in items]
        parameters: list[object] = [tenants, ids, words, version.number]
        statement = _THERE
        for width in sorted({vector.width for some in vectors for vector in some}):
            rows = [
                (item.tenant_id, item.item_id, vector.space, vector.part, item.path, vector.text)
                for item, some in zip(items, vectors, strict=True)
                for vector in some
                if vector.width == width
            ]
            statement += PUT_VECTORS(width, len(parameters), only="done")
            parameters += [list(column) for column in zip(*rows, strict=True)]
        await connection.execute(f"{statement} select", *parameters)

    async def _remove_old(self, connection: asyncpg.Connection) -> None:
        """Vectors of versions that nobody looks at any more."""
        served = await connection.fetchval(_SERVED, self._settled)
        if served is None or not await connection.fetchval("select min(version) < $1 from store_versions", served):
            return
        for width in WIDTHS:
            while await connection.execute(_forget(width), served * SPACES) != "DELETE 0":
                pass
        await connection.execute(_BEFORE, served)


async def _vectors(version: IndexVersion, items: Sequence[UnindexedItem]) -> list[list[ItemVector]]:
    """Of each item. Raises ``ModelError``."""
    try:
        return await vectors_of(
            version, [(item.path, item.texts) for item in items], [item.tenant_id for item in items]
        )
    except ModelRejected as error:
        if len(items) == 1:  # it would be refused again: such an item is found by its words alone
            log.warning("item_not_embeddable", item=str(items[0].item_id), reason=str(error))
            return [[]]
    return [vectors for item in items for vectors in await _vectors(version, [item])]


SWEEP_SECONDS = 60.0


class StoreMaintenance:
    """Keeps the store as it should be."""

    def __init__(self, database: Database, backfill: VectorBackfill) -> None:
        self._database = database
        self._backfill = backfill
        self._tasks = Tasks("store")
        self.aclose = self._tasks.aclose

    def start(self) -> None:
        """Sweep every minute, look for missing vectors every few seconds."""
        self._tasks.repeat(self._backfill.work, LOOK_SECONDS, name="backfill")
        self._tasks.repeat(self.sweep, SWEEP_SECONDS, name="sweep")

    async def sweep(self) -> int:
        """Remove items whose time is over; how many."""
        return await repeat_deletion(self._database, "store items", SWEEP)
