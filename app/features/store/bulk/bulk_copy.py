"""Items into the tables in bulk: copied beside them, then taken over by one statement a batch, in one transaction.

Indexes of neighbours taken away for a bulk load and built anew after it, which takes a fraction of the time.

Searches go on meanwhile, only slower: every vector of a tenant is compared. Both steps let others read and write.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import Conflict, StartError
from app.features.store.bulk.json_lines import PreparedItem
from app.features.store.queries import EXPIRY, REPLACE, WORDS
from app.features.store.tables import WIDTHS
from app.features.store.validation import labels_of

ConflictPolicy = Literal["keep", "replace", "fail"]
"""What becomes of an item that is there already."""

_COLUMNS = {
    "namespace": "text",
    "key": "text",
    "item_id": "uuid",
    "value": "text",
    "index": "text",
    "words": "text",
    "version": "int",
    "ttl_minutes": "float8",
    "expires_at": "timestamptz",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
_STAGE = f"""
create temp table staged_items ({", ".join(f"{name} {of}" for name, of in _COLUMNS.items())}) on commit delete rows;
{
    "".join(
        f"create temp table staged_{width} (item_id uuid, space int, part smallint, namespace text,"
        f" embedding halfvec({width})) on commit delete rows;"
        for width in WIDTHS
    )
}
"""
_JOINED = "set local enable_hashjoin = on; set local enable_seqscan = on; set local plan_cache_mode = auto"
"""The engine's plans are for few rows by their key."""

_TYPES = """
select n.nspname from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typname = 'halfvec'
"""
_FIRST_THERE = """
select s.namespace, s.key from staged_items s join store_items i using (namespace, key)
where i.tenant_id = $1 and (i.expires_at is null or i.expires_at > now()) order by namespace, key limit 1
"""


def _take_over(policy: ConflictPolicy, widths: Sequence[int]) -> str:
    """The statement; what is over counts as gone. ``created_at`` stays that of the item that is replaced."""
    only = "" if policy == "replace" else "where i.expires_at <= now()"
    vectors = "".join(
        f""", vectors_{width} as (
  insert into store_vectors_{width} (tenant_id, item_id, space, part, namespace, embedding)
  select $1, v.item_id, v.space, v.part, v.namespace, v.embedding from staged_{width} v join put using (item_id)
)"""  # noqa: S608  numbers of ours
        for width in widths
    )
    return f"""
with given as (select $1::uuid as tenant_id, * from staged_items), put as (
  insert into store_items as i (tenant_id, namespace, key, item_id, value, index, words, version, ttl_minutes,
    expires_at, created_at, updated_at)
  select tenant_id, namespace, key, item_id, value::jsonb, index::jsonb, {WORDS}, version, ttl_minutes,
    coalesce(expires_at, {EXPIRY}), coalesce(created_at, now()), coalesce(updated_at, now())
  from given order by namespace, key
  on conflict (tenant_id, namespace, key) do update set
    {REPLACE}, updated_at = excluded.updated_at,
    created_at = case when i.expires_at <= now() or excluded.created_at <> now()
      then excluded.created_at else i.created_at end
    {only}
  returning item_id, version, xmax = 0 as new
){vectors}
select count(*) filter (where new) as new, count(*) filter (where not new) as replaced,
  count(*) filter (where version = 0) as bare from put
"""  # noqa: S608  statements are joined from constants of ours


class BulkResult(msgspec.Struct):
    """How many items of some lines were new, took the place of another, or gave way to the one that was there.

    ``bare``: of those that were stored, how many lack vectors.
    """

    new: int = 0
    replaced: int = 0
    kept: int = 0
    bare: int = 0


class BulkLoader:
    """Stores items of one tenant over ``connection``, which it has for itself; ``open`` before the first use."""

    def __init__(self, connection: asyncpg.Connection, tenant_id: UUID, policy: ConflictPolicy) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._policy: ConflictPolicy = policy

    async def open(self) -> None:
        """Make the tables that items are copied into: they are this connection's, and end with it."""
        await self._connection.set_type_codec(
            "halfvec", schema=await self._connection.fetchval(_TYPES), encoder=bytes, decoder=bytes, format="binary"
        )
        await self._connection.execute(_STAGE)

    async def store(self, items: Sequence[PreparedItem]) -> BulkResult:
        """Store ``items``, each at another place: all or none. Raises ``Conflict`` for one that must not be there."""
        rows = [tuple(getattr(item, name if name != "namespace" else "path") for name in _COLUMNS) for item in items]
        vectors: dict[int, list[tuple[object, ...]]] = {}
        for item in items:
            for one in item.vectors:
                vectors.setdefault(one.width, []).append((item.item_id, one.space, one.part, item.path, one.halves))
        connection = self._connection
        async with connection.transaction():
            await connection.copy_records_to_table("staged_items", records=rows, columns=list(_COLUMNS))
            for width, some in vectors.items():
                await connection.copy_records_to_table(f"staged_{width}", records=some)
            await connection.execute(_JOINED)
            if self._policy == "fail":
                there = await connection.fetchrow(_FIRST_THERE, self._tenant_id)
                if there is not None:
                    raise Conflict(f"{labels_of(there['namespace'])} {there['key']!r} is there already")
            row = await connection.fetchrow(_take_over(self._policy, sorted(vectors)), self._tenant_id)
            assert row is not None
            if self._policy == "fail" and row["new"] + row["replaced"] < len(items):
                raise Conflict("an item came to be there just now")
        return BulkResult(row["new"], row["replaced"], len(items) - row["new"] - row["replaced"], row["bare"])


_FOUND = """
select c.relname as name, pg_get_indexdef(i.indexrelid) as definition
from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
join pg_class t on t.oid = i.indrelid
where a.amname = 'hnsw' and t.relname = any($1) and t.relnamespace = 'public'::regnamespace order by 1
"""
_MEMORY = "set maintenance_work_mem = '512MB'"


@contextlib.asynccontextmanager
async def without_neighbours(url: str, tables: list[str], on_progress: Callable[[str], None]) -> AsyncIterator[None]:
    """Drop the indexes of ``tables`` for the time of the block, as their owner; ``on_progress`` hears what is done.

    Raises ``StartError`` with the statement that builds an index which could not be built.
    """
    indexes = await _as_owner(url, lambda connection: connection.fetch(_FOUND, tables))
    for index in indexes:
        on_progress(f"taking away the index {index['name']}")
        await _as_owner(url, _statement("drop index concurrently " + index["name"]))
    try:
        yield
    finally:
        for index in indexes:
            on_progress(f"building the index {index['name']}")
            await _build(url, index["name"], index["definition"])


async def _build(url: str, name: str, definition: str) -> None:
    statement = definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)

    async def build(connection: asyncpg.Connection) -> None:
        await connection.execute(_MEMORY)
        await connection.execute(statement)

    try:
        await _as_owner(url, build)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(
            f"the index {name} is not built ({type(error).__name__}), searches are slow without it; build it with: "
            f'drop index if exists "{name}"; {definition}'
        ) from error


async def _as_owner(url: str, use: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await use(connection)
    finally:
        await connection.close()


def _statement(text: str) -> Callable[[asyncpg.Connection], Awaitable[Any]]:
    return lambda connection: connection.execute(text)
