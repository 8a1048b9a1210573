"""What every test of telemetry leaves behind: nothing."""

from collections.abc import Iterator

import pytest

from app.telemetry.context import here


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    """A test is in no trace, and leaves none to the next."""
    yield
    here.set(None)
