"""Deleting what runs have stored, whatever plan PostgreSQL chooses."""

import asyncpg

from app.base.ids import new_id
from app.features.threads import queries
from app.infra.db.engine import Database
from app.security.access.structs import DEFAULT_TENANT

ADD = """
insert into checkpoints (tenant_id, thread_id, checkpoint_id, parent_id, run_id, source, step, next, head, first_items,
  last_items)
values ($1, $2, $3, $4, $5, 'loop', 0, '{}', '{}', '{}', '{}')
"""
CHAIN = 40


async def test_checkpoints_that_follow_each_other_are_deleted_together(fresh_database_url: str) -> None:
    """By a nested loop the children of each are read before the next one is deleted."""
    thread_id, runs, chain = new_id(), [new_id() for _ in range(CHAIN)], [new_id() for _ in range(CHAIN)]
    owner = await asyncpg.connect(fresh_database_url)
    database = Database(fresh_database_url, requests=1, engine=1)
    try:
        async with database.writing(DEFAULT_TENANT) as session:
            await queries.create_thread(session, DEFAULT_TENANT, thread_id, {})
        rows = zip(chain, [None, *chain[:-1]], runs, strict=True)
        await owner.executemany(ADD, [(DEFAULT_TENANT, thread_id, *row) for row in rows])
        await owner.execute("analyze checkpoints")
        async with database.writing(DEFAULT_TENANT) as session:
            await (await session.driver()).execute("set local enable_hashjoin = off; set local enable_mergejoin = off")
            await queries.delete_checkpoints_of(session, DEFAULT_TENANT, runs[:3])
        left = await owner.fetch("select checkpoint_id, parent_id from checkpoints order by checkpoint_id")
    finally:
        await database.aclose()
        await owner.close()
    assert [tuple(row) for row in left[:2]] == [(chain[3], None), (chain[4], chain[3])]
