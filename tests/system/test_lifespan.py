"""The parts of a worker start in order and close in reverse, also when the start of any of them fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from app.server import lifespan
from app.server.composition.services import AppServices
from app.server.lifespan import Lifespan
from tests.system.services import built

PARTS = 23
"""Of a worker that executes runs and authenticates with API keys, pushes nothing, and has no Redis."""


class Recorder:
    """Records which parts were entered and which were exited, in order; the part number ``fails`` does not start."""

    def __init__(self, fails: int = -1) -> None:
        self.entered: list[str] = []
        self.exited: list[str] = []
        self._fails = fails

    def watching(self, services: AppServices) -> Iterator[tuple[str, AbstractAsyncContextManager[Any]]]:
        for number, (name, part) in enumerate(lifespan.parts(services)):
            yield name, self._watched(name, part, fails=number == self._fails)

    @asynccontextmanager
    async def _watched(self, name: str, part: AbstractAsyncContextManager[Any], *, fails: bool) -> AsyncIterator[None]:
        async with part:
            if fails:
                raise OSError(f"{name} does not start")
            self.entered.append(name)
            try:
                yield
            finally:
                self.exited.append(name)


async def opened(services: AppServices, recorder: Recorder) -> Lifespan:
    """Open ``services`` with the recorder around every part."""
    life = Lifespan(services, parts=recorder.watching)
    await life.open()
    return life


async def test_parts_start_in_order_and_close_in_reverse(database_url: str) -> None:
    services, recorder = built(database_url, AGENT_AUTH="api_key"), Recorder()
    life = await opened(services, recorder)
    assert len(recorder.entered) == PARTS
    assert recorder.entered[0] == "database"
    assert services.health.readiness.phase == "ready"
    await life.close()
    assert recorder.exited == recorder.entered[::-1]


@pytest.mark.parametrize("position", range(PARTS))
async def test_a_start_that_fails_half_way_closes_what_had_started(database_url: str, position: int) -> None:
    tasks = asyncio.all_tasks()
    services, recorder = built(database_url, AGENT_AUTH="api_key"), Recorder(fails=position)
    with pytest.raises(OSError, match="does not start"):
        await opened(services, recorder)
    assert len(recorder.entered) == position
    assert recorder.exited == recorder.entered[::-1]
    assert services.health.readiness.phase == "starting"
    assert asyncio.all_tasks() == tasks, "no background task is left"
