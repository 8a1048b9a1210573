"""Retention deletes what has expired."""

from typing import Any
from uuid import UUID

import pytest

from app.base.ids import new_id
from app.engine.queue.retention import sweeper as module
from app.engine.queue.retention.sweeper import RetentionSweeper
from app.infra.db.engine import Database
from app.infra.settings.storage import RetentionSettings
from app.security.idempotency.queries import take
from app.security.idempotency.structs import IdempotencyKey
from tests.database import age, execute
from tests.runs.engine import TENANT, Engine, fetch


async def test_data_of_old_stateless_runs_is_deleted(engine: Engine, database: Database) -> None:
    kept = await engine.begin("kept")
    gone = await engine.begin("gone", temporary=True)
    later = await engine.accept("later", temporary=True, delay=600.0)
    await engine.result(kept)
    await engine.result(gone)
    assert await RetentionSweeper(engine.database).temporary(60) == 0
    assert await RetentionSweeper(engine.database).temporary(0) == 1
    threads = {row["thread_id"] for row in await fetch(database, "select thread_id from threads")}
    assert threads == {kept.thread_id, later.thread_id}
    for table in ("steps", "events"):
        assert {row["run_id"] for row in await fetch(database, f"select run_id from {table}")} == {kept.run_id}
    for table in ("checkpoints", "checkpoint_items"):
        assert {row["thread_id"] for row in await fetch(database, f"select thread_id from {table}")} == {kept.thread_id}


async def test_an_expired_thread_is_deleted_unless_a_run_is_live_or_queued(engine: Engine, database: Database) -> None:
    old = await engine.begin("old")
    young = await engine.begin("young")
    busy = await engine.accept("busy", delay=600.0)
    await engine.result(old)
    await engine.result(young)
    hour_ago = "updated_at = now() - interval '61 minutes', ttl_minutes = 60"
    await fetch(database, f"update threads set {hour_ago} where thread_id = any($1)", [old.thread_id, busy.thread_id])
    await fetch(database, "update threads set ttl_minutes = 60 where thread_id = $1", young.thread_id)
    assert await RetentionSweeper(engine.database).expired() == 1
    left = {row["thread_id"] for row in await fetch(database, "select thread_id from threads")}
    assert left == {young.thread_id, busy.thread_id}


async def test_a_rested_thread_keeps_its_newest_state_and_continues_from_it(engine: Engine, database: Database) -> None:
    """Not the history of a recent one, or with a live or queued run, which may fork from any checkpoint."""
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
    assert await RetentionSweeper(database).trim_idle_threads() == 1
    assert [await past(database, threads[name]) for name in threads if name != "old"] == [
        before[name] for name in threads if name != "old"
    ]
    (newest,), items = await past(database, threads["old"])
    assert len(before["old"][0]) > 1
    assert newest == {**before["old"][0][-1], "parent_id": None}
    assert len(items) == 4  # the messages that the newest state has
    assert len(await fetch(database, "select from runs where thread_id = $1", threads["old"])) == 2
    assert await RetentionSweeper(database).trim_idle_threads() == 0
    values = await engine.result(await engine.begin("three", thread=threads["old"]))
    assert [message["content"] for message in values["messages"]][::2] == ["one", "two", "three"]


async def past(database: Database, thread_id: UUID) -> tuple[list[Any], list[Any]]:
    """The checkpoints of a thread, the newest last, and the numbers of its log items."""
    checkpoints = "select checkpoint_id, parent_id, step from checkpoints where thread_id = $1 order by step"
    items = "select number from checkpoint_items where thread_id = $1 order by number"
    return await fetch(database, checkpoints, thread_id), await fetch(database, items, thread_id)


async def test_a_run_with_an_idempotency_key_stays_until_the_key_expires(engine: Engine, database: Database) -> None:
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
    sweeps = RetentionSweeper(engine.database)
    assert (await sweeps.temporary(0), await sweeps.keys()) == (0, 0)
    await fetch(database, "update idempotency_keys set created_at = now() - interval '25 hours'")
    assert (await sweeps.keys(), await sweeps.temporary(0)) == (1, 1)


async def test_idempotency_keys_are_known_for_as_long_as_the_setting_says(database: Database) -> None:
    key = IdempotencyKey("POST /threads", "k", b"first body")

    async def taken(again: IdempotencyKey) -> Any:
        async with database.writing(TENANT) as session:
            return await take(session, TENANT, again)

    assert await taken(key) is None
    await fetch(database, "update idempotency_keys set answer = '{}', created_at = now() - interval '47 hours'")
    assert await RetentionSweeper(database, RetentionSettings(idempotency_hours=48)).keys() == 0
    assert (await taken(key)).answer == b"{}", "it is the sweep that ends a key"
    assert await RetentionSweeper(database, RetentionSettings(idempotency_hours=46)).keys() == 1
    assert await taken(IdempotencyKey("POST /threads", "k", b"another body")) is None


