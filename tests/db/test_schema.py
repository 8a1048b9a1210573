"""Constraints of the database: transitions, immutability, one live run per thread, tenant isolation."""

import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from app.base.ids import new_id
from app.domain.lifecycle import TERMINAL, TRANSITIONS, RunStatus
from app.infra.db import migrations
from app.infra.db.engine import Database
from app.infra.db.revisions import REVISIONS
from app.server.schema import metadata
from tests.runs.engine import TENANT

OTHER_TENANT = new_id()
OF_THE_SERVER = {"mcp_tool_lists", "retention_marks", "store_versions"}
"""Tables without a tenant, which requests may read."""
PAIRS = [(old, new) for old, new in itertools.product(RunStatus, repeat=2) if old != new]

INSERT = """
insert into runs (tenant_id, run_id, thread_id, assistant_id, ordinal, status, reason, request, multitask_strategy,
  epoch, attempts) values ($1, $2, $3, $3, 1, $4, 'accepted', '{}', 'enqueue', 1, 1)
"""


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    database = Database(fresh_database_url, requests=2, engine=2)
    yield database
    await database.aclose()


async def insert_run(connection: asyncpg.Connection, status: RunStatus = RunStatus.RUNNING) -> object:
    run_id = new_id()
    await connection.execute(INSERT, TENANT, run_id, new_id(), status)
    return run_id


async def force(connection: asyncpg.Connection, run_id: object, status: RunStatus) -> None:
    await connection.execute("update runs set status = $2 where run_id = $1", run_id, status)


async def test_every_pair_of_statuses_is_allowed_or_refused_as_the_table_says(database: Database) -> None:
    async with database.engine_connection() as connection:
        for old, new in PAIRS:
            run_id = await insert_run(connection, RunStatus.PENDING if old is RunStatus.PENDING else RunStatus.RUNNING)
            if old in TERMINAL:
                await force(connection, run_id, old)
            if new in TRANSITIONS[old]:
                await force(connection, run_id, new)
            else:
                with pytest.raises(asyncpg.CheckViolationError):
                    await force(connection, run_id, new)


async def test_a_terminal_run_never_changes_again(database: Database) -> None:
    async with database.engine_connection() as connection:
        for status in TERMINAL:
            run_id = await insert_run(connection)
            await force(connection, run_id, status)
            with pytest.raises(asyncpg.CheckViolationError, match="cannot change"):
                await connection.execute("update runs set metadata = '{\"a\": 1}' where run_id = $1", run_id)


async def test_a_run_starts_pending_or_running(database: Database) -> None:
    async with database.engine_connection() as connection:
        for status in TERMINAL:
            with pytest.raises(asyncpg.CheckViolationError, match="cannot begin"):
                await insert_run(connection, status)


async def test_a_removed_run_leaves_its_transitions(database: Database) -> None:
    async with database.engine_connection() as connection:
        run_id = await insert_run(connection)
        await force(connection, run_id, RunStatus.SUCCESS)
        await connection.execute("delete from runs where run_id = $1", run_id)
        rows = await connection.fetch(
            "select old_status, new_status from run_transitions where run_id = $1 order by number", run_id
        )
    assert [tuple(row) for row in rows] == [(None, "running"), ("running", "success"), ("success", None)]


async def test_transitions_cannot_be_rewritten(database: Database) -> None:
    async with database.engine_connection() as connection:
        await insert_run(connection)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("update run_transitions set reason = 'x'")
        assert await connection.execute("delete from run_transitions") == "DELETE 0", "none is a day old"
        assert await connection.fetchval("select count(*) from run_transitions") > 0


async def test_a_thread_has_one_live_run_at_most(database: Database) -> None:
    thread_id = new_id()
    async with database.engine_connection() as connection:
        await connection.execute(INSERT, TENANT, new_id(), thread_id, "running")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(INSERT, TENANT, new_id(), thread_id, "running")


async def test_every_tenant_table_is_bound_by_row_level_security(database: Database) -> None:
    tables = {table.name for table in metadata.sorted_tables if "tenant_id" in table.c}
    assert tables | OF_THE_SERVER == {table.name for table in metadata.sorted_tables}
    assert all("tenant_id" in metadata.tables[name].primary_key.columns for name in tables)
    async with database.engine_connection() as connection:
        rows = await connection.fetch(
            "select c.relname from pg_class c join pg_policy p on p.polrelid = c.oid"
            " where c.relrowsecurity and c.relforcerowsecurity and p.polname = c.relname || '_tenant'"
        )
    assert {row["relname"] for row in rows} == tables


async def test_a_tenant_sees_and_writes_its_own_rows_only(database: Database) -> None:
    async with database.engine_connection() as connection:
        await insert_run(connection)
    count = sa.text("select count(*) from runs")
    async with database.reading(TENANT) as session:
        assert await session.scalar(count) == 1
    async with database.reading(OTHER_TENANT) as session:
        assert await session.scalar(count) == 0
    with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
        async with database.writing(OTHER_TENANT) as session:
            await session.execute(
                sa.text("insert into tenants (tenant_id, name) values (:tenant, 'mine')"), {"tenant": TENANT}
            )


async def test_requests_see_nothing_without_a_tenant(database: Database) -> None:
    async with database.engine_connection() as connection:
        await insert_run(connection)
    async with database._requests.connect() as connection:
        assert (await connection.execute(sa.text("select count(*) from runs"))).scalar() == 0


async def test_start_up_checks_that_the_roles_are_bound(database: Database) -> None:
    await database.check()


def test_the_program_knows_the_newest_revision_without_alembic() -> None:
    script = ScriptDirectory.from_config(migrations.configuration())
    oldest_first = tuple(one.revision for one in reversed(list(script.walk_revisions())))
    assert oldest_first == REVISIONS == tuple(sorted(REVISIONS))
