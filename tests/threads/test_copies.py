"""Threads are copied inside the database, in a constant number of statements."""

from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest

from app.features.threads.service import ThreadService
from app.features.threads.structs import HistoryQuery, ThreadCreate
from app.infra.db.engine import Database
from app.infra.db.pool import APP_ROLE
from app.security.access.structs import Principal
from bench.copying import grown
from tests.runs.engine import TENANT, Agents
from tests.statements import sent_by

LONG = 10_000
PRINCIPAL = Principal(TENANT)


@pytest.fixture
async def threads(fresh_database_url: str) -> AsyncIterator[ThreadService]:
    database = Database(fresh_database_url, requests=2, engine=2)
    service = ThreadService(database, Agents(), lambda _tenant, _thread: None)
    service.start()
    yield service
    await service.aclose()
    await database.aclose()


async def copied(threads: ThreadService, url: str, checkpoints: int) -> tuple[UUID, list[str]]:
    """Copy a thread with ``checkpoints`` checkpoints; return the copy and the statements."""
    thread = await threads.create(PRINCIPAL, ThreadCreate())
    assert not isinstance(thread, msgspec.Raw)
    await grown(url, str(thread.thread_id), checkpoints)
    async with sent_by(threads._database) as statements:
        copy = await threads.copy(PRINCIPAL, thread.thread_id, None)
    assert not isinstance(copy, msgspec.Raw)
    assert len(msgspec.json.decode(copy.values)["messages"]) == checkpoints
    return copy.thread_id, [statement for statement in statements.of(APP_ROLE) if "pg_catalog" not in statement]


async def test_a_copy_of_ten_thousand_checkpoints_takes_no_more_statements_than_one_of_three(
    threads: ThreadService, fresh_database_url: str
) -> None:
    await copied(threads, fresh_database_url, 3)
    _, few = await copied(threads, fresh_database_url, 3)
    copy_id, many = await copied(threads, fresh_database_url, LONG)
    assert many == few
    assert len(many) <= 7  # the tenant, the lock, threads, checkpoints, items, questions, and the response
    (newest, _, before), _ = await threads.history(PRINCIPAL, copy_id, HistoryQuery(limit=3))
    assert (newest.metadata or {})["step"] == LONG - 2
    assert before.parent_checkpoint_id == UUID(int=LONG - 3)
