"""Every kind of missing part of the schema is found."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.infra.db.engine import Database
from app.infra.db.schema_check import FUNCTIONS, TRIGGERS
from app.server.schema import metadata
from tests.database import execute

OURS = (
    "select {name} from {catalogue} x"
    " where not exists (select from pg_depend d where d.objid = x.oid and d.deptype = 'e')"
)
"""Not created by an extension."""

OBSOLETE = {"store_words"}
"""Of servers one version back; a later migration drops it."""


@pytest.fixture
async def database(fresh_database_url: str) -> AsyncIterator[Database]:
    database = Database(fresh_database_url, requests=1, engine=1)
    yield database
    await database.aclose()


async def test_nothing_is_missing_after_the_migrations(database: Database) -> None:
    assert await database.missing_parts(metadata) == []


async def test_the_lists_name_every_trigger_and_function_that_the_migrations_make(fresh_database_url: str) -> None:
    connection = await asyncpg.connect(fresh_database_url)
    try:
        triggers = OURS.format(name="tgname", catalogue="pg_trigger") + " and not tgisinternal"
        assert {row[0] for row in await connection.fetch(triggers)} == TRIGGERS
        functions = OURS.format(name="proname", catalogue="pg_proc") + " and pronamespace = 'public'::regnamespace"
        assert {row[0] for row in await connection.fetch(functions)} == FUNCTIONS | OBSOLETE
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement, part",
    [
        ("drop table webhook_deliveries cascade", "table webhook_deliveries"),
        ("alter table threads drop column keep_minutes", "column threads.keep_minutes"),
        ("drop index threads_keep_idx", "index threads_keep_idx"),
        ("alter table threads no force row level security", "policies of threads"),
        ("drop trigger runs_guard on runs", "trigger runs_guard"),
        ("drop function store_analyze", "function store_analyze"),
    ],
)
async def test_a_missing_part_is_named(database: Database, fresh_database_url: str, statement: str, part: str) -> None:
    await execute(fresh_database_url, statement)
    assert part in await database.missing_parts(metadata)
