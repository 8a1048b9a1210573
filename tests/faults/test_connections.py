"""The server recovers from broken database connections: the short form of ``rounds``."""

import tempfile
from pathlib import Path

import pytest

from tests.faults.rounds import TRANSPORTS, rounds

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_after_broken_connections_a_run_finishes_in_five_seconds(transport: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rounds-") as folder:  # short enough for the path of a socket
        report = await rounds(Path(folder), transport, 5, 5 * TRANSPORTS.index(transport))
    assert report.violations == []
    assert (report.rounds, report.workers_lost) == (5, 0)
    assert report.runs > 5
