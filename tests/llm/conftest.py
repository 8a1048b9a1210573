"""A local fake provider and HTTP clients for it, with timeouts short enough for tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.providers.llm.adapters.http_client import HttpClient, ModelTimeouts, SizeLimits

Until = Callable[[Callable[[], bool]], Awaitable[None]]

SHORT = ModelTimeouts(connect=0.6, first_token=0.6, gap=0.6, total=2.0)
ROOMY = ModelTimeouts(connect=10, first_token=10, gap=10, total=20)
SMALL = SizeLimits(line=64 << 10, total=1 << 20)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    """A client with small size limits."""
    client = HttpClient(ROOMY, SMALL)
    yield client
    await client.aclose()


@pytest.fixture
async def hasty_http() -> AsyncIterator[HttpClient]:
    """A client with short timeouts and small size limits."""
    client = HttpClient(SHORT, SMALL)
    yield client
    await client.aclose()


@pytest.fixture
async def patient_http() -> AsyncIterator[HttpClient]:
    """A client with the production timeouts and size limits."""
    client = HttpClient()
    yield client
    await client.aclose()


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds; fail after five seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  the condition has no event
                await asyncio.sleep(0.005)

    return wait
