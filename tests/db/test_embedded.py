"""The embedded server started by root: its user reaches the data, and no directory is opened to others."""

import asyncio
import os
import stat
from pathlib import Path

import asyncpg
import pytest

from app.base.errors import StartError
from app.infra.db import embedded
from app.infra.db.embedded import EmbeddedDatabase

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the server runs as another user only when root starts it")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_closed_folders_above_the_data_stay_closed_and_the_log_is_its_owners(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    database = EmbeddedDatabase(closed / "data", {"fsync": "off"})
    address = database.start()
    try:
        assert asyncio.run(answer(address)) == 1
        assert mode(closed) == 0o700
        assert mode(closed / "data" / "postgres") == 0o700
        assert mode(closed / "data" / "postgres.log") == 0o600
    finally:
        database.stop()


def test_where_nothing_lets_it_pass_the_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(embedded, "TRAVERSAL_CAPABILITIES", ())
    with pytest.raises(StartError, match=r"which may not enter .*: pass a --data-dir that all users may enter"):
        EmbeddedDatabase(closed / "data").start()
    assert mode(closed) == 0o700


async def answer(address: str) -> int:
    connection = await asyncpg.connect(address)
    try:
        found: int = await connection.fetchval("select 1")
        return found
    finally:
        await connection.close()
