"""Writes what belongs to a tenant, or to one person in it, as JSON Lines: one moment of the database, row by row."""

import base64
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
import zstandard

from app.base.clock import now
from app.engine.checkpoints.codec import unpack
from app.engine.structs import kwargs_of
from app.features.data_rights import queries
from app.features.data_rights.queries import TenantTable
from app.features.data_rights.structs import DataSubject
from app.features.threads.queries import with_states
from app.features.threads.views import thread_view
from app.infra.db.engine import Database
from app.infra.db.revisions import HEAD
from app.infra.db.session import Snapshot

DERIVED = ("live_frames", "store_vectors_")
"""Tables (by how their names begin) of copies that machines make of other rows."""

OMITTED = {
    "api_keys": {"digest", "previous_digest"},
    "idempotency_keys": {"answer", "fingerprint"},
    "store_items": {"words"},
}
"""What protects a secret, and what repeats other rows."""

WITH_PERSON = {("runs", "request"), ("crons", "payload")}
"""Where handlers of the operator's keep who asked, perhaps with a token of the person's: left out."""

AT_ONCE = 20

PLAIN = {
    "uuid", "text", "integer", "bigint", "smallint", "boolean", "bytea", "date", "numeric", "real", "double precision",
    "timestamp with time zone", "text[]", "bigint[]", "uuid[]",
}  # fmt: skip
encode = msgspec.json.Encoder().encode

Write = Callable[[bytes], object]


async def export(database: Database, data_subject: DataSubject, tenant: str, write: Write) -> Counter[str]:
    """Give ``write`` a line for each row, between one that says what it is and one that ends it; how many, by kind."""
    counts: Counter[str] = Counter()
    _line(write, "export", {"tenant": tenant, "metadata": data_subject.metadata, "schema": HEAD, "at": now()})
    async with database.snapshot(data_subject.tenant_id) as snapshot:
        for table in reversed(await queries.tables(await snapshot.driver())):
            if table.name.startswith(DERIVED):
                continue
            async for rows in snapshot.pages(
                table.select(data_subject, _columns(table)), AT_ONCE, *data_subject.parameters()
            ):
                shown_rows = [_row(table, row) for row in rows]
                if table.name == "threads":
                    await _add_values(snapshot, data_subject, shown_rows)
                for row in shown_rows:
                    _line(write, table.name, row)
                counts[table.name] += len(rows)
    _line(write, "end", {"rows": counts})
    return counts


def _line(write: Write, kind: str, row: dict[str, Any]) -> None:
    write(encode({"kind": kind, "row": row}) + b"\n")


def _columns(table: TenantTable) -> str:
    """Types of which the driver knows nothing come as text, JSON too."""
    return ", ".join(
        f'x."{name}"' if of in PLAIN else f'x."{name}"::text as "{name}"'
        for name, of in zip(table.columns, table.types, strict=True)
        if name not in OMITTED.get(table.name, set())
    )


def _row(table: TenantTable, row: asyncpg.Record) -> dict[str, Any]:
    types = dict(zip(table.columns, table.types, strict=True))
    return {
        name: kwargs_of(value) if (table.name, name) in WITH_PERSON else _value(types[name], value)
        for name, value in row.items()
    }


def _value(of: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return _content(value)
    if of in {"json", "jsonb"} and value is not None:
        return msgspec.Raw(value.encode())
    return value.isoformat() if isinstance(value, datetime) else value


def _content(stored: bytes) -> Any:
    """The JSON that rests in a column of bytes; what is none, as base64."""
    try:
        text = unpack(stored)
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, zstandard.ZstdError, UnicodeDecodeError):
        return {"base64": base64.b64encode(stored).decode()}
    return msgspec.Raw(text)


async def _add_values(snapshot: Snapshot, data_subject: DataSubject, rows: list[dict[str, Any]]) -> None:
    """Give threads their latest values, which lie in many rows."""
    states = await with_states(snapshot, data_subject.tenant_id, [row["thread_id"] for row in rows])
    for row, state in zip(rows, states, strict=True):
        row["values"] = thread_view(state).values
