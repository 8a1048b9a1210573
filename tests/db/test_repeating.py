"""Operations that are repeated until the database answers are done once."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from app.base.errors import Unavailable
from app.base.ids import new_id
from app.features.threads import queries
from app.infra.db import repeating
from app.infra.db.engine import Database
from app.infra.db.repeating import repeated, write_once
from app.infra.db.session import Writer
from app.security.access.structs import DEFAULT_TENANT
from tests.faults.proxy import Proxy, Trouble

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def database(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Pools of one connection each, through the proxy."""
    monkeypatch.setattr(repeating, "PAUSE", 0.01)
    database = Database(proxy.url, requests=1, engine=1)
    yield database
    database.abort()
    await database.aclose()


def allowed() -> None:
    """Allow every attempt."""


async def create_one(session: Writer) -> UUID:
    """Create a thread with a new id: one more for every time that this is committed."""
    thread_id = new_id()
    await queries.create_thread(session, DEFAULT_TENANT, thread_id, {})
    return thread_id


async def stored(database: Database) -> set[UUID]:
    async with database.engine_connection() as connection:
        return {row["thread_id"] for row in await connection.fetch("select thread_id from threads")}


async def test_a_commit_without_a_response_is_not_made_again(database: Database, proxy: Proxy) -> None:
    async with proxy.having(Trouble.LOST_COMMITS):
        made = {await write_once(database, DEFAULT_TENANT, create_one, allowed) for _ in range(30)}
    assert proxy.lost > 3
    assert await stored(database) == made


async def test_a_transaction_whose_connection_breaks_is_done_again(database: Database, proxy: Proxy) -> None:
    attempts: list[UUID] = []

    async def work(session: Writer) -> UUID:
        attempts.append(await create_one(session))
        if len(attempts) < 3:
            async with proxy.having(Trouble.REFUSE):
                attempts[-1] = await create_one(session)
        return attempts[-1]

    made = await write_once(database, DEFAULT_TENANT, work, allowed)
    assert len(attempts) == 3
    assert await stored(database) == {made}


async def test_a_caller_who_may_not_go_on_commits_nothing(database: Database, proxy: Proxy) -> None:
    """Before the first attempt, before its commit, and before the second attempt."""

    async def work(session: Writer) -> None:
        await create_one(session)
        if last == 2:  # its connection breaks
            async with proxy.having(Trouble.REFUSE):
                await create_one(session)

    for last in range(3):
        checks = [None] * last
        with pytest.raises(IndexError):
            await write_once(database, DEFAULT_TENANT, work, checks.pop)
    assert await stored(database) == set()


async def test_a_server_that_never_had_the_transaction_has_not_committed_it(database: Database) -> None:
    assert not await repeating._is_committed(database, DEFAULT_TENANT, str(2**40))


async def test_a_database_that_stays_away_is_an_error(database: Database, proxy: Proxy) -> None:
    async with proxy.having(Trouble.REFUSE):
        with pytest.raises(Unavailable):
            await repeated(lambda: stored(database), allowed, seconds=0.1)
