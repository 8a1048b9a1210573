"""Operations: backup and restore with active runs, and a roll-out with the database one migration ahead."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.infra.db.embedded import wheel
from tests.database import at, clone, create, drop, execute, name_of
from tests.journeys.conftest import AGENTS, Served

BIN = wheel() / "pginstall18" / "bin"


def tool(name: str, *arguments: str) -> None:
    """Run a PostgreSQL program."""
    libraries = {"LD_LIBRARY_PATH": str(BIN.parent / "lib")}
    done = subprocess.run([BIN / name, *arguments], env={**os.environ, **libraries}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def two_databases(server_url: str) -> Iterator[tuple[str, str]]:
    """Two databases: one with the tables, one empty."""
    full, empty = asyncio.run(clone(server_url)), asyncio.run(create(server_url))
    yield full, empty
    asyncio.run(drop(server_url, full))
    asyncio.run(drop(server_url, empty))


def test_runs_resume_from_a_backup_taken_while_they_were_active(two_databases: tuple[str, str], tmp_path: Path) -> None:
    full, empty = two_databases
    settings = {"AGENT_CONFIG": str(AGENTS), "AGENT_LEASE_SECONDS": "3"}
    server = Served(full, tmp_path, **settings).wait_until_ready()
    dump = str(tmp_path / "backup.dump")
    with httpx.Client(base_url=server.base, timeout=20) as http:
        ended = http.post("/threads", json={}).json()["thread_id"]
        hello = {"assistant_id": "curious", "input": {"messages": "hello"}}
        before = http.post(f"/threads/{ended}/runs/wait", json=hello).json()
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        question = {"assistant_id": "slow", "input": {"messages": "what time is it?"}}
        run_id = http.post(f"/threads/{thread_id}/runs", json=question).json()["run_id"]
        while http.get(f"/threads/{thread_id}/state").json()["next"] != ["tools"]:
            pass  # until the model has answered and its tool works
        tool("pg_dump", "--format=custom", f"--file={dump}", full)
    server.process.kill()
    server.process.wait(10)
    tool("pg_restore", "--no-owner", f"--dbname={empty}", dump)
    restored = Served(empty, tmp_path, **settings).wait_until_ready()
    with httpx.Client(base_url=restored.base, timeout=30) as http:
        assert http.get(f"/threads/{ended}").json()["values"] == before
        joined = http.get(f"/threads/{thread_id}/runs/{run_id}/join").json()
        (question_,) = joined["__interrupt__"]
        assert (question_["value"]["type"], question_["value"]["tool"]) == ("tool_review", "clock")
        resumed = {"assistant_id": "slow", "command": {"resume": {"action": "done", "result": "noon"}}}
        values = http.post(f"/threads/{thread_id}/runs/wait", json=resumed).json()
        assert [m["content"] for m in values["messages"] if m["type"] == "tool"] == ["noon"]
    assert restored.stop() == 0


def test_a_server_works_on_a_database_that_is_one_migration_ahead(
    two_databases: tuple[str, str], tmp_path: Path
) -> None:
    """As in a roll-out: the database is migrated first, then the servers. Migrations only add."""
    full, _ = two_databases
    server = Served(full, tmp_path).wait_until_ready()
    ahead = (
        "alter table runs add column of_the_next_version text",
        "alter table threads add column of_the_next_version integer not null default 0",
        "update alembic_version set version_num = '9999'",
    )
    superuser = at(full, name_of(full))
    asyncio.run(execute(superuser, *ahead))
    second = Served(full, tmp_path).wait_until_ready()
    for one in (server, second):
        with httpx.Client(base_url=one.base, timeout=20) as http:
            thread_id = http.post("/threads", json={}).json()["thread_id"]
            run = {"assistant_id": "echo", "input": {"messages": "hello"}}
            values = http.post(f"/threads/{thread_id}/runs/wait", json=run).json()
            assert values["messages"][-1]["content"] == "echo: hello"
            assert http.get("/health").json()["status"] == "healthy"
    assert (server.stop(), second.stop()) == (0, 0)
