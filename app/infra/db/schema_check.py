"""Check that a database has the whole schema: every table, column, index, trigger, function and policy.

The revision alone is not enough: a restore that failed half-way leaves the newest revision with missing tables.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db.sql import CATALOGUE

TRIGGERS = frozenset(
    {
        "documents_gone",
        "push_fill",
        "runs_birth",
        "runs_guard",
        "runs_record_delete",
        "runs_record_insert",
        "runs_record_update",
        "store_items_gone",
        "store_items_put",
        "webhooks_fill",
    }
)
"""Triggers that migrations create, which SQLAlchemy's metadata does not contain. A test compares them."""

FUNCTIONS = frozenset(
    {
        "documents_forget_chunks",
        "push_fill",
        "runs_guard",
        "runs_record",
        "runs_unborn",
        "store_analyze",
        "store_forget_vectors",
        "store_matches",
        "store_shares",
        "webhooks_fill",
    }
)
"""Functions that migrations create. A test compares them."""


async def missing_parts(connection: AsyncConnection, metadata: sa.MetaData) -> list[str]:
    """Return what the database lacks of ``metadata`` and of what migrations create besides it, in a stable order.

    Each is one of ``table NAME``, ``column TABLE.NAME``, ``index NAME``, ``policies of TABLE``, ``trigger NAME`` and
    ``function NAME``. A missing table is listed without its columns and indexes.
    """
    found = set((await connection.execute(CATALOGUE)).scalars())
    tables = {name.removeprefix("column ").partition(".")[0] for name in found if name.startswith("column ")}
    missing = [f"table {table.name}" for table in metadata.sorted_tables if table.name not in tables]
    for table in metadata.sorted_tables:
        if table.name in tables:
            missing += [part for part in _parts_of(table) if part not in found]
    others = {f"trigger {name}" for name in TRIGGERS} | {f"function {name}" for name in FUNCTIONS}
    return [*missing, *sorted(others - found)]


def _parts_of(table: sa.Table) -> list[str]:
    columns: list[Any] = list(table.columns)
    parts = [f"column {table.name}.{column.name}" for column in columns]
    parts += [f"index {index.name}" for index in sorted(table.indexes, key=lambda index: str(index.name))]
    if "tenant_id" in table.columns:
        parts.append(f"policies of {table.name}")
    return parts
