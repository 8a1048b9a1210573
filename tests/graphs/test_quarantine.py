"""Which runs are in the worker together after it has ended under some."""

import asyncio

import pytest

from app.agents.langgraph import quarantine
from app.agents.langgraph.quarantine import AdmittedRun, RunAttempts, WorkerQuarantine


class Fleet:
    """Runs in one worker, which ends whenever it runs the deadly one."""

    def __init__(self) -> None:
        self.quarantine = WorkerQuarantine()
        self.together: list[int] = []
        self.inside: dict[AdmittedRun, asyncio.Future[bool]] = {}

    async def play(self, *, deadly: bool = False, steps: int = 0) -> RunAttempts:
        attempts = RunAttempts()
        while not attempts.exhausted:
            admitted = await self.quarantine.enter(attempts)
            ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self.inside[admitted] = ended
            self.quarantine.begin(admitted)
            self.together.append(len(self.inside))
            await asyncio.sleep(0)
            for _ in range(steps):
                self.quarantine.progressed(admitted)
            if deadly and not ended.done():
                self.end_worker()
            if ended.done():
                continue
            del self.inside[admitted]
            self.quarantine.leave(admitted)
            return attempts
        return attempts

    def end_worker(self) -> None:
        self.quarantine.worker_ended()
        inside, self.inside = self.inside, {}
        for ended in inside.values():
            ended.set_result(True)


@pytest.mark.timeout(20)
async def test_no_run_fails_because_of_its_neighbours() -> None:
    fleet = Fleet()
    good = [fleet.play() for _ in range(20)]
    bad = [fleet.play(deadly=True) for _ in range(3)]
    found = await asyncio.gather(*good[:10], *bad, *good[10:])
    deadly = found[10:13]
    harmless = found[:10] + found[13:]
    assert [one.exhausted for one in harmless] == [False] * 20
    assert [(one.exhausted, one.alone) for one in deadly] == [(True, True)] * 3
    assert max(one.total for one in harmless) <= 5
    assert fleet.together[-1] == 1


@pytest.mark.timeout(20)
async def test_a_run_that_ends_the_worker_after_each_step_fails_at_last() -> None:
    attempts = await Fleet().play(deadly=True, steps=1)
    assert attempts.total == quarantine.MAX_ENDS


@pytest.mark.timeout(20)
async def test_a_suspect_survives_for_a_while_and_lets_others_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "PROOF_SECONDS", (0.05,))
    guarded = WorkerQuarantine()
    attempts = RunAttempts()
    first = await guarded.enter(attempts)
    guarded.begin(first)
    guarded.worker_ended()
    again = await guarded.enter(attempts)
    guarded.begin(again)
    fresh = asyncio.create_task(guarded.enter(RunAttempts()))
    await asyncio.sleep(0)
    assert not fresh.done()
    other = await fresh
    assert again.harmless
    guarded.begin(other)
    guarded.progressed(again)
    guarded.worker_ended()
    assert attempts.alone is False
    assert attempts.recent == 2, "since the step, and one for the end before it"
    last = await guarded.enter(attempts)
    guarded.begin(last)
    guarded.progressed(last)
    assert attempts.recent == 1


@pytest.mark.timeout(20)
async def test_a_suspect_does_not_wait_for_ever_for_long_runs_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "CLOSED_SECONDS", 0.05)
    guarded = WorkerQuarantine()
    long = await guarded.enter(RunAttempts())
    guarded.begin(long)
    attempts = RunAttempts()
    attempts.worker_ended(alone=False)
    waiting = asyncio.create_task(guarded.enter(attempts))
    cancelled = asyncio.create_task(guarded.enter(RunAttempts()))
    await asyncio.sleep(0)
    assert not waiting.done()
    cancelled.cancel()
    suspect = await waiting
    fresh = asyncio.create_task(guarded.enter(RunAttempts()))
    await asyncio.sleep(0)
    assert not fresh.done()
    guarded.leave(suspect)
    assert not (await fresh).suspect
