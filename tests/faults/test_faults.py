"""Servers keep their guarantees while they are killed, frozen, stopped and cut off: the short form.

The long form is ``make faults FULL=1``.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.base.crash_points import POINTS
from tests.cli.commands import only_line, run_command
from tests.database import clone, drop
from tests.faults import checker
from tests.faults.campaign import campaign, check
from tests.faults.driver import Driver, RunRecord
from tests.faults.fleet import LEASE_SECONDS, Fleet, Witness
from tests.faults.programs import Program, programs
from tests.long_form import FULL
from tests.outages import children_of

pytestmark = pytest.mark.timeout(180)

OPS: list[tuple[str, int]] = [("add", 3), ("put", 5), ("pay", 7), ("book", 11), ("add", 13), ("read", 1)]


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path)
    yield witness
    witness.close()


async def test_random_programs_under_random_faults_keep_every_guarantee(tmp_path: Path) -> None:
    threads, turns = (12, 3) if FULL else (8, 2)
    report = await campaign(tmp_path, seed=7, size=(threads, turns), every=1.0)
    assert report.violations == [], report.log
    assert report.runs >= threads * turns


AGENTS = ("loop", "function")
DEATHS = [(point, agent) for n, point in enumerate(POINTS) for agent in (AGENTS if FULL else AGENTS[n % 2 :][:1])]
"""Points of each kind of agent; in the short form the two kinds take turns."""


@pytest.mark.parametrize("point, agent", DEATHS)
async def test_a_process_that_dies_anywhere_loses_and_repeats_nothing(
    database_url: str, tmp_path: Path, witness: Witness, point: str, agent: str
) -> None:
    """One server crashes whenever one of its runs reaches the point; the other continues."""
    program = Program(id=f"{point}.{agent}", agent=agent, ops=OPS)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1)
    driver = Driver(fleet.bases, witness.effects)
    try:
        armed = await asyncio.to_thread(fleet.add, AGENT_CRASH_AT=f"{point}:2" if "tool" in point else point)
        fleet.servers.reverse()  # the first request goes to the one that will die
        workers = children_of(armed.process.pid)
        await driver._request("GET", "/ok")
        await driver.converse(0, [program])
        assert children_of(armed.process.pid) != workers
        assert await check(driver, witness, [[program]], database_url) == []
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)


async def test_a_process_frozen_past_its_lease_writes_nothing_afterwards(
    database_url: str, tmp_path: Path, witness: Witness
) -> None:
    threads = programs(11, 4, 1)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 2)
    driver = Driver(fleet.bases, witness.effects)
    try:
        work = asyncio.gather(*(driver.converse(n, turns) for n, turns in enumerate(threads)))
        await asyncio.to_thread(fleet.freeze, 0, LEASE_SECONDS + 1.0)
        await work
        assert await check(driver, witness, threads, database_url) == []
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)


async def test_killing_every_worker_with_work_queued_loses_nothing(
    database_url: str, tmp_path: Path, witness: Witness
) -> None:
    threads = programs(13, 10, 1)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1, AGENT_WORKER_RUNS="2")
    driver = Driver(fleet.bases, witness.effects)
    try:
        work = asyncio.gather(*(driver.converse(n, turns) for n, turns in enumerate(threads)))
        while len(driver.records) < len(threads):  # noqa: ASYNC110  until all are accepted
            await asyncio.sleep(0.01)
        await asyncio.to_thread(fleet.kill, 0)
        await work
        assert await check(driver, witness, threads, database_url) == []
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)


async def test_a_rolling_restart_with_separate_roles_loses_no_run_and_no_event(
    database_url: str, tmp_path: Path, witness: Witness
) -> None:
    """One server serves requests, two execute runs; each is restarted in turn."""
    threads = programs(17, 8, 2)
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1, AGENT_ROLE="api")
    driver = Driver(lambda: fleet.bases()[:1], witness.effects)
    try:
        for _ in range(2):
            await asyncio.to_thread(fleet.add, AGENT_ROLE="worker")
        work = asyncio.gather(*(driver.converse(n, turns) for n, turns in enumerate(threads)))
        for index in range(3):
            code = await asyncio.to_thread(fleet.servers[index].stop)
            assert code == 0
            await asyncio.to_thread(fleet.restart, index)
        await work
        assert await check(driver, witness, threads, database_url) == []
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)


async def test_one_idempotency_key_makes_one_run_despite_crashes(
    database_url: str, tmp_path: Path, witness: Witness
) -> None:
    """The request is retried until it succeeds; at first the process dies after it has accepted the run."""
    program = Program(id="once", agent="loop", ops=[("pay", 1)])
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1, AGENT_CRASH_AT="accepted")
    await asyncio.to_thread(fleet.add, AGENT_CRASH_AT="")
    driver = Driver(fleet.bases, witness.effects)
    try:
        await driver.converse(0, [program])
        assert list(await checker.transitions(database_url, driver.records)) == []
        assert [effect["tool"] for effect in witness.report()["effects"]] == ["pay"]
    finally:
        await driver.aclose()
        await asyncio.to_thread(fleet.close)


def test_production_refuses_to_crash_on_purpose(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "postgresql:///x?host=/nowhere", "APP_ENV": "production", "AGENT_CRASH_AT": "accepted"}
    done = run_command(tmp_path, "serve", **settings)
    assert done.returncode == 2
    assert only_line(done).startswith("AGENT_CRASH_AT is for tests")


@pytest.mark.parametrize(
    "frames, words",
    [
        ([("1-1", "metadata"), ("1-3", "end")], "1-3 after 1-1"),
        ([("1-1", "metadata"), ("1-1", "end")], "1-1 after 1-1"),
        ([("1-1", "metadata"), ("2-2", "end")], "2-2 after 1-1"),
        ([("1-1", "metadata"), ("1-2", "values")], "0 ends"),
    ],
)
def test_the_checker_finds_an_invalid_stream(frames: list[tuple[str, str]], words: str) -> None:
    record = RunRecord(run_id="r", program="p", frames=[(id_, event, b"") for id_, event in frames])
    assert any(words in wrong for wrong in checker.streams(record))


def test_the_checker_finds_wrong_effects() -> None:
    program = Program(id="p", agent="loop", ops=[("pay", 1), ("put", 2)])

    def wrong(*effects: tuple[str, int, str]) -> list[str]:
        report = {"effects": [{"tool": tool, "n": n, "key": key} for tool, n, key in effects], "asked": []}
        return list(checker.effects([program], report))

    assert wrong(("pay", 1, "a"), ("put", 2, "b"), ("put", 2, "b")) == []
    assert len(wrong(("pay", 1, "a"), ("pay", 1, "a"), ("put", 2, "b"))) == 1
    assert len(wrong(("pay", 1, "a"))) == 1
    assert len(wrong(("pay", 1, "a"), ("put", 2, "b"), ("put", 2, "c"))) == 1


def test_the_checker_finds_repeated_steps_and_ignores_late_requests() -> None:
    program = Program(id="p", agent="loop", ops=[("add", 1)] * 4)

    def wrong(*asked: tuple[str, int]) -> list[str]:
        said = [
            {"at": n, "received_at": n, "program": "p", "by": by, "step": step} for n, (by, step) in enumerate(asked)
        ]
        return list(checker.questions({"asked": said}, [program]))

    assert wrong(("a", 0), ("a", 1), ("b", 1), ("b", 2)) == []
    assert wrong(("a", 0), ("b", 0), ("b", 1), ("a", 0), ("b", 2)) == []
    assert len(wrong(("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2))) == 1


def test_a_second_signal_during_a_drain_changes_nothing(database_url: str, tmp_path: Path, witness: Witness) -> None:
    fleet = Fleet(database_url, tmp_path, witness, 1)
    try:
        process = fleet.servers[0].process
        for _ in range(2):
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        fleet.close()
