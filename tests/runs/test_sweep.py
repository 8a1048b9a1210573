"""Stateless runs leave nothing for ever."""

from app.db.engine import Database
from app.runs.sweeps import Sweeps
from tests.database import age
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


async def test_a_thread_whose_time_is_over_goes_unless_something_lives_there(
    engine: Engine, database: Database
) -> None:
    old = await engine.begin("old")
    young = await engine.begin("young")
    busy = await engine.accept("busy", delay=600.0)
    await engine.result(old)
    await engine.result(young)
    hour_ago = "updated_at = now() - interval '61 minutes', ttl_minutes = 60"
    await fetch(database, f"update threads set {hour_ago} where thread_id = any($1)", [old.thread_id, busy.thread_id])
    await fetch(database, "update threads set ttl_minutes = 60 where thread_id = $1", young.thread_id)
    assert await Sweeps(engine.database).expired() == 1
    left = {row["thread_id"] for row in await fetch(database, "select thread_id from threads")}
    assert left == {young.thread_id, busy.thread_id}


async def test_what_was_asked_for_with_a_key_stays_until_the_key_is_over(engine: Engine, database: Database) -> None:
    run = await engine.begin("x", temporary=True)
    await engine.result(run)
    values = "($1, 'POST /runs', 'k', '', $2, $3, '')"
    await fetch(
        database,
        "insert into idempotency_keys (tenant_id, route, key, fingerprint, run_id, thread_id, answer) values " + values,
        run.tenant_id,
        run.run_id,
        run.thread_id,
    )
    sweeps = Sweeps(engine.database)
    assert (await sweeps.temporary(0), await sweeps.keys()) == (0, 0)
    await fetch(database, "update idempotency_keys set created_at = now() - interval '25 hours'")
    assert (await sweeps.keys(), await sweeps.temporary(0)) == (1, 1)


async def test_the_log_of_a_run_is_kept_for_a_day_after_its_end(
    engine: Engine, database: Database, fresh_database_url: str
) -> None:
    old, young = await engine.begin("old"), await engine.begin("young")
    await engine.result(old)
    await engine.result(young)
    await fetch(database, "update events set created_at = now() - interval '25 hours'")
    assert await Sweeps(database).events() == 0
    await age(fresh_database_url, str(old.run_id))
    assert await Sweeps(database).events() > 0
    assert {row["run_id"] for row in await fetch(database, "select run_id from events")} == {young.run_id}
