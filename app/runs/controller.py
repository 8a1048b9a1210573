"""HTTP routes of runs: on a thread, and stateless (with a thread of their own)."""

import functools
from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from app.access.structs import Principal
from app.base.errors import NotBuilt
from app.bus.feed import START
from app.domain.lifecycle import RunStatus
from app.runs.entries import Claimed
from app.runs.frames import MODES
from app.runs.service import RunService, created
from app.runs.structs import Action, Run, RunCreate
from app.web.params import Limit, Offset, last_event_id, stream_modes
from app.web.stream import EVENT_STREAM, EventStream, Gone, JsonWait, Streams

Id = FromPath[UUID]
Body = JSONBody[RunCreate]
Who = NamedDependency[Principal]
Service = NamedDependency[RunService]
Open = NamedDependency[Streams]


class RunsController(Controller):
    """Runs: create, follow, stop."""

    tags = ("runs",)

    @post("/threads/{thread_id:str}/runs", status_code=200, summary="Start a run in the background")
    async def create(self, thread_id: Id, data: Body, principal: Who, runs: Service) -> Response[Run]:
        """The run is accepted, and durable, when this answers."""
        claimed = await runs.create(principal, thread_id, data)
        return Response(created(claimed), headers={"Content-Location": _place(claimed)})

    @post(
        "/threads/{thread_id:str}/runs/stream",
        status_code=200,
        responses=EVENT_STREAM,
        summary="Start a run and stream it",
    )
    async def create_stream(
        self,
        thread_id: Id,
        data: Body,
        principal: Who,
        runs: Service,
        streams: Open,
    ) -> EventStream:
        """Server-sent events; the run goes on when the reader leaves, unless ``on_disconnect`` is ``cancel``."""
        return _streamed(await begin(principal, thread_id, data, runs, streams), data, principal, runs, streams)

    @post("/threads/{thread_id:str}/runs/wait", status_code=200, summary="Start a run and wait for its result")
    async def create_wait(
        self,
        thread_id: Id,
        data: Body,
        principal: Who,
        runs: Service,
        streams: Open,
    ) -> JsonWait:
        """The thread's values after the run; ``__error__`` in their place when it failed."""
        return _waited(await begin(principal, thread_id, data, runs, streams), data, principal, runs, streams)

    @post("/runs", status_code=200, summary="Start a stateless run in the background")
    async def create_stateless(self, data: Body, principal: Who, runs: Service) -> Response[Run]:
        """The run gets a thread of its own, which goes when it ends unless ``on_completion`` is ``keep``."""
        claimed = await runs.create(principal, None, data)
        return Response(created(claimed), headers={"Content-Location": _place(claimed)})

    @post("/runs/stream", status_code=200, responses=EVENT_STREAM, summary="Start a stateless run and stream it")
    async def stream_stateless(self, data: Body, principal: Who, runs: Service, streams: Open) -> EventStream:
        """As on a thread; ``Location`` leads back to this very stream."""
        return _streamed(await begin(principal, None, data, runs, streams), data, principal, runs, streams)

    @post("/runs/wait", status_code=200, summary="Start a stateless run and wait for its result")
    async def wait_stateless(self, data: Body, principal: Who, runs: Service, streams: Open) -> JsonWait:
        """As on a thread."""
        return _waited(await begin(principal, None, data, runs, streams), data, principal, runs, streams)

    @post("/runs/batch", status_code=200, summary="Start several stateless runs")
    async def batch(self, principal: Who, runs: Service) -> None:
        """Comes with the next version."""
        raise NotBuilt("Batches of runs are not built yet: create the runs one by one.")

    @get("/threads/{thread_id:str}/runs", summary="List a thread's runs")
    async def list_runs(
        self,
        thread_id: Id,
        principal: Who,
        runs: Service,
        status: FromQuery[RunStatus | None] = None,
        limit: Limit = 10,
        offset: Offset = 0,
    ) -> list[Run]:
        """Newest first."""
        return await runs.list(principal, thread_id, status=status, limit=limit, offset=offset)

    @get("/threads/{thread_id:str}/runs/{run_id:str}", summary="One run")
    async def get_run(self, thread_id: Id, run_id: Id, principal: Who, runs: Service) -> Run:
        """Its status, and what it was asked for."""
        return await runs.get(principal, thread_id, run_id)

    @delete("/threads/{thread_id:str}/runs/{run_id:str}", summary="Delete an ended run")
    async def delete_run(self, thread_id: Id, run_id: Id, principal: Who, runs: Service) -> None:
        """The thread keeps its state."""
        await runs.delete(principal, thread_id, run_id)

    @get("/threads/{thread_id:str}/runs/{run_id:str}/join", summary="Wait for a run's result")
    async def join(
        self,
        thread_id: Id,
        run_id: Id,
        principal: Who,
        runs: Service,
        streams: Open,
    ) -> JsonWait:
        """The thread's values after the run."""
        streams.admit()
        await runs.get(principal, thread_id, run_id)
        result = runs.result(principal, thread_id, run_id)
        return JsonWait(streams, result, headers=_headers(thread_id, run_id, "join"))

    @get(
        "/threads/{thread_id:str}/runs/{run_id:str}/stream",
        responses=EVENT_STREAM,
        summary="Join or resume a run's stream",
    )
    async def join_stream(
        self,
        thread_id: Id,
        run_id: Id,
        principal: Who,
        runs: Service,
        streams: Open,
        request: Request[Any, Any, Any],
    ) -> EventStream:
        """Everything after ``Last-Event-ID``, or from the start: live, or replayed after the end.

        ``stream_mode`` (repeated, with commas, or a JSON array) narrows it to some of the run's modes.
        """
        streams.admit()
        modes = stream_modes(request, MODES)
        after = last_event_id(request) or START
        await runs.get(principal, thread_id, run_id)
        chunks = runs.stream(principal, run_id, after=after, modes=modes)
        return EventStream(streams, chunks, headers=_headers(thread_id, run_id, "stream"))

    @post("/threads/{thread_id:str}/runs/{run_id:str}/cancel", summary="Stop a run")
    async def cancel(
        self,
        thread_id: Id,
        run_id: Id,
        principal: Who,
        runs: Service,
        wait: FromQuery[bool] = False,
        action: FromQuery[Action] = "interrupt",
    ) -> Response[Any]:
        """Recorded at once and felt within two seconds; with ``wait`` it answers when the run has ended."""
        if action != "interrupt":
            raise NotBuilt(f"Cancel with action {action!r} is not built yet: use 'interrupt'.")
        await runs.cancel(principal, thread_id, run_id, action=action, wait=wait)
        return Response({}, status_code=200) if wait else Response(None, status_code=202)


