"""Isolation of telemetry tests."""

from collections.abc import Iterator

import pytest

from app.infra.telemetry.trace_context import current_span


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    """Every test starts and ends outside of a trace."""
    yield
    current_span.set(None)
