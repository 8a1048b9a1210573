"""Servers of the tests' own (``tests.serving.program``), each a program on a port of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import Program


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs with the options given by name; all are gone after the test."""
    programs: list[Program] = []

    def start(**options: Any) -> Program:
        programs.append(Program(tmp_path, options))
        return programs[-1]

    yield start
    for program in programs:
        program.clear_away()
