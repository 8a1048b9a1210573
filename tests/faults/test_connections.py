"""Connections to the database end in every way under the server, and it goes on: the short form of ``rounds``."""

import tempfile
from pathlib import Path

import pytest

from tests.faults.rounds import WAYS, rounds

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("way", WAYS)
async def test_after_every_end_of_its_connections_a_run_finishes_in_five_seconds(way: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rounds-") as folder:  # short enough for a socket that stays where it is
        report = await rounds(Path(folder), way, 5)
    assert report.violations == []
    assert (report.rounds, report.workers_lost) == (5, 0)
    assert report.runs > 5
