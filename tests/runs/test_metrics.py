"""What runs are counted as: steps, ends, and those that wait."""

from app.db.engine import Database
from app.runs.waiting import Waiting
from app.telemetry.meters import Meters
from tests.runs.engine import Engine, SteeredAgent, echo, engine_on, fetch


async def test_a_run_and_its_steps_are_counted(engine: Engine) -> None:
    await engine.result(await engine.begin("a"))
    assert engine.meters.runs.series == {("success", "echo"): 1}
    assert sum(engine.meters.run_duration.series["success", "echo"].counts) == 1
    assert engine.meters.runs_active.series == {(): 0}
    assert [*engine.meters.checkpoints.series] == [("",)]


async def test_runs_that_wait_are_told_of_with_the_age_of_the_oldest(database: Database) -> None:
    meters = Meters()
    waiting = Waiting(database, meters)
    await waiting.look()
    assert (meters.queue_depth.series, meters.queue_age.series) == ({(): 0}, {(): 0})
    async with engine_on(database, SteeredAgent("echo", echo), most=0) as accepting:
        for delay in (0.0, 0.0, 3600.0):
            await accepting.accept("a", delay=delay)
    await fetch(database, "update runs set available_at = now() - interval '90 seconds' where available_at < now()")
    await waiting.look()
    assert meters.queue_depth.series == {(): 2}
    assert 90 <= meters.queue_age.series[()] < 120


async def test_runs_whose_lease_nobody_renews_are_told_of_and_so_is_the_age_of_the_oldest(database: Database) -> None:
    meters = Meters()
    waiting = Waiting(database, meters)
    async with engine_on(database, SteeredAgent("echo", echo), most=0) as accepting:
        for thread in ("a", "b"):
            await accepting.accept(thread, delay=3600)
    await fetch(
        database,
        "update runs set status = 'running', reason = 'claimed', epoch = 1, owner = gen_random_uuid(),"
        " started_at = now() - interval '200 seconds', lease_until = now() + interval '60 seconds'",
    )
    await waiting.look()
    assert meters.runs_orphaned.series == {(): 0}
    assert 200 <= meters.oldest_run.series[()] < 260
    await fetch(database, "update runs set lease_until = now() - interval '30 seconds'")
    await waiting.look()
    assert meters.runs_orphaned.series == {(): 2}
