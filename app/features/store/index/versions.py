"""Which vectors there are: versions of what the agents file says of indexes.

A file that says something new makes a new version. Its vectors are made in the background, while searches use those of
the version that is complete; every put makes both. What every process does follows the table, looked at every few
seconds.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import msgspec
import structlog

from app.agents.config.agents_file import AgentsFile
from app.agents.config.store_index import Index, index_for, indexes_of
from app.base.errors import AgentServiceError, StartError
from app.base.tasks import Tasks
from app.features.store.index.fields import check_fields
from app.features.store.tables import WIDTHS
from app.infra.db.engine import Database
from app.providers.embeddings.port import Embedder

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
SPACES = 16
"""Numbers of embedders in one version."""

FindEmbedder = Callable[[str, int], Embedder | None]
"""The embedder of a name and a number of dimensions. Raises ``AgentServiceError`` where it cannot be had."""

_ALL = "select version, fingerprint, indexes::text as indexes, serving_since is not null as serving from store_versions"
_ADD = """
insert into store_versions (fingerprint, indexes, serving_since)
select $1, $2::jsonb, case when not exists (select from store_versions) then now() end
on conflict (fingerprint) do nothing
"""


class VectorSpace(msgspec.Struct, frozen=True, eq=False):
    """Vectors that can be compared: of one embedder in one version. ``embedder`` is None where it cannot be had."""

    number: int
    width: int
    dimensions: int
    embedder: Embedder | None


class IndexVersion:
    """One version: its indexes, and the space of each that has vectors."""

    def __init__(self, number: int, indexes: Sequence[Index], find: FindEmbedder) -> None:
        self.number = number
        self.indexes = list(indexes)
        self._spaces: dict[tuple[str, int], VectorSpace] = {}
        for index in self.indexes:
            name = (index.embedder, index.dimensions)
            if index.dimensions and name not in self._spaces:
                width = next(width for width in WIDTHS if width >= index.dimensions)
                number_of_it = number * SPACES + len(self._spaces)
                self._spaces[name] = VectorSpace(number_of_it, width, index.dimensions, _found(find, *name))

    def index(self, path: str) -> tuple[Index, VectorSpace | None]:
        """How items at ``path`` are indexed; without a space they have no vectors."""
        index = index_for(path, self.indexes)
        return index, self._spaces.get((index.embedder, index.dimensions))

    def spaces(self, path: str) -> list[VectorSpace]:
        """Those in which items at or below ``path`` have vectors."""
        relevant = [self.index(path)[0], *(index for index in self.indexes if index.path.startswith(path))]
        names = dict.fromkeys((index.embedder, index.dimensions) for index in relevant)
        return [self._spaces[name] for name in names if name in self._spaces]


class IndexVersions:
    """The versions as this process sees them; ``open`` before the first use."""

    serving: IndexVersion
    building: IndexVersion | None

    def __init__(self, database: Database, indexes: Sequence[Index], find: FindEmbedder) -> None:
        self._database = database
        self._written = msgspec.json.encode(list(indexes)).decode()
        self._fingerprint = hashlib.sha256(self._written.encode()).hexdigest()
        self._find = find
        self._known: dict[int, IndexVersion] = {}
        self._tasks = Tasks("store-versions")
        self.aclose = self._tasks.aclose

    async def open(self) -> None:
        """Let the table say what this process's file says; then look at it every few seconds."""
        async with self._database.engine_connection() as connection:
            await self._declare(connection)
        await self.refresh()
        self._tasks.repeat(self.refresh, LOOK_SECONDS, name="look")

    @property
    def widths(self) -> list[int]:
        """Of the tables in which the version that serves has vectors."""
        return sorted({space.width for space in self.serving.spaces("")})

    async def join(self) -> None:
        """See which versions there are, beside servers that declare them; what this file says counts where none is."""
        async with self._database.engine_connection() as connection:
            if not await connection.fetchval("select exists (select from store_versions)"):
                await self._declare(connection)
        await self.refresh()

    async def _declare(self, connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(_ALL)
        serving = max((row["version"] for row in rows if row["serving"]), default=0)
        ours = next((row for row in rows if row["fingerprint"] == self._fingerprint), None)
        if ours is not None and ours["version"] == serving:
            # back to what is served: whatever was on its way to take its place is not wanted any more
            await connection.execute("delete from store_versions where version > $1", serving)
            return
        if ours is not None and ours["version"] < serving:
            await connection.execute("delete from store_versions where version = $1", ours["version"])
        if ours is None or ours["version"] < serving:
            await connection.execute(_ADD, self._fingerprint, self._written)
            log.info("store_version_declared", building=bool(rows))

    async def refresh(self) -> None:
        """See which versions there are."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(_ALL)
        served = max((row["version"] for row in rows if row["serving"]), default=0)
        newest = max((row["version"] for row in rows), default=0)
        for row in rows:
            if row["version"] not in self._known:
                indexes = msgspec.json.decode(row["indexes"], type=list[Index])
                self._known[row["version"]] = IndexVersion(row["version"], indexes, self._find)
        self.serving = self._known[served]
        self.building = self._known[newest] if newest > served else None


def build_versions(database: Database, agents: AgentsFile, find: FindEmbedder) -> IndexVersions:
    """The versions by the agents file. Raises ``StartError`` as ``checked_indexes``."""
    return IndexVersions(database, checked_indexes(agents, find), find)


def checked_indexes(agents: AgentsFile, find: FindEmbedder) -> list[Index]:
    """The indexes of the agents file. Raises ``StartError`` for an embedder that is not available, or bad fields."""
    indexes = indexes_of(agents.store)
    try:
        for index in indexes:
            check_fields(index.fields)
            find(index.embedder, index.dimensions)
    except AgentServiceError as error:
        raise StartError(f"{agents.source}: store: {error}") from error
    return indexes


def _found(find: FindEmbedder, name: str, dimensions: int) -> Any:
    try:
        return find(name, dimensions)
    except AgentServiceError as error:  # of an older file, whose key may be gone
        log.warning("embedder_missing", embedder=name, reason=str(error))
        return None
