"""The bus on a database of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy


@pytest.fixture
async def proxy(fresh_database_url: str) -> AsyncIterator[Proxy]:
    """A way to the test's database that can go wrong."""
    async with Proxy(fresh_database_url) as proxy:
        yield proxy
