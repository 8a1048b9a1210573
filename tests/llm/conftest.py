"""A provider on this machine and adapters that ask it, with deadlines short enough to be met in a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.providers.llm.adapters.http_client import HttpClient, ModelTimeouts, SizeLimits
from tests.llm.fake_provider import FakeProvider

Until = Callable[[Callable[[], bool]], Awaitable[None]]

SHORT = ModelTimeouts(connect=0.6, first_token=0.6, gap=0.6, total=2.0)
ROOMY = ModelTimeouts(connect=10, first_token=10, gap=10, total=20)
SMALL = SizeLimits(line=64 << 10, total=1 << 20)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider that listens."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    """A client that takes little."""
    client = HttpClient(ROOMY, SMALL)
    yield client
    await client.aclose()


@pytest.fixture
async def hasty_http() -> AsyncIterator[HttpClient]:
    """A client that waits little and takes little."""
    client = HttpClient(SHORT, SMALL)
    yield client
    await client.aclose()


@pytest.fixture
async def patient_http() -> AsyncIterator[HttpClient]:
    """A client with the deadlines and caps of the product."""
    client = HttpClient()
    yield client
    await client.aclose()


@pytest.fixture
def until() -> Until:
    """Waits until a condition holds; fails after five seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  what is waited for has no event
                await asyncio.sleep(0.005)

    return wait
