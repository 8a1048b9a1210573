"""Stateless runs leave nothing for ever."""

from typing import Any
from uuid import UUID

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


async def test_a_thread_that_has_rested_keeps_its_newest_state_and_goes_on_from_it(
    engine: Engine, database: Database
) -> None:
    """Not the past of one that is young, or on which a run lives or waits, for that may fork from any of it."""
    threads: dict[str, UUID] = {}
    for name in ("old", "young", "waiting", "living"):
        first = await engine.begin("one")
        await engine.result(first)
        await engine.result(await engine.begin("two", thread=first.thread_id))
        threads[name] = first.thread_id
    await engine.accept("three", thread=threads["waiting"], delay=600.0)
    await engine.accept("three", thread=threads["living"])
    await fetch(database, "update threads set keep_minutes = 60")
    aged = [threads["old"], threads["waiting"], threads["living"]]
    await fetch(
        database, "update threads set updated_at = now() - interval '61 minutes' where thread_id = any($1)", aged
    )
    before = {name: await past(database, thread) for name, thread in threads.items()}
    assert await Sweeps(database).rested() == 1
    assert [await past(database, threads[name]) for name in threads if name != "old"] == [
        before[name] for name in threads if name != "old"
    ]
    (newest,), items = await past(database, threads["old"])
    assert len(before["old"][0]) > 1
    assert newest == {**before["old"][0][-1], "parent_id": None}
    assert len(items) == 4  # the messages that the newest state has
    assert len(await fetch(database, "select from runs where thread_id = $1", threads["old"])) == 2
    assert await Sweeps(database).rested() == 0
    values = await engine.result(await engine.begin("three", thread=threads["old"]))
    assert [message["content"] for message in values["messages"]][::2] == ["one", "two", "three"]


async def past(database: Database, thread_id: UUID) -> tuple[list[Any], list[Any]]:
    """The checkpoints of a thread, the newest last, and the numbers of its log items."""
    checkpoints = "select checkpoint_id, parent_id, step from checkpoints where thread_id = $1 order by step"
    items = "select number from checkpoint_items where thread_id = $1 order by number"
    return await fetch(database, checkpoints, thread_id), await fetch(database, items, thread_id)


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
