"""A search over a tenant's runs reads the runs of that tenant, however many others have."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.domain.lifecycle import RunStatus
from app.features.runs import queries
from app.features.runs.structs import RunSearch

FILL = """
insert into runs (tenant_id, run_id, thread_id, assistant_id, ordinal, status, reason, request, multitask_strategy,
  epoch, attempts)
select tenant, uuidv7(), gen_random_uuid(), gen_random_uuid(), 1, 'success', '', '', 'enqueue', 1, 1
from unnest($1::uuid[]) as tenant, generate_series(1, $2::int)
"""

DIALECT: Any = dialect


class Captured:
    """A session that keeps the statement."""

    statement: Any

    def within(self, _: object) -> tuple[()]:
        return ()

    async def all(self, statement: Any) -> list[Any]:
        self.statement = statement
        return []


async def pages_read(connection: asyncpg.Connection, tenant: UUID, wanted: RunSearch) -> int:
    session: Any = Captured()
    await queries.search(session, tenant, wanted, None)
    compiled = session.statement.compile(dialect=DIALECT(), compile_kwargs={"render_postcompile": True})
    values = ", ".join(f"'{compiled.params[name]}'" for name in compiled.positiontup)
    await connection.execute(f"prepare search as {compiled}")
    plan = json.loads(await connection.fetchval(f"explain (analyze, buffers, format json) execute search({values})"))
    await connection.execute("deallocate search")
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


async def test_a_search_of_a_small_tenant_does_not_walk_the_runs_of_others(fresh_database_url: str) -> None:
    connection = await asyncpg.connect(fresh_database_url)
    try:
        await connection.execute("set session_replication_role = replica")  # runs that have ended, without a history
        small = uuid4()
        await connection.execute(FILL, [small], 5)
        await connection.execute(FILL, [uuid4() for _ in range(3)], 7000)
        await connection.execute("analyze runs")
        await connection.execute("set plan_cache_mode = force_generic_plan")  # the planner knows no tenant's share
        for wanted in (RunSearch(limit=10), RunSearch(limit=10, status=RunStatus.SUCCESS)):
            assert await pages_read(connection, small, wanted) < 20
    finally:
        await connection.close()
