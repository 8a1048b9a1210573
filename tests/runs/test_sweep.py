"""Stateless runs leave nothing for ever."""

from app.db.engine import Database
from app.runs.sweeps import Sweeps
from tests.runs.engine import Engine, fetch


async def test_what_a_stateless_run_left_is_swept_once_it_is_old(engine: Engine, database: Database) -> None:
    kept = await engine.begin("kept")
    gone = await engine.begin("gone", temporary=True)
    later = await engine.accept("later", temporary=True, delay=600.0)
    await engine.result(kept)
    await engine.result(gone)
    assert await Sweeps(engine.database).temporary(60) == 0
    assert await Sweeps(engine.database).temporary(0) == 1
    threads = {row["thread_id"] for row in await fetch(database, "select thread_id from threads")}
    assert threads == {kept.thread_id, later.thread_id}
    for table in ("steps", "events"):
        assert {row["run_id"] for row in await fetch(database, f"select run_id from {table}")} == {kept.run_id}
    for table in ("checkpoints", "checkpoint_items"):
        assert {row["thread_id"] for row in await fetch(database, f"select thread_id from {table}")} == {kept.thread_id}
