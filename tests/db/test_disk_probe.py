"""A full disk is probed by a write that needs the space that other writes need."""

from app.infra.db import sql
from app.infra.db.engine import WRITTEN_BYTES, Database

RANDOM = f"select string_agg(uuid_send(gen_random_uuid()), '') from generate_series(0, {WRITTEN_BYTES // 16})"


async def test_the_write_that_probes_the_disk_goes_to_the_log_too(fresh_database_url: str) -> None:
    database = Database(fresh_database_url, requests=1, engine=1)
    async with database.engine_connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        write = sql.WRITE_PROBE.replace("$1", f"({RANDOM})")
        plan = await connection.fetchval("explain (analyze, wal, format json) " + write)
        await transaction.rollback()
    assert plan[0]["Plan"]["WAL Bytes"] > WRITTEN_BYTES
    database.disk.full = True
    await database.probe_disk()
    assert not database.disk.full
    async with database.engine_connection() as connection:
        assert await connection.fetchval("select count(*) from events") == 0
    await database.aclose()
