"""Fixtures for all tests: a real database, no network beyond this machine, no real model."""

import asyncio
import contextlib
import functools
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog

from tests import guards, statements
from tests.database import clone, create, drop, server_with_template
from tests.faults.proxy import Proxy
from tests.llm.fake_provider import FakeProvider

SETTINGS = ("DATABASE_", "MIGRATE_DATABASE_", "AGENT_", "OPENAI_", "ANTHROPIC_", "OTEL_", "REDIS_", "PG")

TEST_TIMEOUT = 50.0
"""Timeout in seconds of a test's coroutine; pytest's own timeout, which includes the fixtures, is longer."""

server_of_the_run = contextlib.ExitStack()
"""Entered on first use, in the process that ends last."""

URL = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Remove settings from the environment, among them keys of real models."""
    for name in list(os.environ):
        if name.startswith(SETTINGS):
            del os.environ[name]
    # the default tracebacks show all variables, which takes so long that health checks time out
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    guards.guard()
    statements.watch()
    if hasattr(config, "workerinput"):
        config.stash[URL] = config.workerinput["server_url"]


def url_of(config: pytest.Config) -> str:
    """Return the superuser's URL of the test server; the first call starts it."""
    if URL not in config.stash:
        config.stash[URL] = server_of_the_run.enter_context(server_with_template())
    return config.stash[URL]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the server's URL to a worker process (pytest-xdist)."""
    node.workerinput["server_url"] = url_of(node.config)


def pytest_unconfigure() -> None:
    """Stop the server."""
    server_of_the_run.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test that hangs fail at the line where it waits.

    pytest-timeout, which includes the fixtures, can only kill the process.
    """
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            marker = item.get_closest_marker("timeout")
            item.obj = with_timeout(item.obj, marker.args[0] * 0.8 if marker else TEST_TIMEOUT)


def with_timeout(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def limited(*arguments: Any, **fixtures: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*arguments, **fixtures)

    return limited


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests on the event loop of production."""
    return {"uvloop": guards.GuardedLoop}


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """The superuser's URL of the test server."""
    return url_of(pytestconfig)


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """A migrated database shared by the tests of one worker, each with its own tenant."""
    url = asyncio.run(clone(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
async def fresh_database_url(server_url: str) -> AsyncIterator[str]:
    """A migrated database for one test: for leases, LISTEN, and counts over all rows."""
    url = await clone(server_url)
    yield url
    await drop(server_url, url)


@pytest.fixture
async def proxy(fresh_database_url: str) -> AsyncIterator[Proxy]:
    """A TCP proxy to the test's database that can fail."""
    async with Proxy(fresh_database_url) as proxy:
        yield proxy


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A database without any migration."""
    url = asyncio.run(create(server_url))
    yield url
    asyncio.run(drop(server_url, url))


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A listening model provider."""
    async with FakeProvider() as provider:
        yield provider
