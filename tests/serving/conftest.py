"""Test servers (``tests.serving.program``), each on its own port."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import Program


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs with the given options; all are killed after the test."""
    programs: list[Program] = []

    def start(**options: Any) -> Program:
        programs.append(Program(tmp_path, options))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
