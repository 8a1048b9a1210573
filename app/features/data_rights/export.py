"""Export the data of a tenant or of one person in it as JSON Lines, from one database snapshot."""

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
"""Name prefixes of tables whose rows are derived from other rows."""

OMITTED = {
    "api_keys": {"digest", "previous_digest"},
    "idempotency_keys": {"answer", "fingerprint"},
    "store_items": {"words"},
}
"""Columns that protect a secret or duplicate other rows."""

WITH_AUTH_USER = {("runs", "request"), ("crons", "payload")}
"""Columns that hold the user of custom auth, perhaps with a token, which is left out."""

PAGE_ROWS = 20

NATIVE_TYPES = {
    "uuid", "text", "integer", "bigint", "smallint", "boolean", "bytea", "date", "numeric", "real", "double precision",
    "timestamp with time zone", "text[]", "bigint[]", "uuid[]",
}  # fmt: skip
encode = msgspec.json.Encoder().encode

Write = Callable[[bytes], object]


async def export(database: Database, data_subject: DataSubject, tenant: str, write: Write) -> Counter[str]:
    """Write a header, a line for each row and a footer; return the number of rows by table."""
    counts: Counter[str] = Counter()
    _line(write, "export", {"tenant": tenant, "metadata": data_subject.metadata, "schema": HEAD, "at": now()})
    async with database.snapshot(data_subject.tenant_id) as snapshot:
        for table in reversed(await queries.tables(await snapshot.driver())):
            if table.name.startswith(DERIVED):
                continue
            async for rows in snapshot.pages(
                table.select(data_subject, _columns(table)), PAGE_ROWS, *data_subject.parameters()
            ):
                exported = [_row(table, row) for row in rows]
                if table.name == "threads":
                    await _add_values(snapshot, data_subject, exported)
                for row in exported:
                    _line(write, table.name, row)
                counts[table.name] += len(rows)
    _line(write, "end", {"rows": counts})
    return counts


def _line(write: Write, kind: str, row: dict[str, Any]) -> None:
    write(encode({"kind": kind, "row": row}) + b"\n")


def _columns(table: TenantTable) -> str:
    """Return the select list; types that the driver does not decode, and JSON, are cast to text."""
    return ", ".join(
        f'x."{name}"' if of in NATIVE_TYPES else f'x."{name}"::text as "{name}"'
        for name, of in zip(table.columns, table.types, strict=True)
        if name not in OMITTED.get(table.name, set())
    )


def _row(table: TenantTable, row: asyncpg.Record) -> dict[str, Any]:
    types = dict(zip(table.columns, table.types, strict=True))
    return {
        name: kwargs_of(value) if (table.name, name) in WITH_AUTH_USER else _value(types[name], value)
        for name, value in row.items()
    }


def _value(of: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return _content(value)
    if of in {"json", "jsonb"} and value is not None:
        return msgspec.Raw(value.encode())
    return value.isoformat() if isinstance(value, datetime) else value


def _content(stored: bytes) -> Any:
    """Return the JSON stored in a bytes column; base64 if it is not valid JSON."""
    try:
        text = unpack(stored)
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, zstandard.ZstdError, UnicodeDecodeError):
        return {"base64": base64.b64encode(stored).decode()}
    return msgspec.Raw(text)


async def _add_values(snapshot: Snapshot, data_subject: DataSubject, rows: list[dict[str, Any]]) -> None:
    """Add their latest values to threads; values are stored in many rows."""
    states = await with_states(snapshot, data_subject.tenant_id, [row["thread_id"] for row in rows])
    for row, state in zip(rows, states, strict=True):
        row["values"] = thread_view(state).values