async def test_the_log_of_a_run_is_kept_for_a_day_after_its_end(
    engine: Engine, database: Database, fresh_database_url: str
) -> None:
    old, young = await engine.begin("old"), await engine.begin("young")
    await engine.result(old)
    await engine.result(young)
    await fetch(database, "update events set created_at = now() - interval '25 hours'")
    before = new_id()
    assert await RetentionSweeper(database).events(before) == 0
    await age(fresh_database_url, str(old.run_id))
    await a_walk_later(database)
    assert await RetentionSweeper(database).events() == 0, "the walk stays behind runs that may not have ended"
    await a_walk_later(database)
    assert await RetentionSweeper(database).events(before) > 0
    assert {row["run_id"] for row in await fetch(database, "select run_id from events")} == {young.run_id}


async def a_walk_later(database: Database) -> None:
    """Set the marks back so far that all scans start over."""
    await fetch(database, "update retention_marks set started_at = started_at - interval '7 hours'")


async def asleep(url: str, *statements: str) -> None:
    """Change what no role may, with the tables' triggers disabled."""
    await execute(url, "set session_replication_role = replica", *statements)


async def test_sweeps_continue_until_nothing_is_due(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(module, "ROWS", 3)
    for number in range(10):
        await engine.result(await engine.begin(str(number), temporary=True))
    assert await RetentionSweeper(database).temporary(0) == 10
    assert await fetch(database, "select 1 from threads") == []


async def test_threads_with_equal_times_are_deleted_in_batches(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import gives thousands of threads the same time."""
    for number in range(7):
        await engine.result(await engine.begin(str(number)))
    young = await engine.begin("not due")
    await engine.result(young)
    moment = "2020-01-01T00:00:00Z"
    await fetch(database, f"update threads set updated_at = '{moment}', created_at = '{moment}', ttl_minutes = 60")
    await fetch(database, "update threads set ttl_minutes = 100000000 where thread_id = $1", young.thread_id)
    monkeypatch.setattr(module, "BATCH", 3)
    seen = []
    swept = module._swept

    async def counted(*given: Any) -> module.SweepBatch:
        batch = await swept(*given)
        seen.append(batch.seen)
        return batch

    monkeypatch.setattr(module, "_swept", counted)
    assert await RetentionSweeper(database).expired() == 7
    assert seen == [3, 3, 1], "what is not due costs no batch"
    assert [row["thread_id"] for row in await fetch(database, "select thread_id from threads")] == [young.thread_id]


async def test_transitions_of_deleted_runs_are_deleted_after_a_week(
    engine: Engine, database: Database, fresh_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    kept = await engine.begin("kept")
    await engine.result(kept)
    for number in range(5):
        await engine.result(await engine.begin(str(number), temporary=True))
    assert await RetentionSweeper(database).temporary(0) == 5
    assert await RetentionSweeper(database).transitions() == 0
    await asleep(fresh_database_url, "update run_transitions set at = at - interval '8 days'")
    assert await RetentionSweeper(database, RetentionSettings(transitions_days=30)).transitions() == 0
    await a_walk_later(database)
    assert await RetentionSweeper(database).transitions() == 5 * 3
    assert {row["run_id"] for row in await fetch(database, "select run_id from run_transitions")} == {kept.run_id}
    assert "transitions" not in RetentionSweeper(database, RetentionSettings(transitions_days=0)).kinds(0)


async def test_user_data_stays_without_a_retention_setting(database: Database) -> None:
    assert set(RetentionSweeper(database).kinds(0)) == {
        "temporary",
        "expired",
        "rested",
        "keys",
        "frames",
        "events",
        "transitions",
        "audit",
        "usage",
    }
    all_of_them = RetentionSettings(threads_days=1, history_days=1, runs_days=1)
    assert set(RetentionSweeper(database, all_of_them).kinds(0)) >= {"threads", "history", "runs"}


async def test_old_runs_are_deleted_except_the_newest_of_a_thread(
    engine: Engine, database: Database, fresh_database_url: str
) -> None:
    first = await engine.begin("one")
    await engine.result(first)
    second = await engine.begin("two", thread=first.thread_id)
    await engine.result(second)
    await asleep(fresh_database_url, "update runs set ended_at = ended_at - interval '3 days'")
    sweeps = RetentionSweeper(database, RetentionSettings(runs_days=2))
    assert await sweeps.runs(new_id()) == 1
    assert [row["run_id"] for row in await fetch(database, "select run_id from runs")] == [second.run_id]
    assert {row["run_id"] for row in await fetch(database, "select run_id from steps")} == {second.run_id}
    values = await engine.result(await engine.begin("three", thread=first.thread_id))
    assert [message["content"] for message in values["messages"]][::2] == ["one", "two", "three"]


async def test_an_unrepeatable_call_stays_with_its_thread_when_its_run_is_deleted(
    engine: Engine, database: Database, fresh_database_url: str
) -> None:
    first = await engine.begin("one")
    await engine.result(first)
    await engine.result(await engine.begin("two", thread=first.thread_id))
    columns = "(tenant_id, run_id, call_id, step, tool, tool_class, key, args)"
    intent = f"insert into tool_intents {columns} values ($1, $2, $3, 1, 'refund', $3, 'key', '')"
    for tool_class in ("unsafe", "reconcilable", "read_only", "idempotent"):
        await fetch(database, intent, first.tenant_id, first.run_id, tool_class)
    await asleep(fresh_database_url, "update runs set ended_at = ended_at - interval '3 days'")
    assert await RetentionSweeper(database, RetentionSettings(runs_days=2)).runs(new_id()) == 1
    left = await fetch(database, "select call_id, thread_id from tool_intents order by call_id")
    assert left == [
        {"call_id": "reconcilable", "thread_id": first.thread_id},
        {"call_id": "unsafe", "thread_id": first.thread_id},
    ]


async def test_a_closed_question_is_deleted_with_the_run_that_answered_it(
    engine: Engine, database: Database, fresh_database_url: str
) -> None:
    runs = [await engine.begin("one")]
    await engine.result(runs[0])
    for text in ("two", "three"):
        runs.append(await engine.begin(text, thread=runs[0].thread_id))
        await engine.result(runs[-1])
    columns = "(tenant_id, thread_id, question_id, key, run_id, closed_by)"
    closed = f"insert into questions {columns} values ($1, $2, $3, '', $4, $5)"
    for name, answered in (("old", runs[1].run_id), ("newest", runs[2].run_id), ("open", None)):
        await fetch(database, closed, runs[0].tenant_id, runs[0].thread_id, name, runs[0].run_id, answered)
    await asleep(fresh_database_url, "update runs set ended_at = ended_at - interval '3 days'")
    assert await RetentionSweeper(database, RetentionSettings(runs_days=2)).runs(new_id()) == 2
    left = await fetch(database, "select question_id from questions order by question_id")
    assert [row["question_id"] for row in left] == ["newest", "open"]


async def test_idle_threads_and_histories_are_deleted_with_a_retention_setting(
    engine: Engine, database: Database
) -> None:
    threads: dict[str, UUID] = {}
    for name in ("idle", "own", "young"):
        run = await engine.begin(name)
        await engine.result(run)
        threads[name] = run.thread_id
    await fetch(
        database,
        "update threads set updated_at = now() - interval '3 days' where thread_id = any($1)",
        [threads["idle"], threads["own"]],
    )
    await fetch(
        database, "update threads set ttl_minutes = 100000, keep_minutes = 100000 where thread_id = $1", threads["own"]
    )
    sweeps = RetentionSweeper(database, RetentionSettings(threads_days=2, history_days=2))
    assert await sweeps.history() == 1
    assert len((await past(database, threads["idle"]))[0]) == 1
    assert len((await past(database, threads["young"]))[0]) > 1
    assert await sweeps.threads() == 1
    left = {row["thread_id"] for row in await fetch(database, "select thread_id from threads")}
    assert left == {threads["own"], threads["young"]}


async def test_a_scan_resumes_at_its_mark_in_one_process_at_a_time(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        await engine.result(await engine.begin(str(number)))
    monkeypatch.setattr(module, "ROWS", 2)
    sweeps = RetentionSweeper(database)
    await sweeps.events(new_id())
    (mark,) = await fetch(database, "select place, done from retention_marks where name = 'events'")
    newest = await fetch(database, "select run_id from runs order by run_id desc limit 1")
    assert (mark["place"].split()[0], mark["done"]) == (str(newest[0]["run_id"]), True)
    async with database.engine_connection() as other, other.transaction():
        await other.fetch("select 1 from retention_marks where name = 'events' for update")
        assert await sweeps.events(new_id()) == 0


async def test_a_sweep_runs_in_one_process_at_a_time(engine: Engine, database: Database) -> None:
    """The lock ends with its transaction, so a dead process blocks no sweep."""
    await engine.result(await engine.begin("gone", temporary=True))
    await fetch(
        database,
        f"insert into idempotency_keys (tenant_id, route, key, fingerprint, created_at)"
        f" values ('{TENANT}', 'POST /x', 'old', '', now() - interval '25 hours')",
    )
    sweeps = RetentionSweeper(database).kinds(0)
    async with database.engine_connection() as other, other.transaction():
        for name in ("temporary", "keys"):
            await other.fetch("select pg_advisory_xact_lock(hashtextextended('batches ' || $1, 0))", name)
        assert [await sweeps[name]() for name in ("temporary", "keys")] == [0, 0]
        assert await sweeps["expired"]() == 0, "other sweeps still run"
    assert [await sweeps[name]() for name in ("keys", "temporary")] == [1, 1]


async def test_the_audit_log_is_kept_for_as_long_as_the_setting_says(database: Database) -> None:
    rows = f"select '{UUID(int=0)}', gen_random_uuid(), now() - n * interval '30 days', 'a', 'b', 'c'"
    await fetch(
        database,
        f"insert into audit_log (tenant_id, entry_id, at, action, actor, subject) {rows} from generate_series(0, 5) n",
    )
    assert await RetentionSweeper(database).audit() == 3
    assert len(await fetch(database, "select 1 from audit_log")) == 3
