"""Errors of the database and its setup are one line, with the fix."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.commands import PEPPER, Running, only_line, run_command
from tests.database import at, execute
from tests.outages import Server
from tests.ports import free_port

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``127.0.0.1:port`` of a server that requires passwords, has no TLS, and requires TLS of the user ``tls_only``.

    Its user ``stranger`` may only log in.
    """
    port = free_port()
    options = {"fsync": "off", "listen_addresses": "127.0.0.1", "port": str(port), "max_connections": "40"}
    folder = tmp_path_factory.mktemp("guarded")
    server = Server(folder, options)
    server.start_on(port)
    try:
        rules = folder / "postgres" / "pg_hba.conf"
        strict = ("hostssl all tls_only", "host all stranger,maker,absent")
        asks = "\n".join(f"{users} 127.0.0.1/32 scram-sha-256" for users in strict)
        rules.write_text(f"local all all trust\n{asks}\n")
        asyncio.run(
            execute(
                server.url,
                "create role stranger login password 'right'",
                "create role maker login createrole password 'right'",
                "create role tls_only login password 'right'",
                "create database agents",
                "select pg_reload_conf()",
            )
        )
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.mark.parametrize(
    "address, sentence",
    [
        (
            "stranger:wrong@{}/agents",
            "the database refuses the password of the user 'stranger': check the password in ",
        ),
        ("stranger:right@{}/nothing", "the server has no database 'nothing': create it, or check its name in "),
        ("tls_only:right@{}/agents?sslmode=disable", "the database accepts the user 'tls_only' only with TLS: add "),
        (
            "stranger:right@{}/agents?sslmode=require",
            "the database does not support TLS, which DATABASE_URL requires: ",
        ),
        ("stranger:right@no-such-host.invalid/agents", "no host is named 'no-such-host.invalid': check the host in "),
        ("absent:right@{}/agents", "the database refuses the password of the user 'absent': check "),
    ],
)
@pytest.mark.parametrize("verb", ["serve", "migrate"])
def test_a_database_url_that_does_not_work_is_one_line(
    tmp_path: Path, guarded: str, verb: str, address: str, sentence: str
) -> None:
    url = f"postgresql://{address.format(guarded)}"
    done = run_command(tmp_path, *command(verb), DATABASE_URL=url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith(sentence), only_line(done)
    assert "right" not in only_line(done).replace(" right ", "")


@pytest.mark.parametrize(
    "user, sentence",
    [
        ("stranger", r"the roles .* could not be created .* let the owner of the database create roles"),
        (
            "maker",
            r"the user of the migrations lacks a privilege \(permission denied .*: set MIGRATE_DATABASE_URL to the",
        ),
    ],
)
def test_a_user_without_migration_rights_is_referred_to_the_owner(
    tmp_path: Path, guarded: str, user: str, sentence: str
) -> None:
    done = run_command(tmp_path, "migrate", DATABASE_URL=f"postgresql://{user}:right@{guarded}/agents")
    assert done.returncode == 1
    assert re.match(sentence, only_line(done)), only_line(done)


def test_a_user_without_the_server_roles_gets_the_grant_statement(
    tmp_path: Path, fresh_database_url: str, server_url: str
) -> None:
    asyncio.run(execute(server_url, "drop role if exists ungranted", "create role ungranted login"))
    url = fresh_database_url.replace("postgresql://postgres@", "postgresql://ungranted@")
    done = run_command(tmp_path, *command("serve"), DATABASE_URL=url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith(
        "the user 'ungranted' of DATABASE_URL may not act as agent_app: as the owner run: "
    )


def test_an_unknown_user_on_a_socket_is_named(tmp_path: Path, server_url: str) -> None:
    url = at(server_url, "postgres").replace("postgresql://postgres@", "postgresql://absent@")
    done = run_command(tmp_path, *command("serve"), DATABASE_URL=url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done).startswith("the database has no user 'absent': create it, or check the user in DATABASE_URL")


@pytest.mark.parametrize("verb", ["serve", "dev"])
def test_a_missing_agents_file_is_one_line(tmp_path: Path, database_url: str, verb: str) -> None:
    words = [*command(verb), "--agents", "absent.toml"]
    done = run_command(tmp_path, *words, DATABASE_URL=database_url, AGENT_KEY_PEPPER=PEPPER)
    assert done.returncode == 1
    assert only_line(done) == "there is no agents file absent.toml: write one, or check AGENT_CONFIG and --agents"


def test_production_with_a_scripted_model_warns(start: Callable[..., Running], port: int, database_url: str) -> None:
    settings = {"DATABASE_URL": database_url, "AGENT_AUTH": "none", "APP_ENV": "production"}
    start("serve", "--port", str(port), **settings).printed(r"scripted_model_in_production.*set OPENAI_API_KEY")


def test_make_up_without_podman_is_one_line(tmp_path: Path) -> None:
    for name in ("sh", "make", "git", "sed", "date", "echo", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(tmp_path / "make"), "--no-print-directory", "image"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("podman is not installed: install podman and podman-compose, or serve without ")


def command(verb: str) -> list[str]:
    return [verb] if verb == "migrate" else [verb, "--port", str(free_port())]
