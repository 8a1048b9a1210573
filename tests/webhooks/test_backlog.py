"""Cost of claiming a delivery while one tenant has a long backlog."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg

from app.features.webhooks.queries import CLAIM_DUE, NEXT_DUE

LONG, SHORT = UUID(int=1), UUID(int=2)
BACKLOG = 20_000
FREE: tuple[list[str], list[UUID], list[UUID], list[str]] = ([], [], [], [])

FILL = """
insert into webhook_deliveries (tenant_id, run_id, thread_id, url, host, due_at)
select $1, gen_random_uuid(), gen_random_uuid(), 'http://x/', $2,
  now() - make_interval(hours => $4) + n * interval '1 ms'
from generate_series(1, $3::int) as n
"""


async def test_a_long_backlog_of_one_tenant_is_not_read_for_the_webhooks_of_others(fresh_database_url: str) -> None:
    connection = await asyncpg.connect(fresh_database_url)
    try:
        await connection.execute(FILL, LONG, "busy", BACKLOG, 2)
        await connection.execute(FILL, SHORT, "idle", 3, 1)
        await connection.execute("analyze webhook_deliveries")
        full: Any
        for full in (([], [LONG], [], []), ([], [], [LONG], ["busy"]), (["busy"], [], [], [])):
            assert await rows_read(connection, CLAIM_DUE, 60.0, *full) < 5000
            taken = await connection.fetchrow(CLAIM_DUE, 60.0, *full)
            assert (taken["tenant_id"], taken["host"], taken["attempts"]) == (SHORT, "idle", 1)
        assert await connection.fetchrow(CLAIM_DUE, 60.0, [], [LONG], [], []) is None, "each is claimed once"
        first = await connection.fetchrow(CLAIM_DUE, 60.0, *FREE)
        assert first["tenant_id"] == LONG
        assert await rows_read(connection, NEXT_DUE) < 10
    finally:
        await connection.close()


async def rows_read(connection: asyncpg.Connection, statement: str, *parameters: Any) -> float:
    """Return the rows that the scans of ``statement`` read; its changes are rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        plan = json.loads(await connection.fetchval(f"explain (analyze, format json) {statement}", *parameters))
    finally:
        await transaction.rollback()
    return sum(scanned(node) for node in nodes(plan[0]["Plan"]))


def scanned(node: dict[str, Any]) -> float:
    if node.get("Relation Name") is None:
        return 0.0
    return float(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)
