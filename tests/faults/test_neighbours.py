"""A run that kills its process does not harm its neighbours: they are suspects briefly, and succeed."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.database import clone, drop
from tests.faults.fleet import Fleet, Witness
from tests.long_form import FULL

HARMLESS = 10
SECONDS = 240.0
AGENTS = Path(__file__).parent / "agents" / "neighbours.toml"
FATAL = ("sleep", "spin", "exit") if FULL else ("spin",)  # the watchdog ends that process too
CAUGHT = {"interrupt": "KeyboardInterrupt", "system": "SystemExit"}

pytestmark = pytest.mark.timeout(SECONDS + 60)


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


async def begin(base: str, what: str) -> str:
    """Start a run that does ``what``; return its id."""
    body = {"assistant_id": "neighbour", "input": {"messages": [{"role": "user", "content": what}]}}
    async with httpx.AsyncClient(timeout=15) as http:
        answer = await http.post(f"{base}/runs", json=body)
    assert answer.is_success, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


async def rows(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    try:
        return {str(row["run_id"]): row for row in await connection.fetch("select * from runs")}
    finally:
        await connection.close()


async def until_ended(url: str, run_ids: list[str]) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while True:
        found = await rows(url)
        if all(found[run_id]["ended_at"] is not None for run_id in run_ids):
            return found
        assert time.monotonic() < deadline, {
            str(k): (r["status"], r["reason"], r["attempts"]) for k, r in found.items()
        }
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("fatal", FATAL)
async def test_only_the_run_that_kills_its_process_is_poison(
    database_url: str, tmp_path: Path, witness: Witness, fatal: str
) -> None:
    """Runs that raise KeyboardInterrupt and SystemExit are among the neighbours: they kill no process."""
    settings = {
        "AGENT_CONFIG": str(AGENTS),
        "AGENT_STUCK_SECONDS": "2",
        "FAULTS_FOLDER": str(tmp_path),
        "FAULTS_RUNS": str(HARMLESS + 1 + len(CAUGHT)),
    }
    fleet = await asyncio.to_thread(Fleet, database_url, tmp_path, witness, 1, **settings)
    try:
        first = fleet.bases()[0]
        harmless = [await begin(first, "harmless") for _ in range(HARMLESS)]
        caught = {await begin(first, what): error for what, error in CAUGHT.items()}
        bad = await begin(first, fatal)
        await asyncio.to_thread(fleet.add)
        tries = tmp_path / f"{fatal}.tries"
        while not tries.exists():  # noqa: ASYNC110  until the first process dies
            await asyncio.sleep(0.05)
        (tmp_path / "may_end").touch()
        found = await until_ended(database_url, [*harmless, *caught, bad])
    finally:
        await asyncio.to_thread(fleet.close)
    assert {run_id: (found[run_id]["status"], found[run_id]["error"]) for run_id in harmless} == dict.fromkeys(
        harmless, ("success", None)
    )
    for run_id, error in caught.items():
        assert f'"{error}"' in found[run_id]["error"]
    assert '"PoisonError"' in found[bad]["error"]
    assert len(tries.read_text().split()) == found[bad]["attempts"] == 5
