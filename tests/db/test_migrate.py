"""Migrations: from nothing to the newest schema, concurrently; errors are one sentence."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from alembic import command

from app.base.errors import StartError, UsageError
from app.infra.db import engine, migrations
from app.infra.db.revisions import REVISIONS
from app.server.schema import metadata
from tests.database import at, execute, name_of
from tests.db.conftest import Later

LOCK = 0x6167656E74
ALEMBIC = ("-m", "alembic", "-c", str(migrations.ROOT / "alembic.ini"))


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    async with connected(url) as connection:
        rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    return {row["tablename"] for row in rows}


async def upgrade(url: str) -> None:
    await asyncio.to_thread(migrations.upgrade, url)


async def ran(url: str, *command: str) -> tuple[int | None, str]:
    """The exit code and the output of Python with ``command``, in an unrelated folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command),
        env={**os.environ, "MIGRATE_DATABASE_URL": url, "PYTHONPATH": str(migrations.ROOT)},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


async def test_an_empty_database_lacks_everything_and_an_upgraded_one_nothing(empty_database_url: str) -> None:
    assert await migrations.current(empty_database_url) is None
    assert await migrations.pending(empty_database_url) == list(REVISIONS)
    await upgrade(empty_database_url)
    assert await migrations.current(empty_database_url) == migrations.head()
    assert await migrations.pending(empty_database_url) == []
    assert {table.name for table in metadata.sorted_tables} < await tables(empty_database_url)
    await upgrade(empty_database_url)


async def test_concurrent_processes_migrate_once_and_the_others_wait(empty_database_url: str) -> None:
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database()"
        " and application_name = 'agent-service migrate' and query ~* '^(select pg_try_advisory_lock|commit)'"
    )
    async with connected(empty_database_url) as connection:
        await connection.execute("select pg_advisory_lock($1)", LOCK)
        processes = [asyncio.create_task(ran(empty_database_url, "-m", "app", "migrate")) for _ in range(3)]
        async with asyncio.timeout(30):
            # other processes set none of our events
            while await connection.fetchval(waiting) != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await tables(empty_database_url) == set()
        await connection.execute("select pg_advisory_unlock($1)", LOCK)
        assert {code for code, _ in await asyncio.gather(*processes)} == {0}
    assert await migrations.pending(empty_database_url) == []


async def test_alembic_itself_does_the_same(empty_database_url: str) -> None:
    assert await ran("", *ALEMBIC, "upgrade", "head") == (
        255,
        "FAILED: set MIGRATE_DATABASE_URL or DATABASE_URL to the database to migrate\n",
    )
    assert await ran(empty_database_url, *ALEMBIC, "upgrade", "head") == (0, "")
    assert await migrations.pending(empty_database_url) == []
    asked = await ran("", *ALEMBIC, "-x", f"url={empty_database_url}", "current")
    assert asked == (0, f"{migrations.head()} (head)\n")


async def test_a_failing_migration_is_rolled_back_and_those_before_it_stay(
    empty_database_url: str, later: Later
) -> None:
    later("first")
    later("fails", "op.execute('select 1 / 0')")
    with pytest.raises(StartError, match=r"could not be applied \(division by zero\)"):
        await upgrade(empty_database_url)
    assert await migrations.pending(empty_database_url) == ["fails"]
    found = await tables(empty_database_url)
    assert "made_by_first" in found
    assert "made_by_fails" not in found


async def test_a_table_in_use_stops_the_migration_instead_of_the_traffic(fresh_database_url: str, later: Later) -> None:
    later("impatient", 'op.execute("set local lock_timeout = \'50ms\'"); op.execute("alter table runs add x int")')
    async with connected(fresh_database_url) as reader, reader.transaction():
        await reader.execute("select from runs")
        with pytest.raises(StartError, match="lock timeout: another process migrates or locks a table"):
            await upgrade(fresh_database_url)
    await upgrade(fresh_database_url)
    assert await migrations.pending(fresh_database_url) == []


async def test_a_migration_waits_ten_seconds_for_a_table_and_works_as_long_as_it_takes(
    fresh_database_url: str, later: Later
) -> None:
    later("curious", 'op.execute("create table settings as select name, setting from pg_settings")')
    await execute(fresh_database_url, f"alter database {name_of(fresh_database_url)} set statement_timeout = '20s'")
    await upgrade(fresh_database_url)
    async with connected(fresh_database_url) as connection:
        rows = await connection.fetch("select * from settings where name in ('lock_timeout', 'statement_timeout')")
    assert {row["name"]: row["setting"] for row in rows} == {"lock_timeout": "10000", "statement_timeout": "0"}


async def test_a_database_ahead_of_this_program_lacks_nothing_and_is_not_migrated(fresh_database_url: str) -> None:
    await execute(fresh_database_url, "update alembic_version set version_num = '9999'")
    assert await migrations.pending(fresh_database_url) == []
    with pytest.raises(StartError, match="at revision 9999, which this program does not know"):
        await upgrade(fresh_database_url)