def _place(claimed: Claimed) -> str:
    return f"/threads/{claimed.thread_id}/runs/{claimed.run_id}"


def _headers(thread_id: UUID, run_id: UUID, verb: str) -> dict[str, str]:
    # relative to the base path, which the SDK puts in front of what it finds in ``Location``
    place = f"/threads/{thread_id}/runs/{run_id}"
    return {"Location": f"{place}/{verb}", "Content-Location": place}


async def begin(
    principal: Principal, thread_id: UUID | None, body: RunCreate, runs: RunService, streams: Streams
) -> Claimed:
    """Create the run of an answer that stays open, if one more may."""
    streams.admit()
    return await runs.create(principal, thread_id, body)


def _on_disconnect(claimed: Claimed, body: RunCreate, principal: Principal, runs: RunService) -> Gone | None:
    if body.on_disconnect != "cancel":
        return None
    return functools.partial(runs.stop, principal, claimed.run_id)


def _streamed(
    claimed: Claimed, body: RunCreate, principal: Principal, runs: RunService, streams: Streams
) -> EventStream:
    return EventStream(
        streams,
        runs.stream(principal, claimed.run_id),
        headers=_headers(claimed.thread_id, claimed.run_id, "stream"),
        on_disconnect=_on_disconnect(claimed, body, principal, runs),
    )


def _waited(claimed: Claimed, body: RunCreate, principal: Principal, runs: RunService, streams: Streams) -> JsonWait:
    return JsonWait(
        streams,
        runs.result(principal, claimed.thread_id, claimed.run_id),
        headers=_headers(claimed.thread_id, claimed.run_id, "join"),
        on_disconnect=_on_disconnect(claimed, body, principal, runs),
    )
