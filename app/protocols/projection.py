"""Project a run's events onto a protocol's frames, once for all readers of the same protocol in this process.

A projection is pure, and starts at the run's first event, so any process gives the same frames with the same numbers,
live or from the event log. A reader resumes by the number of the last frame that it has.
"""

import asyncio
import bisect
import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from app.base.errors import Unavailable
from app.base.tasks import Tasks
from app.domain.events import Event
from app.features.runs.service import RunService
from app.security.access.structs import Principal

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of frames that are buffered for readers; one that falls behind them projects the run for itself."""

CHUNK_BYTES = 64 * 1024
"""Bytes at which a reader that projects for itself sends a chunk."""

EPOCH_NUMBERS = 1 << 20
"""Numbers of frames per owner, once one has lost what it streamed: those that follow are the same for every reader."""


class ProjectedFrame(NamedTuple):
    """The bytes of one frame, and its number: larger than that of the frame before.

    ``topic``: what it is about, for readers that want some frames only. ``late``: what is to be filled into ``data`` by
    each reader, as it takes a query.
    """

    number: int
    data: bytes
    topic: Hashable = None
    late: Any = None


class Projection(Protocol):
    """Pure map from the events of one run, in order, to the frames of a protocol.

    ``stopping``: the last bytes to a reader of a server that stops, while the run continues.
    """

    stopping: bytes

    def project(self, event: Event) -> Iterable[ProjectedFrame]:
        """Return the frames of ``event``."""
        ...


@runtime_checkable
class PreparedProjection(Projection, Protocol):
    """A projection that has to read something for some events, like the values at a checkpoint.

    What it reads never changes, so that a replay gives the same frames. ``awaited``: the kinds of those events.
    """

    awaited: frozenset[type]

    async def prepare(self, event: Event) -> None:
        """Read what ``project`` needs for ``event``, which follows."""
        ...


class _Preparer:
    """Prepares ``projection`` for the events that it awaits. ``kinds``: none for most projections."""

    __slots__ = ("_projection", "kinds")

    def __init__(self, projection: Projection) -> None:
        self._projection = projection if isinstance(projection, PreparedProjection) else None
        self.kinds: frozenset[type] = frozenset() if self._projection is None else self._projection.awaited

    async def prepare(self, event: Event) -> None:
        if self._projection is not None:
            await self._projection.prepare(event)


class FellBehind(Exception):
    """Frames that the reader needs are no longer buffered."""


class SharedProjection:
    """The frames of one run for the readers of one protocol. The first reader starts it, the last one ends it.

    ``ended``: no more frames follow; ``stopping``: because the server stops.
    """

    def __init__(self, events: AsyncGenerator[Sequence[Event], None], projection: Projection, tasks: Tasks) -> None:
        self.readers = 0
        self.ended = False
        self.stopping = False
        self._numbers: list[int] = []
        self._frames: list[ProjectedFrame] = []
        self._bytes = 0
        self._evicted = -1
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self._events = events
        self.projection = projection
        self._task = tasks.start(self._run(), name="projection")

    async def _run(self) -> None:
        preparer = _Preparer(self.projection)
        try:
            async with contextlib.aclosing(self._events) as batches:
                async for events in batches:
                    self.stopping = not events
                    for event in events:
                        if type(event) in preparer.kinds:
                            self._wake()
                            await preparer.prepare(event)
                        self._append(self.projection.project(event))
                    self._wake()
        except Exception as error:  # noqa: BLE001  raised again by every reader
            self._error = error
        finally:
            self.ended = True
            self._wake()

    def _append(self, frames: Iterable[ProjectedFrame]) -> None:
        for frame in frames:
            self._numbers.append(frame.number)
            self._frames.append(frame)
            self._bytes += len(frame.data)
        if self._bytes > MAX_BYTES:
            self._evict()

    def _evict(self) -> None:
        drop = 0
        while self._bytes > MAX_BYTES // 2 and drop < len(self._frames) - 1:
            self._bytes -= len(self._frames[drop].data)
            drop += 1
        if drop:
            self._evicted = self._numbers[drop - 1]
            del self._numbers[:drop], self._frames[:drop]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def next(self, after: int) -> list[ProjectedFrame] | None:
        """Wait for frames after number ``after``; None after the end.

        Raises ``FellBehind``, and what reading the run raised.
        """
        while True:
            if after < self._evicted:
                raise FellBehind
            first = bisect.bisect_right(self._numbers, after)
            if first < len(self._frames):
                return self._frames[first:]
            if self._error is not None:
                raise self._error
            if self.ended:
                return None
            await self._news.wait()

    def close(self) -> None:
        """Stop projecting."""
        self._task.cancel()


async def whole_run(runs: RunService, principal: Principal, run_id: UUID) -> AsyncGenerator[Sequence[Event], None]:
    """Yield all events of a run, in batches, for a response that is one. Raises ``Unavailable`` if the server stops."""
    async with contextlib.aclosing(runs.events(principal, run_id)) as batches:
        async for events in batches:
            if not events:
                raise Unavailable("The server is stopping; try again.", retry_after=1)
            yield events


class FrameNumbers:
    """Numbers of the frames of one run, from 0 on.

    A replay has nothing of what an owner of the run streamed and did not commit. So the numbers after it are counted
    from the epoch of the next owner, and are the same for every reader.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -1

    def next(self) -> int:
        """Return the number of the next frame."""
        self._last += 1
        return self._last

    def retracted(self, epoch: int) -> None:
        """Leave out the numbers of frames that a replay does not have. ``epoch``: 0 if it has all of them."""
        self._last = max(self._last, epoch * EPOCH_NUMBERS)