@contextlib.asynccontextmanager
async def migrating(url: str, processes: int) -> AsyncIterator[None]:
    """Run concurrent migrations in the block; all must succeed."""
    async with connected(url) as connection, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ran(url, "-m", "app", "migrate")) for _ in range(processes)]
        there = "select count(*) from pg_stat_activity where application_name = 'agent-service migrate'"
        waits = "datname = current_database() and wait_event_type = 'Lock' and query ilike 'create index%'"
        async with asyncio.timeout(60):
            while (  # noqa: ASYNC110  other processes set none of our events
                await connection.fetchval(f"{there} and datname = current_database()") < processes
                or await connection.fetchval(f"{there} and {waits}") != 1
            ):
                await asyncio.sleep(0.02)
        yield
    assert [(code, output) for task in tasks for code, output in [task.result()] if code != 0] == []


async def downgrade(url: str, to: str) -> None:
    await asyncio.to_thread(command.downgrade, migrations.configuration(url), to)


@pytest.mark.parametrize("table", ["threads", "runs"])
async def test_an_index_is_built_concurrently_with_traffic_and_waiting_migrations(
    fresh_database_url: str, table: str
) -> None:
    await downgrade(fresh_database_url, "0016")
    async with connected(fresh_database_url) as early, connected(fresh_database_url) as late:
        written = early.transaction()
        await written.start()
        await early.execute(f"lock table {table} in row exclusive mode")
        async with migrating(fresh_database_url, 3):
            async with late.transaction():
                await late.execute(f"lock table {table} in row exclusive mode nowait")
            await written.rollback()
    assert await migrations.pending(fresh_database_url) == []


async def test_an_index_whose_build_failed_is_built_again(fresh_database_url: str) -> None:
    await downgrade(fresh_database_url, "0016")
    invalid = "select count(*) from pg_index where not indisvalid"
    await execute(
        fresh_database_url,
        "create index threads_lineage_idx on threads (thread_id)",
        "update pg_index set indisvalid = false where indexrelid = 'threads_lineage_idx'::regclass",
    )
    await upgrade(fresh_database_url)
    async with connected(fresh_database_url) as connection:
        assert await connection.fetchval(invalid) == 0
        definition = await connection.fetchval("select pg_get_indexdef('threads_lineage_idx'::regclass)")
    assert definition.endswith("(tenant_id, lineage) WHERE (lineage IS NOT NULL)")


async def test_a_user_with_only_the_app_role_sees_the_version(server_url: str, fresh_database_url: str) -> None:
    user = f"login_{uuid4().hex[:8]}"
    await execute(server_url, f"create role {user} login", f"grant agent_app to {user} with inherit false")
    try:
        assert await migrations.current(fresh_database_url.replace("postgres@", f"{user}@")) == migrations.head()
    finally:
        await execute(server_url, f"drop role {user}")


async def test_an_old_server_is_refused(fresh_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "OLDEST_SERVER", 99)
    with pytest.raises(StartError, match="the database is PostgreSQL 18; version 99 or later is required"):
        await migrations.current(fresh_database_url)


@pytest.mark.parametrize("does", [upgrade, migrations.pending])
async def test_an_unreachable_database_is_one_sentence_without_the_password(
    server_url: str, does: Callable[[str], Awaitable[Any]]
) -> None:
    for url, sentence in (
        (at(server_url, "nowhere"), r"the server has no database 'nowhere': create it, .* DATABASE_URL"),
        ("postgresql://user:hunter-2@127.0.0.1:1/db", r"the database cannot be reached .* check DATABASE_URL"),
    ):
        with pytest.raises(StartError, match=sentence) as caught:
            await does(url)
        assert "hunter-2" not in str(caught.value)
    with pytest.raises(UsageError):
        await does("mysql://user:hunter-2@host/db")


async def test_serving_on_an_old_server_is_refused_as_migrating_is(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "OLDEST_SERVER", 99)
    database = engine.Database(database_url)
    try:
        with pytest.raises(StartError, match=r"the database is PostgreSQL 18; version 99 or later is required"):
            await database.revision()
    finally:
        await database.aclose()


async def test_a_check_that_finds_no_database_does_not_blame_the_roles(server_url: str) -> None:
    """As when the database crashes while a server starts: grants are not at fault then."""
    user = f"login_{uuid4().hex[:8]}"
    await execute(server_url, f"create role {user} login")
    try:
        for url, sentence in (
            ("postgresql://user:hunter-2@127.0.0.1:1/db", r"^the database cannot be reached .* check DATABASE_URL$"),
            (server_url.replace("postgres@", f"{user}@"), r"as the role agent_app: run `agent-service migrate` as the"),
        ):
            database = engine.Database(url)
            try:
                with pytest.raises(StartError, match=sentence):
                    await database.check()
            finally:
                await database.aclose()
    finally:
        await execute(server_url, f"drop role {user}")
