"""Backup and restore as docs/operations says, from one PostgreSQL server to an empty one, with the roles that it names.

Every statement and command comes from the pages and from deploy/postgres/owner.sh; addresses and passwords are put in.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx
import pytest

from app.infra.db.embedded import EmbeddedDatabase, wheel
from tests.database import FAST_SETTINGS, FOLDERS, at, hasty_server
from tests.journeys.conftest import AGENTS, Served

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "operations"
BIN = wheel() / "pginstall18" / "bin"
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(BIN.parent / "lib")}


def ran(*words: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **more}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def good(*words: str, folder: Path, **more: str) -> str:
    done = ran(*words, folder=folder, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(page: str, beginning: str) -> list[str]:
    """Return the words of the single line of a page that begins so, without a redirection."""
    (line,) = (line for line in (OPERATIONS / page).read_text().splitlines() if line.startswith(beginning))
    return line.partition(" < ")[0].partition(" > ")[0].split()


def statements() -> str:
    """Return the statements that the page has a superuser run."""
    (block,) = re.findall(r"```sql\n(.*?)```", (OPERATIONS / "postgresql.md").read_text(), re.DOTALL)
    return str(block)


class Machine:
    """An empty PostgreSQL server."""

    def __init__(self, superuser_url: str, folder: Path) -> None:
        self.superuser_url = superuser_url
        self.folder = folder
        self.owner_url = at(superuser_url, "agents").replace("//postgres@", "//agents@")
        self.backup_url = self.owner_url.replace("//agents@", "//agents_backup@")

    def made_by_statements(self) -> "Machine":
        (self.folder / "first.sql").write_text(statements())
        arguments = ("--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file=first.sql", self.superuser_url)
        good("psql", *arguments, folder=self.folder)
        return self

    def made_by_compose(self) -> "Machine":
        """As the image's entrypoint does: the database by POSTGRES_DB, then deploy/postgres/owner.sh."""
        good("psql", "--command=create database agents", self.superuser_url, folder=self.folder)
        (self.folder / "owner_password").write_text("a password's quote\n")
        host = re.search(r"host=([^&]+)&port=(\d+)", self.superuser_url)
        assert host is not None
        given = {"POSTGRES_USER": "postgres", "POSTGRES_DB": "agents", "PGHOST": host[1], "PGPORT": host[2]}
        script = str(ROOT / "deploy" / "postgres" / "owner.sh")
        good("sh", script, folder=self.folder, OWNER_PASSWORD_FILE="owner_password", **given)
        return self

    def agent_service(self, *words: str) -> str:
        given = {"DATABASE_URL": self.owner_url, "PYTHONPATH": str(ROOT)}
        return good(sys.executable, "-m", "app", *words, folder=self.folder, **given)

    def restore(self, dump: Path) -> subprocess.CompletedProcess[str]:
        words = [word.replace('"$DATABASE_URL"', self.owner_url) for word in command("backup.md", "pg_restore ")]
        assert words.pop() == "backup.dump"
        return ran(*words, str(dump), folder=self.folder)

    def served(self, **more: str) -> Served:
        return Served(self.owner_url, self.folder, AGENT_CONFIG=str(AGENTS), AGENT_LEASE_SECONDS="3", **more)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Machine]]:
    """Creates machines: copies of one server's folder, which cost a tenth of setting one up."""
    origin = Path(tempfile.mkdtemp(prefix=FOLDERS))
    server = EmbeddedDatabase(origin, FAST_SETTINGS)
    server.start()
    server.stop()
    with contextlib.ExitStack() as servers:
        servers.callback(shutil.rmtree, origin, ignore_errors=True)
        yield lambda: Machine(servers.enter_context(hasty_server(origin)), tmp_path_factory.mktemp("machine"))


class Backup(NamedTuple):
    """A machine that was made by the page's statements, what a server of it holds, and its dump."""

    machine: Machine
    thread_id: str
    key: str
    dump: Path


@pytest.fixture(scope="module")
def backup(blank: Callable[[], Machine]) -> Backup:
    machine = blank().made_by_statements()
    assert "applied" in machine.agent_service("migrate")
    thread_id, key = talked(machine)
    dump = machine.folder / "backup.dump"
    words = command("backup.md", "pg_dump ")
    assert words[1:3] == ["--format=custom", "--file=backup.dump"]
    good("pg_dump", *words[1:3], machine.backup_url, folder=machine.folder)
    return Backup(machine, thread_id, key, dump)


