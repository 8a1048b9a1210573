"""Index versions: one for each configuration of indexes that an agents file has had.

A changed configuration registers a new version. Its vectors are backfilled while searches use those of the complete
version; every put writes both. Every process follows the table ``store_versions``, which it reads every few seconds.
"""

import hashlib
from collections.abc import Callable, Sequence

import asyncpg
import msgspec
import structlog

from app.agents.config.agents_file import AgentsFile
from app.agents.config.store_index import Index, index_for, indexes_of
from app.base.errors import AgentServiceError, StartError
from app.base.tasks import Tasks
from app.features.store.index import sql
from app.features.store.index.fields import check_fields
from app.features.store.tables import WIDTHS
from app.infra.db.engine import Database
from app.providers.embeddings.port import Embedder

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 5.0
SPACES_PER_VERSION = 16
"""Space numbers reserved for the embedders of one version."""

FindEmbedder = Callable[[str, int], Embedder | None]
"""Returns the embedder of a name and a number of dimensions. Raises ``AgentServiceError`` if it is unavailable."""


class VectorSpace(msgspec.Struct, frozen=True, eq=False):
    """Vectors that can be compared: those of one embedder in one version. ``embedder`` is None if it is unavailable."""

    number: int
    width: int
    dimensions: int
    embedder: Embedder | None


class IndexVersion:
    """One version: its indexes, and the vector space of each that has one."""

    def __init__(self, number: int, indexes: Sequence[Index], find_embedder: FindEmbedder) -> None:
        self.number = number
        self.indexes = list(indexes)
        self._spaces: dict[tuple[str, int], VectorSpace] = {}
        for index in self.indexes:
            name = (index.embedder, index.dimensions)
            if index.dimensions and name not in self._spaces:
                width = next(width for width in WIDTHS if width >= index.dimensions)
                space = number * SPACES_PER_VERSION + len(self._spaces)
                self._spaces[name] = VectorSpace(space, width, index.dimensions, _find_or_none(find_embedder, *name))

    def index(self, path: str) -> tuple[Index, VectorSpace | None]:
        """Return the index and the vector space of items at ``path``; the space is None if they have no vectors."""
        index = index_for(path, self.indexes)
        return index, self._spaces.get((index.embedder, index.dimensions))

    def spaces(self, path: str) -> list[VectorSpace]:
        """Return the spaces of the items at and below ``path``."""
        relevant = [self.index(path)[0], *(index for index in self.indexes if index.path.startswith(path))]
        names = dict.fromkeys((index.embedder, index.dimensions) for index in relevant)
        return [self._spaces[name] for name in names if name in self._spaces]


class IndexVersions:
    """The versions that this process knows. Call ``open`` or ``attach`` before the first use."""

    serving: IndexVersion
    building: IndexVersion | None

    def __init__(self, database: Database, indexes: Sequence[Index], find_embedder: FindEmbedder) -> None:
        self._database = database
        self._indexes_json = msgspec.json.encode(list(indexes)).decode()
        self._fingerprint = hashlib.sha256(self._indexes_json.encode()).hexdigest()
        self._find_embedder = find_embedder
        self._known: dict[int, IndexVersion] = {}
        self._tasks = Tasks("store-versions")

    async def open(self) -> None:
        """Register the configuration of this process, then refresh every few seconds."""
        async with self._database.engine_connection() as connection:
            await self._register(connection)
        await self.refresh()
        self._tasks.repeat(self.refresh, REFRESH_SECONDS, name="refresh")

    async def aclose(self) -> None:
        """Stop refreshing."""
        await self._tasks.aclose()

    @property
    def widths(self) -> list[int]:
        """Widths of the vector tables that the serving version uses."""
        return sorted({space.width for space in self.serving.spaces("")})

    async def attach(self) -> None:
        """Read the versions that servers have registered; register one only if there is none."""
        async with self._database.engine_connection() as connection:
            if not await connection.fetchval(sql.ANY_VERSION):
                await self._register(connection)
        await self.refresh()

    async def _register(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(sql.REGISTERED_VERSIONS)
        serving = max((row["version"] for row in rows if row["serving"]), default=0)
        ours = next((row for row in rows if row["fingerprint"] == self._fingerprint), None)
        if ours is not None and ours["version"] == serving:
            # back to the serving configuration: drop the version that was being built
            await connection.execute(sql.DELETE_NEWER_VERSIONS, serving)
            return
        if ours is not None and ours["version"] < serving:
            await connection.execute(sql.DELETE_VERSION, ours["version"])
        if ours is None or ours["version"] < serving:
            await connection.execute(sql.REGISTER_VERSION, self._fingerprint, self._indexes_json)
            log.info("store_version_declared", building=bool(rows))

    async def refresh(self) -> None:
        """Read the registered versions."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(sql.REGISTERED_VERSIONS)
        serving = max((row["version"] for row in rows if row["serving"]), default=0)
        newest = max((row["version"] for row in rows), default=0)
        for row in rows:
            if row["version"] not in self._known:
                indexes = msgspec.json.decode(row["indexes"], type=list[Index])
                self._known[row["version"]] = IndexVersion(row["version"], indexes, self._find_embedder)
        self.serving = self._known[serving]
        self.building = self._known[newest] if newest > serving else None


def build_versions(database: Database, agents: AgentsFile, find_embedder: FindEmbedder) -> IndexVersions:
    """Build the versions of the agents file. Raises ``StartError`` as ``validate_indexes``."""
    return IndexVersions(database, validate_indexes(agents, find_embedder), find_embedder)


def validate_indexes(agents: AgentsFile, find_embedder: FindEmbedder) -> list[Index]:
    """Return the indexes of the agents file. Raises ``StartError`` if an embedder is unavailable or a field invalid."""
    indexes = indexes_of(agents.store)
    try:
        for index in indexes:
            check_fields(index.fields)
            find_embedder(index.embedder, index.dimensions)
    except AgentServiceError as error:
        raise StartError(f"{agents.source}: store: {error}") from error
    return indexes


def _find_or_none(find_embedder: FindEmbedder, name: str, dimensions: int) -> Embedder | None:
    try:
        return find_embedder(name, dimensions)
    except AgentServiceError as error:  # configured in an older file; its API key may be removed
        log.warning("embedder_missing", embedder=name, reason=str(error))
        return None
