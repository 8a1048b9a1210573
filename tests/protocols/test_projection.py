"""Readers share what a run's events are projected onto, and none of them misses a frame."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import cast
from uuid import UUID

import msgspec
import pytest

from app.agents.port import ModelOptions
from app.domain.events import Custom, Ended, Event, MessageDelta, Retracted, RunStarted
from app.features.access.guard import ANONYMOUS_PRINCIPAL
from app.features.runs.service import RunService
from app.protocols.a2a.projection import TaskProjection
from app.protocols.ai_sdk.projection import UIMessageProjection
from app.protocols.openai.chat import ChatProjection
from app.protocols.openai.responses.projection import ResponseProjection
from app.protocols.openai.responses.response import ResponseHead
from app.protocols.openai.responses.structs import StoredSettings
from app.protocols.projection import EPOCH_NUMBERS, MAX_BYTES, ProjectedFrame, ProjectedRuns, Projection
from app.security.access.structs import Principal

RUN = UUID(int=1)
RID = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"
LARGE = msgspec.Raw(b'"' + b"x" * (MAX_BYTES // 8) + b'"')


class Numbers:
    """Each event is a frame: its number in six digits, and its data."""

    stopping = b"stopping"

    def __init__(self) -> None:
        self._number = -1

    def project(self, event: Event) -> Iterator[ProjectedFrame]:
        assert isinstance(event, Custom)
        self._number += 1
        yield ProjectedFrame(self._number, b"%06d" % self._number + bytes(event.data))


class Batches:
    """Stands for the runs of a process: a run whose events come in ``batches``. ``open``: how many read it now."""

    def __init__(self, *batches: Sequence[Event], error: Exception | None = None) -> None:
        self._batches = batches
        self._error = error
        self.open = 0
        self.opened = 0

    async def events(self, principal: Principal, run_id: UUID) -> AsyncGenerator[Sequence[Event], None]:
        self.open += 1
        self.opened += 1
        try:
            for batch in self._batches:
                yield batch
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            self.open -= 1


def projected(runs: Batches) -> ProjectedRuns:
    return ProjectedRuns(cast("RunService", runs))


async def read(projections: ProjectedRuns, after: int = -1) -> list[int]:
    found = []
    async with asyncio.timeout(30):
        async for chunk in projections.follow(ANONYMOUS_PRINCIPAL, RUN, "numbers", Numbers, after):
            at = 0
            while at < len(chunk):
                found.append(int(chunk[at : at + 6]))
                at = chunk.index(b'"', at + 7) + 1
            await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("batches", [[20], [1, 20], [9] * 5, [1] * 20])
async def test_a_reader_gets_every_frame_of_batches_larger_than_the_buffer(batches: list[int]) -> None:
    runs = Batches(*([Custom(LARGE)] * size for size in batches))
    projections = projected(runs)
    every = list(range(sum(batches)))
    found = await asyncio.gather(read(projections), read(projections), read(projections, 3))
    assert list(found) == [every, every, every[4:]]
    assert runs.open == 0


async def test_readers_share_one_projection_and_its_error() -> None:
    small = [Custom(msgspec.Raw(b'"x"'))]
    runs = Batches(small, small, error=ValueError("broken"))
    projections = projected(runs)
    both = await asyncio.gather(read(projections), read(projections), return_exceptions=True)
    assert [str(one) for one in both] == ["broken", "broken"]
    assert (runs.opened, runs.open) == (1, 0)


async def test_a_reader_that_leaves_does_not_end_the_others() -> None:
    runs = Batches(*[[Custom(msgspec.Raw(b'"x"'))]] * 100)
    projections = projected(runs)
    leaving = projections.follow(ANONYMOUS_PRINCIPAL, RUN, "numbers", Numbers)
    staying = asyncio.create_task(read(projections))
    await anext(leaving)
    await leaving.aclose()
    assert await staying == list(range(100))
    assert (runs.opened, runs.open) == (1, 0)


PROJECTIONS: dict[str, Callable[[], Projection]] = {
    "chat": lambda: ChatProjection("c", "m", 1),
    "responses": lambda: ResponseProjection(
        ResponseHead("resp_1", RUN, RUN, 1, StoredSettings(model="m"), ModelOptions())
    ),
    "ai_sdk": lambda: UIMessageProjection("m"),
    "a2a": lambda: TaskProjection("t", "c"),
}


def numbers_of(wire: str, *events: Event) -> list[int]:
    projection = PROJECTIONS[wire]()
    return [frame.number for event in events for frame in projection.project(event)]


@pytest.mark.parametrize("wire", PROJECTIONS)
def test_frames_after_a_lost_owner_have_the_same_numbers_live_and_in_a_replay(wire: str) -> None:
    lost: list[Event] = [MessageDelta("m", "agent", 1, "ha"), MessageDelta("m", "agent", 1, "lf")]
    custom = Custom(msgspec.Raw(b"1"))
    rest: list[Event] = [
        RunStarted(RID, 2),
        Retracted(["m"], 0, 2),
        custom,
        MessageDelta("n", "agent", 1, "ha"),
        Ended(RID, "success"),
    ]

    for begun in ([RunStarted(RID, 1)], []):  # the first owner may have committed nothing
        live = [number for number in numbers_of(wire, RunStarted(RID, 1), *lost, *rest) if number > EPOCH_NUMBERS]
        replay = [number for number in numbers_of(wire, *begun, *rest) if number > EPOCH_NUMBERS]
        assert len(replay) > 1
        assert live[-len(replay) :] == replay


@pytest.mark.parametrize("wire", PROJECTIONS)
def test_a_run_that_no_owner_ends_has_the_same_last_numbers_live_and_in_a_replay(wire: str) -> None:
    def text(message_id: str) -> Event:
        return MessageDelta(message_id, "agent", 1, "half")

    started: list[Event] = [RunStarted(RID, 1), Custom(msgspec.Raw(b"1"))]
    second: list[Event] = [RunStarted(RID, 2), Retracted(["m"], 1, 2)]
    process_lost: list[Event] = [text("n"), Retracted(["n"], 1)]  # by the owner, which goes on
    ended: list[Event] = [Retracted(["o"], 1, 3), Ended(RID, "error")]
    live = numbers_of(wire, *started, text("m"), *second, *process_lost, text("o"), *ended)
    replay = numbers_of(wire, *started, *second, *ended)
    last = [number for number in replay if number > 3 * EPOCH_NUMBERS]
    assert last == [number for number in live if number > 3 * EPOCH_NUMBERS]
    assert last[-1] == live[-1]
