"""Commands in the background, and databases for them."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.commands import Running
from tests.cli.items import Command
from tests.database import at, drop, execute
from tests.ports import free_port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start commands in the test's folder; all are stopped after the test."""
    commands: list[Running] = []

    def start(*words: str, fresh: bool = False, **settings: str) -> Running:
        commands.append(Running(tmp_path, *words, fresh=fresh, **settings))
        return commands[-1]

    yield start
    for command in commands:
        command.terminate()


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture
def metrics_port(port: int) -> int:
    """Another free port."""
    while (other := free_port()) == port:
        pass
    return other


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database without any migration."""
    name = f"empty_{uuid4().hex[:12]}"
    asyncio.run(execute(server_url, f"create database {name}"))
    yield at(server_url, name)
    asyncio.run(drop(server_url, at(server_url, name)))


@pytest.fixture
def store(fresh_database_url: str, tmp_path: Path) -> Command:
    return Command(fresh_database_url, tmp_path)
