"""Runs whose process died run apart until they are proven, and delay neither each other nor healthy runs."""

import asyncio
import time
from collections.abc import Iterable
from uuid import UUID

import pytest

from app.agents.port import RunContext, RunOutcome
from app.base.ids import new_id, owner_id
from app.domain.lifecycle import Reason
from app.engine import supervisor
from app.engine.checkpoints.state_cache import StateCache
from app.engine.entries import ClaimedRun
from app.engine.execution.run_state import LoadedThread, load_thread
from app.engine.queue import claims, quarantine, run_claimer
from app.engine.queue.owned_runs import OwnedRun
from app.engine.streams.feed import Feed
from app.engine.structs import RunRequest
from app.infra.db.engine import Database
from tests.runs.engine import Engine, SteeredAgent, echo, engine_on, fetch, step

LEASE = 600.0


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_claimer, "REAP_SECONDS", 0.05)
    monkeypatch.setattr(quarantine, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(claims, "LEFT_TO_OTHERS", 0.0)


class Gated:
    """Runs that wait to be released, and how many ran at once."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.live: set[str] = set()
        self.crowds: list[int] = []
        self.changed = asyncio.Condition()

    async def work(self, context: RunContext) -> RunOutcome:
        name = context.state.elements()[0].decode().partition('"content":"')[2].partition('"')[0]
        self.live.add(name)
        self.crowds.append(len(self.live))
        try:
            async with self.changed:
                self.changed.notify_all()
            await self.gates.setdefault(name, asyncio.Event()).wait()
            await context.commit(step("half", following=("agent",)))
            await self.gates.setdefault(f"{name}.end", asyncio.Event()).wait()
        finally:
            self.live.discard(name)
        return RunOutcome(step=step(name))

    def let_go(self, *names: str) -> None:
        for name in names:
            self.gates.setdefault(name, asyncio.Event()).set()
            self.gates.setdefault(f"{name}.end", asyncio.Event()).set()

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: self.live >= set(names))


async def died_with(database: Database, engine: Engine, *texts: str, owner: object = None) -> list[ClaimedRun]:
    """Runs whose owner was lost with all of them."""
    runs = [await engine.accept(text, agent="steered", owner=owner or new_id()) for text in texts]
    await fetch(database, "update runs set lease_until = now() - interval '1 second' where status = 'running'")
    assert await engine.claims.release_expired() == len(runs)
    return runs


async def ended(engine: Engine, runs: Iterable[ClaimedRun]) -> None:
    for run in runs:
        assert "__error__" not in await engine.result(run)


async def test_suspects_of_one_death_resume_together(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated, names = Gated(), [f"run {n}" for n in range(5)]
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        runs = await died_with(database, engine, *names)
        engine.supervisor.start()
        await gated.until(*names)
        gated.let_go(*names)
        await ended(engine, runs)


async def test_suspects_handed_over_meanwhile_still_resume_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their second attempt has not ended in a death."""
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated, names = Gated(), [f"run {n}" for n in range(3)]
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        runs = await died_with(database, engine, *names)
        for claimed in await engine.claims.claim_suspects(1, len(runs)):
            await engine.claims.hand_over(claimed, Reason.CUT)
        engine.supervisor.start()
        await gated.until(*names)
        gated.let_go(*names)
        await ended(engine, runs)


async def test_suspects_of_two_deaths_resume_one_after_the_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated, names = Gated(), [f"run {n}" for n in range(5)]
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        runs = await died_with(database, engine, *names)
        await fetch(database, "update runs set attempts = 2")
        gated.let_go(*names)
        engine.supervisor.start()
        await ended(engine, runs)
    assert gated.crowds == [1] * 5


async def test_at_most_a_group_starts_before_it_is_proven(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated, names = Gated(), [f"run {n}" for n in range(quarantine.GROUP + 3)]
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        runs = await died_with(database, engine, *names)
        engine.supervisor.start()
        async with asyncio.timeout(20):
            while len(gated.live) < quarantine.GROUP:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await engine.supervisor._quarantine.claim() == []
        assert len(gated.live) == quarantine.GROUP
        gated.let_go(*names)
        await ended(engine, runs)
    assert max(gated.crowds) <= quarantine.GROUP + 3


async def test_forty_suspects_in_long_steps_run_again_after_a_few_proofs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 0.2)
    monkeypatch.setattr(quarantine, "POLL_SECONDS", 3600.0)  # a proof starts the next ones, not a poll
    gated, names = Gated(), [f"run {n}" for n in range(40)]
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        runs = await died_with(database, engine, *names)
        engine.supervisor.start()
        await gated.until(*names)
        gated.let_go(*names)
        await ended(engine, runs)


async def test_an_open_process_claims_other_runs_before_suspects(database: Database) -> None:
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        (suspect,) = await died_with(database, engine, "suspect")
        healthy = await engine.accept("healthy", agent="steered", owner=None)
        engine.supervisor._quarantine._open_until = time.monotonic() + 3600.0
        engine.supervisor.start()
        await gated.until("healthy")
        gated.let_go("healthy", "suspect")
        await ended(engine, [healthy, suspect])
    assert gated.crowds == [1, 1]


async def test_a_suspect_that_commits_a_step_is_acquitted_and_others_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        (suspect,) = await died_with(database, engine, "suspect")
        engine.supervisor.start()
        await gated.until("suspect")
        assert await fetch(database, "select attempts from runs") == [{"attempts": 2}]
        gated.gates["suspect"].set()
        async with asyncio.timeout(20):
            while await fetch(database, "select 1 from runs where attempts > 1"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        healthy = await engine.begin("healthy", agent="steered", owner=None)
        await gated.until("suspect", "healthy")
        gated.let_go("suspect", "healthy")
        await ended(engine, [suspect, healthy])


async def test_a_long_running_suspect_is_proven_by_time_and_others_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 0.05)
    monkeypatch.setattr(quarantine, "CLOSED_SECONDS", 3600.0)  # it opens because no suspect waits
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        suspects = await died_with(database, engine, "one", "two")
        engine.supervisor.start()
        await gated.until("one", "two")
        healthy = await engine.begin("healthy", agent="steered", owner=None)
        await gated.until("one", "two", "healthy")
        gated.let_go("one", "two", "healthy")
        await ended(engine, [*suspects, healthy])


async def test_while_a_suspect_is_unproven_other_processes_run_the_rest(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated = Gated()
    agents = SteeredAgent("steered", gated.work), SteeredAgent("echo", echo)
    async with engine_on(database, *agents, lease=LEASE) as alone:
        (suspect,) = await died_with(database, alone, "suspect")
        alone.supervisor.start()
        await gated.until("suspect")
        assert alone.supervisor.owner is None
        async with engine_on(database, *agents, lease=LEASE, sweeping=True) as other:
            for _ in range(5):
                run = await alone.begin("hello")
                await ended(other, [run])
        assert gated.crowds == [1]
        gated.let_go("suspect")
        await ended(alone, [suspect])
        async with asyncio.timeout(20):
            while alone.supervisor.owner is None:  # noqa: ASYNC110  until it has found that no other suspect waits
                await asyncio.sleep(0.01)


async def test_a_busy_process_makes_way_for_a_suspect_at_step_boundaries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE, sweeping=True) as engine:
        healthy = await engine.begin("healthy", agent="steered")
        await gated.until("healthy")
        suspect = await engine.accept("suspect", agent="steered", owner=new_id())
        await fetch(
            database, "update runs set lease_until = now() - interval '1 second' where run_id = $1", suspect.run_id
        )
        async with asyncio.timeout(20):
            while engine.supervisor.owner is not None:  # noqa: ASYNC110  until it takes no more runs
                await asyncio.sleep(0.01)
        gated.gates["healthy"].set()
        await gated.until("suspect")
        assert gated.live == {"suspect"}
        gated.let_go("suspect", "healthy")
        await ended(engine, [suspect, healthy])
    row, *_ = await fetch(database, "select attempts from runs where run_id = $1", healthy.run_id)
    assert row == {"attempts": 1}


async def test_a_server_leaves_the_run_that_it_died_with_to_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEFT_TO_OTHERS", 3600.0)
    async with engine_on(database, SteeredAgent("steered", echo), lease=LEASE, max_runs=0) as engine:
        mine, other = owner_id("this server"), owner_id("another one")
        await died_with(database, engine, "x", owner=mine)
        engine.claims.owner = owner_id("this server")
        assert engine.claims.owner != mine
        assert await engine.claims.claim_suspects(5) == []
        engine.claims.owner = other
        (claimed,) = await engine.claims.claim_suspects(5)
        assert (claimed.suspect, claimed.crashed_mid_step, claimed.attempt) == (True, True, 2)


async def test_a_database_outage_does_not_count_against_runs(database: Database) -> None:
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        run = await engine.begin("x", agent="steered")
        await gated.until("x")
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        live.lose(away=True)
        await live.done
        async with asyncio.timeout(20):
            while await fetch(database, "select 1 from runs where status = 'running'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (row,) = await fetch(database, "select reason, attempts from runs")
        assert row == {"reason": "cut", "attempts": 1}
        (claimed,) = await engine.claims.claim(1)
        assert (claimed.suspect, claimed.crashed_mid_step, claimed.attempt) == (False, True, 1)


async def released(engine: Engine) -> None:
    """Release the one expired run; its row is skipped while its input is being written."""
    async with asyncio.timeout(20):
        while await engine.claims.release_expired() != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_outage_does_not_count_even_if_another_process_recovered_the_runs(
    database: Database,
) -> None:
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        run = await engine.begin("x", agent="steered")
        await gated.until("x")
        await fetch(database, "update runs set lease_until = now() - interval '1 second'")
        await released(engine)
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        live.lose(away=True)
        await live.done
        async with asyncio.timeout(20):
            while await fetch(database, "select 1 from runs where reason = 'recovered'"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        (claimed,) = await engine.claims.claim(1)
        assert (claimed.suspect, claimed.crashed_mid_step, claimed.attempt) == (False, True, 1)


async def test_a_blocked_process_does_not_blame_the_database(database: Database) -> None:
    """Its heartbeat failed as well, but a run of its own may be the cause."""
    gated = Gated()
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        run = await engine.begin("x", agent="steered")
        await gated.until("x")
        live, leases = engine.supervisor.live(run.run_id), engine.supervisor._leases
        assert live is not None
        leases._away, leases._fenced_at = True, time.monotonic() - LEASE
        live.lease.end()
        leases._fence_all()
        await live.done
        assert (live.lost, live.away) == (True, False)


class Clock:
    """The time as the quarantine reads it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_a_suspect_next_to_a_long_step_rarely_delays_new_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, gated = Clock(), Gated()
    monkeypatch.setattr(quarantine, "time", clock)
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE) as engine:
        healthy = await engine.begin("healthy", agent="steered")
        await gated.until("healthy")
        suspect = await engine.accept("suspect", agent="steered", owner=new_id())
        await fetch(
            database, "update runs set lease_until = now() - interval '1 second' where run_id = $1", suspect.run_id
        )
        await released(engine)
        closed: list[bool] = []
        for _ in range(600):  # seconds
            assert await engine.supervisor._quarantine.claim() == []
            closed.append(engine.supervisor.room() == 0)
            clock.now += 1.0
            await fetch(
                database, "update runs set lease_until = null where status = 'pending'"
            )  # its second has passed
        lengths = [len(part) for part in "".join("x" if one else " " for one in closed).split()]
        assert len(lengths) > 2, "it tries again and again"
        assert max(lengths) <= quarantine.CLOSED_SECONDS + 1
        assert sum(lengths) < len(closed) / 5
        gated.let_go("healthy")
        await ended(engine, [healthy])


async def test_a_run_still_loading_makes_way_at_its_next_step_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", 3600.0)
    gated, loading, may_load = Gated(), asyncio.Event(), asyncio.Event()

    async def slow_load(
        database: Database, cache: StateCache, claimed: ClaimedRun, request: RunRequest
    ) -> LoadedThread:
        if not claimed.suspect and not loading.is_set():
            loading.set()
            await may_load.wait()
        return await load_thread(database, cache, claimed, request)

    monkeypatch.setattr(supervisor, "load_thread", slow_load)
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=LEASE, sweeping=True) as engine:
        healthy = await engine.begin("healthy", agent="steered")
        await asyncio.wait_for(loading.wait(), 20)
        suspect = await engine.accept("suspect", agent="steered", owner=new_id())
        await fetch(
            database, "update runs set lease_until = now() - interval '1 second' where run_id = $1", suspect.run_id
        )
        async with asyncio.timeout(20):
            while engine.supervisor.owner is not None:  # noqa: ASYNC110  until it takes no more runs
                await asyncio.sleep(0.01)
        may_load.set()
        await gated.until("healthy")
        gated.gates["healthy"].set()  # for one step
        await gated.until("suspect")
        gated.let_go("suspect", "healthy")
        await ended(engine, [suspect, healthy])


async def test_the_proof_of_an_earlier_attempt_does_not_prove_the_next(database: Database) -> None:
    async with engine_on(database, SteeredAgent("steered", echo), lease=LEASE) as engine:
        ward = engine.supervisor._quarantine
        await died_with(database, engine, "x")
        (first,) = await ward.claim()
        ward.settled(OwnedRun(first, Feed()))  # lost again
        await fetch(database, "update runs set lease_until = now() - interval '1 second'")
        await released(engine)
        (second,) = await ward.claim()
        assert (first.run_id, first.epoch + 1) == (second.run_id, second.epoch)
        ward.settled(OwnedRun(first, Feed()))  # the timer of its proof
        assert ward._unproven
        ward.settled(OwnedRun(second, Feed()))
        assert not ward._unproven


async def test_a_heartbeat_that_is_answered_too_late_is_repeated_and_no_failure_of_its_task(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many in a row would have the process replaced, which helps no busy machine."""
    gated, late = Gated(), 3
    async with engine_on(database, SteeredAgent("steered", gated.work), lease=3.0) as engine:
        run = await engine.begin("x", agent="steered")
        await gated.until("x")
        extend, asked = engine.claims.extend, 0

        async def slow(run_ids: list[UUID]) -> dict[UUID, str | None]:
            nonlocal asked
            asked += 1
            if asked <= late:
                raise TimeoutError
            return await extend(run_ids)

        monkeypatch.setattr(engine.claims, "extend", slow)
        live = engine.supervisor.live(run.run_id)
        assert live is not None
        before = live.lease.until
        await engine.supervisor._leases._renew()
        assert asked == late + 1
        assert live.lease.until > before
        gated.let_go("x")
        await ended(engine, [run])
