"""The events of all runs of a thread, one after the other, without gaps or duplicates."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from app.base.offload import offload
from app.features.runs.run_views import OPENED
from app.protocols.gateway import ProtocolGateway
from app.protocols.langgraph_v2.channels import Subscription, Topic
from app.protocols.langgraph_v2.content import calls_of
from app.protocols.langgraph_v2.projection import ThreadProjection, position_of
from app.protocols.projection import ProjectedFrame
from app.security.access.structs import Principal

REPLAYED_RUNS = 20
"""Runs, the newest one included, that a stream without a position begins with."""

CATCH_UP_SECONDS = 0.5
"""A stream of lifecycle and input alone reports a question so much later: ``langgraph_sdk`` ends the iterators of its
other stream on such news, whatever that one has yet to bring. A WebSocket keeps its streams in step itself."""

QUESTION = b"event: input.requested"
"""How the frame of a question begins."""


class ThreadEvents:
    """The events of one thread, for one principal. ``keeps_step``: the caller keeps its streams in step itself."""

    def __init__(
        self, gateway: ProtocolGateway, principal: Principal, thread_id: UUID, *, keeps_step: bool = False
    ) -> None:
        self._keeps_step = keeps_step
        self._gateway = gateway
        self._principal = principal
        self._thread_id = thread_id

    async def start(self, since: int | None) -> tuple[int, int]:
        """Return the ordinal of the run to begin with, and the number after which. Raises ``NotFound``.

        Raises ``Gone`` for an event of a run whose event log has expired: what such a run is shown from has others.
        """
        newest = await self._gateway.runs.newest_ordinal(self._principal, self._thread_id)
        if since is None:
            return max(1, newest - REPLAYED_RUNS + 1), 0
        ordinal, number = position_of(since)
        if number:
            await self._gateway.runs.check_cursor(self._principal, self._thread_id, ordinal, "since")
        return ordinal, number

    async def follow(self, subscription: Subscription, start: tuple[int, int]) -> AsyncGenerator[bytes, None]:
        """Yield chunks of the events that ``subscription`` wants, until the thread is deleted or the server stops."""
        first, after = start
        yield OPENED
        runs = self._gateway.runs.started_runs(self._principal, self._thread_id, first)
        async with contextlib.aclosing(runs) as started:
            async for ordinal, run_id in started:
                batches = self._frames(ordinal, run_id, after if ordinal == first else 0)
                async with contextlib.aclosing(batches):
                    async for frames in batches:
                        async for chunk in self._chunks(frames, run_id, subscription):
                            yield chunk
                            del chunk  # hold no frames while waiting
                        del frames
        if self._gateway.runs.stopping:
            await asyncio.Event().wait()  # the drain cuts the stream

    def _frames(self, ordinal: int, run_id: UUID, after: int) -> AsyncGenerator[Sequence[ProjectedFrame], None]:
        wire = ("langgraph-v2", ordinal)
        calls = functools.partial(self._earlier_calls, run_id)
        return self._gateway.projections.frames(
            self._principal, run_id, wire, lambda: ThreadProjection(ordinal, calls), after
        )

    async def _earlier_calls(self, run_id: UUID) -> Mapping[str, Any]:
        async with self._gateway.runs.values_before(self._principal, run_id) as values:
            return {} if values is None else await offload(len(values), calls_of, values)

    async def _chunks(
        self, frames: Sequence[ProjectedFrame], run_id: UUID, subscription: Subscription
    ) -> AsyncIterator[bytes]:
        small: list[bytes] = []
        for frame in frames:
            if not isinstance(frame.topic, Topic) or not subscription.wants(frame.topic):
                continue
            if subscription.only_control and not self._keeps_step and frame.data.startswith(QUESTION):
                if small:
                    yield b"".join(small)
                    small = []
                await asyncio.sleep(CATCH_UP_SECONDS)
            if frame.late is None:
                small.append(frame.data)
                continue
            if small:
                yield b"".join(small)
                small = []
            at = (self._thread_id, run_id)
            async with self._gateway.runs.values(self._principal, at, frame.late.checkpoint_id) as values:
                if values is not None:
                    yield frame.late.frame(frame.data, values)
        if small:
            yield b"".join(small)
