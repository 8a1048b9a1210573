"""The tables of LangGraph's PostgreSQL checkpointer and store, filled with what its saver in memory has stored."""

import json
from typing import Any

import asyncpg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

TABLES = """
create table checkpoints (thread_id text not null, checkpoint_ns text not null default '', checkpoint_id text not null,
  parent_checkpoint_id text, type text, checkpoint jsonb not null, metadata jsonb not null default '{}',
  primary key (thread_id, checkpoint_ns, checkpoint_id));
create table checkpoint_blobs (thread_id text not null, checkpoint_ns text not null default '', channel text not null,
  version text not null, type text not null, blob bytea, primary key (thread_id, checkpoint_ns, channel, version));
create table checkpoint_writes (thread_id text not null, checkpoint_ns text not null default '',
  checkpoint_id text not null, task_id text not null, idx integer not null, channel text not null, type text,
  blob bytea not null, task_path text not null default '',
  primary key (thread_id, checkpoint_ns, checkpoint_id, task_id, idx));
create table store (prefix text not null, key text not null, value jsonb not null,
  created_at timestamptz default current_timestamp, updated_at timestamptz default current_timestamp,
  expires_at timestamptz, ttl_minutes int, primary key (prefix, key));
"""


async def fill(url: str, saver: InMemorySaver, items: dict[tuple[str, str], Any]) -> None:
    """Create the tables at ``url`` and store what ``saver`` has, in the layout of version 3, and ``items``."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(TABLES)
        for thread, namespaces in saver.storage.items():
            for namespace, checkpoints in namespaces.items():
                for id_, (checkpoint, metadata, parent) in checkpoints.items():
                    await _add(connection, saver, (thread, namespace, id_), (checkpoint, metadata, parent))
        for (prefix, key), value in items.items():
            sql = "insert into store (prefix, key, value) values ($1, $2, $3)"
            await connection.execute(sql, prefix, key, json.dumps(value))
    finally:
        await connection.close()


async def _add(connection: asyncpg.Connection, saver: InMemorySaver, at: tuple[str, str, str], row: Any) -> None:
    thread, namespace, id_ = at
    checkpoint, metadata = (saver.serde.loads_typed(one) for one in row[:2])
    inline: dict[str, Any] = {}
    for name, version in checkpoint["channel_versions"].items():
        kind, body = saver.blobs[thread, namespace, name, version]
        value = None if kind == "empty" else saver.serde.loads_typed((kind, body))
        if kind != "empty" and (value is None or isinstance(value, str | int | float | bool)):
            inline[name] = value
        elif kind != "empty":
            if isinstance(value, _DeltaSnapshot):
                inline[name] = True
            sql = "insert into checkpoint_blobs values ($1, $2, $3, $4, $5, $6) on conflict do nothing"
            await connection.execute(sql, thread, namespace, name, version, kind, body)
    whole = json.dumps({**checkpoint, "channel_values": inline})
    sql = "insert into checkpoints values ($1, $2, $3, $4, null, $5, $6)"
    await connection.execute(sql, thread, namespace, id_, row[2], whole, json.dumps(metadata))
    for (task, index), (_, channel, (kind, body), path) in saver.writes.get(at, {}).items():
        sql = "insert into checkpoint_writes values ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        await connection.execute(sql, thread, namespace, id_, task, index, channel, kind, body, path)
