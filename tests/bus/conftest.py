"""Fixtures of signals and feeds."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
async def proxy(fresh_database_url: str) -> AsyncIterator[Proxy]:
    """A TCP proxy to the test's database that can fail."""
    async with Proxy(fresh_database_url) as proxy:
        yield proxy