class ProjectedRuns:
    """The projections of this process."""

    def __init__(self, runs: RunService) -> None:
        self._runs = runs
        self._shared: dict[Hashable, SharedProjection] = {}
        self._tasks = Tasks("projections")

    async def aclose(self) -> None:
        """Stop all projections."""
        await self._tasks.aclose()

    async def follow(
        self, principal: Principal, run_id: UUID, protocol: Hashable, make: Callable[[], Projection], after: int = -1
    ) -> AsyncGenerator[bytes, None]:
        """Yield chunks of a run's frames after number ``after`` until it ends or the server stops.

        ``protocol`` names what ``make`` projects onto, with all its options: readers of the same share the frames.
        """
        async with contextlib.aclosing(self.frames(principal, run_id, protocol, make, after)) as batches:
            async for frames in batches:
                chunk = b"".join([frame.data for frame in frames])
                del frames
                yield chunk
                del chunk  # hold no frames while waiting

    async def frames(
        self, principal: Principal, run_id: UUID, protocol: Hashable, make: Callable[[], Projection], after: int = -1
    ) -> AsyncGenerator[Sequence[ProjectedFrame], None]:
        """Yield a run's frames as ``follow`` does, in batches; the last one of a server that stops is ``stopping``."""
        key = (principal.tenant_id, run_id, protocol)
        shared = self._shared.get(key)
        if shared is None or shared.ended:
            shared = self._shared[key] = SharedProjection(self._runs.events(principal, run_id), make(), self._tasks)
        shared.readers += 1
        try:
            while (found := await shared.next(after)) is not None:
                after = found[-1].number
                yield found
                del found  # hold no frames while waiting
            if shared.stopping:
                yield [ProjectedFrame(after, shared.projection.stopping)]
            return
        except FellBehind:
            pass
        finally:
            shared.readers -= 1
            if not shared.readers:
                shared.close()
                if self._shared.get(key) is shared:
                    del self._shared[key]
        async with contextlib.aclosing(self._runs.events(principal, run_id)) as batches:
            async for frames in _frames(batches, make(), after):
                yield frames


async def _frames(
    batches: AsyncGenerator[Sequence[Event], None], projection: Projection, after: int
) -> AsyncGenerator[Sequence[ProjectedFrame], None]:
    """Yield batches of the frames after number ``after``, no faster than the reader takes them."""
    preparer = _Preparer(projection)
    async for events in batches:
        if not events:
            yield [ProjectedFrame(after, projection.stopping)]
        frames: list[ProjectedFrame] = []
        size = 0
        for event in events:
            if type(event) in preparer.kinds:
                await preparer.prepare(event)
            for frame in projection.project(event):
                if frame.number > after:
                    frames.append(frame)
                    size += len(frame.data)
            if size > CHUNK_BYTES:
                yield frames
                frames, size = [], 0
        if frames:
            yield frames
