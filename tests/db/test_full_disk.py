"""The embedded database on a full disk: the message names it, and the server goes on once there is space."""

import asyncio
import contextlib
import math
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.base.errors import StartError
from app.cli import dev
from app.cli.dev import DatabaseKeeper
from app.infra.db.embedded import EmbeddedDatabase

FULL = "the disk of .* is full: free space on it, or pass a --data-dir on another"
MOUNT = ["mount", "-t", "tmpfs", "-o"]

Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts file systems of a given size."""
    with contextlib.ExitStack() as mounted:

        def mount(size: str) -> Path:
            folder = tmp_path / f"disk-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            done = subprocess.run([*MOUNT, f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
            if done.returncode != 0:
                pytest.skip("this user may not mount a small file system")
            mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield mount


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast


def test_a_disk_that_is_too_small_or_full_is_named_at_the_start(disk: Disk) -> None:
    with pytest.raises(StartError, match=f"cannot be set up: {FULL}"):
        EmbeddedDatabase(disk("20m") / "data").start()
    folder = disk("100m")
    database = EmbeddedDatabase(folder / "data")
    database.start()
    database.stop()
    fill(folder)
    with pytest.raises(StartError, match=FULL):
        EmbeddedDatabase(folder / "data").start()


def test_a_server_that_a_full_disk_ended_goes_on_once_there_is_space(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev, "RELAUNCH_SECONDS", 0.1)
    said: list[dict[str, Any]] = []
    folder = disk("100m")
    database = EmbeddedDatabase(folder / "data")
    address = database.start()
    keeper = DatabaseKeeper(database, lambda _, event, **fields: said.append({"event": event, **fields}))
    try:
        assert keeper.tend() == math.inf
        asyncio.run(execute(address, "create table kept as select 1 as n"))
        assert database._server is not None
        database._server.send_signal(signal.SIGQUIT)  # as it ends itself when it cannot write its log
        until(database.ended)
        ballast = fill(folder)
        until(lambda: keeper.tend() and len(said) == 2)
        assert {line["event"] for line in said} == {"database_ended"}
        assert "is full: free space on it" in said[1]["reason"]
        ballast.unlink()
        until(lambda: keeper.tend() and asyncio.run(execute(address, "select n from kept")) == 1)
    finally:
        database.stop()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 40
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # no signal comes from another process


async def execute(address: str, statement: str) -> Any:
    """The first value of a statement, None if there is none or the server does not answer."""
    with contextlib.suppress(asyncpg.PostgresError, OSError):
        connection = await asyncpg.connect(address, timeout=5)
        try:
            return await connection.fetchval(statement, timeout=5)
        finally:
            connection.terminate()
    return None
