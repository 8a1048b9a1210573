"""What every test of telemetry leaves behind: nothing."""

from collections.abc import Iterator

import pytest

from app.infra.telemetry.trace_context import current_span


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    """A test is in no trace, and leaves none to the next."""
    yield
    current_span.set(None)
