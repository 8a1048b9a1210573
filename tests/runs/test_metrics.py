"""Metrics of runs: steps, ends, the queue."""

import asyncio

import pytest

from app.base.errors import LeaseLost
from app.base.ids import new_id
from app.engine.entries import JournalEntry
from app.engine.execution import journal as module
from app.engine.execution.journal import Journal
from app.engine.queue.run_claimer import QueueMetrics
from app.infra.db.engine import Database
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, TraceRecorder
from tests.runs.engine import Engine, SteeredAgent, echo, engine_on, fetch
from tests.system.services import NOWHERE


def entry() -> JournalEntry:
    """A step of a run that does not exist."""
    return JournalEntry(
        tenant_id=new_id(),
        thread_id=new_id(),
        run_id=new_id(),
        epoch=1,
        owner=new_id(),
        head=None,
        last_number=0,
        last_value_number=0,
        checkpoints=[],
        items=[],
        steps=[],
        intents=[],
        events=[],
    )


async def test_a_run_and_its_steps_are_counted(engine: Engine) -> None:
    await engine.result(await engine.begin("a"))
    assert engine.meters.runs.series == {("success", "echo"): 1}
    assert sum(engine.meters.run_duration.series["success", "echo"].counts) == 1
    assert engine.meters.runs_active.series == {(): 0}
    assert [*engine.meters.checkpoints.series] == [("",)]


async def test_queued_runs_are_reported_with_the_age_of_the_oldest(database: Database) -> None:
    meters = Meters()
    waiting = QueueMetrics(database, meters)
    await waiting.refresh()
    assert (meters.queue_depth.series, meters.queue_age.series) == ({(): 0}, {(): 0})
    async with engine_on(database, SteeredAgent("echo", echo), max_runs=0) as accepting:
        for delay in (0.0, 0.0, 3600.0):
            await accepting.accept("a", delay=delay)
    await fetch(database, "update runs set available_at = now() - interval '90 seconds' where available_at < now()")
    await waiting.refresh()
    assert meters.queue_depth.series == {(): 2}
    assert 90 <= meters.queue_age.series[()] < 120


async def test_orphaned_runs_are_reported_with_the_age_of_the_oldest(database: Database) -> None:
    meters = Meters()
    waiting = QueueMetrics(database, meters)
    async with engine_on(database, SteeredAgent("echo", echo), max_runs=0) as accepting:
        for thread in ("a", "b"):
            await accepting.accept(thread, delay=3600)
    await fetch(
        database,
        "update runs set status = 'running', reason = 'claimed', epoch = 1, owner = gen_random_uuid(),"
        " started_at = now() - interval '200 seconds', lease_until = now() + interval '60 seconds'",
    )
    await waiting.refresh()
    assert meters.runs_orphaned.series == {(): 0}
    assert 200 <= meters.oldest_run.series[()] < 260
    await fetch(database, "update runs set lease_until = now() - interval '30 seconds'")
    await waiting.refresh()
    assert meters.runs_orphaned.series == {(): 2}


async def test_a_step_of_a_run_with_another_owner_is_a_lost_lease(database: Database) -> None:
    meters = Meters()
    journal = Journal(database, 60.0, TraceRecorder(meters, NO_TRACER))
    journal.start()
    with pytest.raises(LeaseLost):
        await journal.write(entry())
    await journal.aclose()
    assert [*meters.checkpoints.series] == [("LeaseLost",)]


@pytest.mark.parametrize("patience, trouble", [(0.1, "Unavailable"), (60.0, "cancelled")])
async def test_a_commit_that_waited_in_vain_counts_against_the_service(
    monkeypatch: pytest.MonkeyPatch, patience: float, trouble: str
) -> None:
    """A run stopped at once is fine; one stopped because its lease expired is not."""
    monkeypatch.setattr(module, "VAIN_SECONDS", patience)
    meters = Meters()
    away = Database(NOWHERE, requests=1, engine=1)
    journal = Journal(away, 60.0, TraceRecorder(meters, NO_TRACER))
    journal.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await journal.write(entry())
    await journal.aclose()
    await away.aclose()
    assert [*meters.checkpoints.series] == [(trouble,)]