@pytest.fixture(scope="module")
def compose_backup(blank: Callable[[], Machine]) -> Backup:
    """The same of a machine that was made as compose does, by its superuser."""
    machine = blank().made_by_compose()
    thread_id, key = talked(machine, AGENT_MIGRATE_ON_START="1")
    dump = machine.folder / "backup.dump"
    words = command("backup.md", "podman compose exec -T postgres pg_dump")
    assert words[5:] == ["pg_dump", "--username=postgres", "--format=custom", "agents"]
    superuser = at(machine.superuser_url, "agents")
    good("pg_dump", "--format=custom", f"--file={dump}", superuser, folder=machine.folder)
    return Backup(machine, thread_id, key, dump)


def talked(machine: Machine, **more: str) -> tuple[str, str]:
    server = machine.served(**more).wait_until_ready()
    said = talk(server)
    assert server.stop() == 0
    return said


def talk(server: Served) -> tuple[str, str]:
    """Store an item and leave a thread with an open question: the thread and the item's key."""
    with httpx.Client(base_url=server.base, timeout=30) as http:
        item = {"namespace": ["notes"], "key": "milk", "value": {"text": "the milk is in the car"}}
        assert http.put("/store/items", json=item).status_code == 204
        thread_id = http.post("/threads", json={}).json()["thread_id"]
        hello = {"assistant_id": "curious", "input": {"messages": "hello"}}
        http.post(f"/threads/{thread_id}/runs/wait", json=hello).raise_for_status()
        return thread_id, "milk"


def is_there(server: Served, thread_id: str, key: str) -> None:
    with httpx.Client(base_url=server.base, timeout=30) as http:
        assert http.get(f"/threads/{thread_id}/state").json()["values"]["messages"]
        assert http.get("/store/items", params={"namespace": "notes", "key": key}).json()["value"]
        hello = {"assistant_id": "curious", "input": {"messages": "and again"}}
        values = http.post(f"/threads/{thread_id}/runs/wait", json=hello).json()
        assert len(values["messages"]) > 2


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way, taken", [("statements", "backup"), ("compose", "compose_backup")])
def test_a_backup_is_restored_on_an_empty_machine(
    way: str, taken: str, blank: Callable[[], Machine], request: pytest.FixtureRequest
) -> None:
    _, thread_id, key, dump = request.getfixturevalue(taken)
    after: Machine = getattr(blank(), f"made_by_{way}")()
    assert "agent_app" in after.agent_service(*command("backup.md", "agent-service migrate --roles-only")[1:])
    done = after.restore(dump)
    assert done.returncode == 0, done.stderr
    restored = after.served().wait_until_ready()
    is_there(restored, thread_id, key)
    assert restored.stop() == 0


@pytest.mark.timeout(120)
def test_the_owner_is_bound_by_row_level_security_and_so_cannot_dump(backup: Backup) -> None:
    machine = backup.machine
    done = ran("pg_dump", f"--file={machine.folder / 'x'}", machine.owner_url, folder=machine.folder)
    assert done.returncode == 1
    assert "row-level security" in done.stderr


@pytest.mark.timeout(120)
def test_a_restore_that_stopped_half_way_is_refused_with_what_is_missing(
    backup: Backup, blank: Callable[[], Machine]
) -> None:
    """As of a database without the extension: the tables with vectors are left out, and the revision is the newest."""
    after = blank().made_by_statements()
    after.agent_service("migrate", "--roles-only")
    good("psql", "--command=drop extension vector", at(after.superuser_url, "agents"), folder=after.folder)
    words = ("--no-owner", f"--dbname={after.owner_url}", str(backup.dump))
    assert ran("pg_restore", *words, folder=after.folder).returncode == 1
    server = after.served()
    assert server.process.wait(30) == 1
    last = server.log.read_text().splitlines()[-1]
    assert "the database's schema is not whole" in last
    assert "table store_vectors" in last


def test_roles_that_cannot_be_made_are_named_with_what_to_do(blank: Callable[[], Machine]) -> None:
    machine = blank().made_by_statements()
    superuser = at(machine.superuser_url, "agents")

    async def weaken() -> None:
        connection = await asyncpg.connect(superuser)
        await connection.execute("alter role agents nocreaterole")
        await connection.close()

    asyncio.run(weaken())
    given = {"DATABASE_URL": machine.owner_url, "PYTHONPATH": str(ROOT)}
    done = ran(sys.executable, "-m", "app", "migrate", "--roles-only", folder=machine.folder, **given)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "createrole" in line
