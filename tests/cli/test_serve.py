"""``serve``: starts with valid settings, and reports invalid ones in one line."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.health import probe
from app.infra.db.revisions import HEAD
from tests.cli.commands import PEPPER, Running, environment, only_line, run_command
from tests.waiting import until

Start = Callable[..., Running]
NOWHERE = "postgresql://agent@127.0.0.1:1/agents"


@pytest.mark.parametrize(
    "settings, code, sentence",
    [
        ({}, 2, "DATABASE_URL is not set; set it to postgresql://user:password@host/database"),
        ({"DATABASE_URL": NOWHERE}, 2, "AGENT_KEY_PEPPER is not set; set it to the output of: openssl rand -hex 32"),
        (
            {"DATABASE_URL": NOWHERE, "AGENT_KEY_PEPPER": "short"},
            2,
            "AGENT_KEY_PEPPER must be of at least 32 characters, like the output of: openssl rand -hex 32",
        ),
        (
            {"DATABASE_URL": NOWHERE, "AGENT_AUTH": "none", "HOST": "0.0.0.0"},
            2,
            "AGENT_AUTH=none would serve 0.0.0.0 without authentication; set AGENT_AUTH=api_key or HOST=127.0.0.1",
        ),
    ],
)
def test_unsafe_settings_are_refused_in_one_line(
    tmp_path: Path, settings: dict[str, str], code: int, sentence: str
) -> None:
    done = run_command(tmp_path, "serve", **settings)
    assert (done.returncode, only_line(done)) == (code, sentence)


def test_an_unreachable_database_is_reported_soon(tmp_path: Path, port: int) -> None:
    began = time.monotonic()
    done = run_command(tmp_path, "serve", "--port", str(port), DATABASE_URL=NOWHERE, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith("the database cannot be reached (ConnectionRefusedError")
    assert time.monotonic() - began < 10


def test_pending_migrations_are_refused(tmp_path: Path, port: int, empty_database_url: str) -> None:
    done = run_command(tmp_path, "serve", "--port", str(port), DATABASE_URL=empty_database_url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith(f"the database lacks the migrations up to {HEAD}")
    assert only_line(done).endswith("run `agent-service migrate`, or set AGENT_MIGRATE_ON_START=1")


def test_a_broken_agents_file_is_refused(tmp_path: Path, port: int, database_url: str) -> None:
    (tmp_path / "agents.toml").write_text("[agents.x]\ntools = ['fly']\n")
    done = run_command(tmp_path, "serve", "--port", str(port), DATABASE_URL=database_url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith("agents.toml")
    assert "'fly'" in only_line(done)


def test_a_port_in_use_is_refused(tmp_path: Path, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_command(tmp_path, "serve", "--port", str(port), DATABASE_URL=database_url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done) == f"port {port} is in use: stop the other program or pass --port N"


def test_serves_with_migrations_and_several_workers_and_stops_gracefully(
    start: Start, port: int, empty_database_url: str
) -> None:
    settings = {"DATABASE_URL": empty_database_url, "AGENT_KEY_PEPPER": PEPPER, "AGENT_MIGRATE_ON_START": "1"}
    server = start("serve", "--port", str(port), "--workers", "2", LOG_FORMAT="json", **settings)
    until(lambda: not probe("127.0.0.1", port), 60)
    server.printed(rf'(?s)"port": {port}, .*"event": "serving".*"event": "serving"')
    assert server.stop(signal.SIGTERM) == 0
    assert server.output().count('"event":"stopped"') == 2
    assert all(line.startswith("{") for line in server.output().splitlines())


def test_a_blocked_log_pipe_stops_neither_the_workers_nor_their_parent(
    tmp_path: Path, port: int, database_url: str
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 512):
            pass
    os.set_blocking(writer, True)
    settings = {"DATABASE_URL": database_url, "AGENT_AUTH": "none", "LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
    server = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", str(port), "--workers", "2"],
        cwd=tmp_path,
        env=environment(**settings),
        stdout=writer,
        stderr=writer,
    )
    try:
        until(lambda: not probe("127.0.0.1", port), 60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
        os.close(reader)
        os.close(writer)
