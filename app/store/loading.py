"""Items into the tables in bulk: copied beside them, then taken over by one statement a batch, in one transaction."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import Conflict
from app.store.lines import Loaded
from app.store.names import labels_of
from app.store.queries import EXPIRY, REPLACE, WORDS
from app.store.tables import WIDTHS

Policy = Literal["keep", "replace", "fail"]
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


def _take_over(policy: Policy, widths: Sequence[int]) -> str:
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


class Stored(msgspec.Struct):
    """How many items of some lines were new, took the place of another, or gave way to the one that was there.

    ``bare``: of those that were stored, how many lack vectors.
    """

    new: int = 0
    replaced: int = 0
    kept: int = 0
    bare: int = 0


class Loader:
    """Stores items of one tenant over ``connection``, which it has for itself; ``open`` before the first use."""

    def __init__(self, connection: asyncpg.Connection, tenant_id: UUID, policy: Policy) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._policy: Policy = policy

    async def open(self) -> None:
        """Make the tables that items are copied into: they are this connection's, and end with it."""
        await self._connection.set_type_codec(
            "halfvec", schema=await self._connection.fetchval(_TYPES), encoder=bytes, decoder=bytes, format="binary"
        )
        await self._connection.execute(_STAGE)

    async def store(self, items: Sequence[Loaded]) -> Stored:
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
        return Stored(row["new"], row["replaced"], len(items) - row["new"] - row["replaced"], row["bare"])
