"""HTTP routes of runs: on a thread, and stateless (with a thread of their own)."""

import functools
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody

from app.base.errors import Forbidden
from app.domain.event_id import START, EventId
from app.domain.lifecycle import RunStatus
from app.engine.entries import ClaimedRun, created
from app.engine.streams.frames import MODES
from app.engine.structs import Action, BulkCancel, Run, RunCreate
from app.features.access.guard import ADDS_NOTHING, READS, STARTS_RUNS, WRITES, CurrentPrincipal, may
from app.features.access.idempotency import key_in
from app.features.access.rate_limits import count_runs
from app.features.runs.service import RunService
from app.features.runs.structs import RunSearch, RunTransition
from app.features.runs.thread_streams import THREAD_MODES, parse_cursor
from app.infra.http.event_streams import EVENT_STREAM, EventStream, JsonWait, OnDisconnect
from app.infra.http.litestar_internals import ReadyRequest
from app.infra.http.open_streams import OpenStreams
from app.infra.http.query_params import (
    NEXT_PAGE,
    AnyRequest,
    Page,
    last_event_id,
    page_of,
    project,
    select_fields,
    stream_modes,
)
from app.security.access.structs import WRITE, Principal
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse

Id = FromPath[UUID]
Body = JSONBody[RunCreate]
Service = NamedDependency[RunService]
OpenStreamsDependency = NamedDependency[OpenStreams]


class StreamOptions(NamedTuple):
    """How a client follows a run: after which event, which modes (None: all), and whether disconnecting cancels it."""

    after: EventId
    modes: list[str] | None
    cancels: bool


def reader_of(request: AnyRequest, cancel_on_disconnect: FromQuery[bool] = False) -> StreamOptions:
    """Parse the options of a stream from query and headers. Raises ``Invalid``, ``Forbidden``."""
    if cancel_on_disconnect and not may(request, WRITE):
        raise Forbidden(f"This key may not stop runs: cancel_on_disconnect needs the scope {WRITE}.")
    return StreamOptions(last_event_id(request) or START, stream_modes(request, MODES), cancel_on_disconnect)


class RunsController(Controller):
    """Runs: create, stream, cancel. Routes that create runs take an ``Idempotency-Key``."""

    tags = ("runs",)
    opt = WRITES
    dependencies = {  # noqa: RUF012  as the framework declares it
        "page": Provide(page_of, sync_to_thread=False),
        "reader": Provide(reader_of, sync_to_thread=False),
    }

    @post("/threads/{thread_id:str}/runs", status_code=200, opt=STARTS_RUNS, summary="Start a run in the background")
    async def create(
        self, thread_id: Id, data: Body, principal: CurrentPrincipal, runs: Service, request: AnyRequest
    ) -> Response[Any]:
        """The run is durable when the response arrives."""
        return _created(await runs.create(principal, thread_id, data, await _key_of(request)))

    @post(
        "/threads/{thread_id:str}/runs/stream",
        status_code=200,
        responses=EVENT_STREAM,
        opt=STARTS_RUNS,
        summary="Start a run and stream it",
    )
    async def create_stream(
        self,
        thread_id: Id,
        data: Body,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        request: AnyRequest,
    ) -> EventStream:
        """Server-sent events. The run continues if the client disconnects, unless ``on_disconnect`` is ``cancel``."""
        return await RunStarter(principal, runs, streams, request).stream(thread_id, data)

    @post(
        "/threads/{thread_id:str}/runs/wait",
        status_code=200,
        opt=STARTS_RUNS,
        summary="Start a run and wait for its result",
    )
    async def create_wait(
        self,
        thread_id: Id,
        data: Body,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        request: AnyRequest,
    ) -> JsonWait:
        """Return the thread's values after the run, or ``__error__`` if it failed."""
        return await RunStarter(principal, runs, streams, request).wait(thread_id, data)

    @post("/runs", status_code=200, opt=STARTS_RUNS, summary="Start a stateless run in the background")
    async def create_stateless(
        self, data: Body, principal: CurrentPrincipal, runs: Service, request: AnyRequest
    ) -> Response[Any]:
        """The run gets a thread of its own, deleted when the run ends unless ``on_completion`` is ``keep``."""
        return _created(await runs.create(principal, None, data, await _key_of(request)))

    @post(
        "/runs/stream",
        status_code=200,
        responses=EVENT_STREAM,
        opt=STARTS_RUNS,
        summary="Start a stateless run and stream it",
    )
    async def stream_stateless(
        self,
        data: Body,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        request: AnyRequest,
    ) -> EventStream:
        """Server-sent events, as on a thread. ``Location`` is the URL to resume this stream."""
        return await RunStarter(principal, runs, streams, request).stream(None, data)

    @post("/runs/wait", status_code=200, opt=STARTS_RUNS, summary="Start a stateless run and wait for its result")
    async def wait_stateless(
        self,
        data: Body,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        request: AnyRequest,
    ) -> JsonWait:
        """Return the values after the run, or ``__error__`` if it failed."""
        return await RunStarter(principal, runs, streams, request).wait(None, data)

    @post("/runs/batch", status_code=200, opt=STARTS_RUNS, summary="Start several stateless runs")
    async def batch(
        self, data: JSONBody[list[RunCreate]], principal: CurrentPrincipal, runs: Service, request: AnyRequest
    ) -> Response[Any]:
        """Accept all runs or none; each behaves like a stateless run in the background."""
        await count_runs(request.scope, len(data))
        return Response(await runs.create_batch(principal, data, await key_in(request)))

    @post("/runs/cancel", status_code=204, opt=ADDS_NOTHING, summary="Stop many runs")
    async def cancel_many(
        self,
        data: JSONBody[BulkCancel],
        principal: CurrentPrincipal,
        runs: Service,
        action: FromQuery[Action] = "interrupt",
    ) -> None:
        """Select runs by status, or by ids on one thread."""
        await runs.cancel_many(principal, data, action)

    @post("/runs/search", status_code=200, opt=READS, summary="Search runs of all threads")
    async def search(
        self, data: JSONBody[RunSearch], principal: CurrentPrincipal, runs: Service
    ) -> Response[list[Any]]:
        """Newest first. If there may be more, ``X-Pagination-Next`` is the ``before`` of the next page."""
        found, following = await runs.search(principal, data)
        return Response(project(found, data.select), headers={} if following is None else {NEXT_PAGE: str(following)})

    @get("/threads/{thread_id:str}/runs", opt=READS, summary="List a thread's runs")
    async def list_runs(
        self,
        thread_id: Id,
        principal: CurrentPrincipal,
        runs: Service,
        request: AnyRequest,
        page: NamedDependency[Page],
        status: FromQuery[RunStatus | None] = None,
    ) -> Response[list[Any]]:
        """Newest first; ``select`` (repeatable) names the fields to return.

        If a page is cut for its size, ``X-Pagination-Next`` is the offset of the next one.
        """
        fields = select_fields(request, Run.__struct_fields__)
        found, following = await runs.list(principal, thread_id, status=status, limit=page.limit, offset=page.offset)
        return Response(project(found, fields), headers={} if following is None else {NEXT_PAGE: str(following)})

    @get("/threads/{thread_id:str}/runs/{run_id:str}", opt=READS, summary="One run")
    async def get_run(self, thread_id: Id, run_id: Id, principal: CurrentPrincipal, runs: Service) -> Run:
        """Return a run's status and its request."""
        return await runs.get(principal, thread_id, run_id)

    @get(
        "/threads/{thread_id:str}/runs/{run_id:str}/transitions",
        opt=READS,
        summary="The changes of a run",
    )
    async def transitions(
        self, thread_id: Id, run_id: Id, principal: CurrentPrincipal, runs: Service
    ) -> list[RunTransition]:
        """Return each change of a run's status or worker, oldest first: queue times, take-overs, and its end."""
        return await runs.transitions(principal, thread_id, run_id)

    @delete("/threads/{thread_id:str}/runs/{run_id:str}", summary="Delete an ended run")
    async def delete_run(self, thread_id: Id, run_id: Id, principal: CurrentPrincipal, runs: Service) -> None:
        """The thread keeps its state."""
        await runs.delete(principal, thread_id, run_id)

    @get("/threads/{thread_id:str}/runs/{run_id:str}/join", opt=READS, summary="Wait for a run's result")
    async def join(
        self,
        thread_id: Id,
        run_id: Id,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        reader: NamedDependency[StreamOptions],
    ) -> JsonWait:
        """Return the thread's values once the run has ended, or ``__error__`` if it failed."""
        streams.admit(principal.holder)
        await runs.get(principal, thread_id, run_id)
        if reader.cancels:
            await runs.may_stop(principal, thread_id, run_id)
        return JsonWait(
            streams,
            runs.result(principal, thread_id, run_id),
            headers=_headers(thread_id, run_id, "join"),
            on_disconnect=functools.partial(runs.stop, principal, run_id) if reader.cancels else None,
            holder=principal.holder,
        )

    @get(
        "/threads/{thread_id:str}/runs/{run_id:str}/stream",
        responses=EVENT_STREAM,
        opt=READS,
        summary="Join or resume a run's stream",
    )
    async def join_stream(
        self,
        thread_id: Id,
        run_id: Id,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        reader: NamedDependency[StreamOptions],
    ) -> EventStream:
        """Stream all events after ``Last-Event-ID`` or from the start: live, or replayed once the run has ended.

        ``stream_mode`` (repeated, comma-separated or a JSON array) selects some of the run's modes.
        """
        streams.admit(principal.holder)
        await runs.check_log(principal, thread_id, run_id)
        if reader.cancels:
            await runs.may_stop(principal, thread_id, run_id)
        return EventStream(
            streams,
            runs.stream(principal, run_id, after=reader.after, modes=reader.modes),
            headers=_headers(thread_id, run_id, "stream"),
            on_disconnect=functools.partial(runs.stop, principal, run_id) if reader.cancels else None,
            holder=principal.holder,
        )

    @get("/threads/{thread_id:str}/stream", responses=EVENT_STREAM, opt=READS, summary="Follow all runs of a thread")
    async def join_thread(
        self,
        thread_id: Id,
        principal: CurrentPrincipal,
        runs: Service,
        streams: OpenStreamsDependency,
        request: AnyRequest,
    ) -> EventStream:
        """Stream the live run from its start and every later run, or all events after ``Last-Event-ID``.

        ``stream_mode`` (or ``stream_modes``): ``run_modes`` (default) for all events of the runs, ``state_update`` for
        states, ``lifecycle`` for starts and ends of runs only. The stream ends when the thread is deleted.
        """
        streams.admit(principal.holder)
        modes = stream_modes(request, THREAD_MODES) or ["run_modes"]
        last = request.headers.get("last-event-id")
        after = parse_cursor(last) if last else None
        frames = await runs.thread_stream(principal, thread_id, after=after, modes=modes)
        return EventStream(streams, frames, holder=principal.holder)

    @post("/threads/{thread_id:str}/runs/{run_id:str}/cancel", opt=ADDS_NOTHING, summary="Stop a run")
    async def cancel(
        self,
        thread_id: Id,
        run_id: Id,
        principal: CurrentPrincipal,
        runs: Service,
        wait: FromQuery[bool] = False,
        action: FromQuery[Action] = "interrupt",
    ) -> Response[Any]:
        """The cancellation is recorded at once and takes effect within two seconds; ``wait`` returns after the end."""
        await runs.cancel(principal, thread_id, run_id, action=action, wait=wait)
        return Response({}, status_code=200) if wait else Response(None, status_code=202)


def _headers(thread_id: UUID, run_id: UUID, verb: str) -> dict[str, str]:
    # relative to the base path, because the SDK prefixes ``Location`` with it
    path = f"/threads/{thread_id}/runs/{run_id}"
    return {"Location": f"{path}/{verb}", "Content-Location": path}


async def _key_of(request: AnyRequest) -> IdempotencyKey | None:
    """Return the idempotency key of a request and release its decoded body, which may be large."""
    key = await key_in(request)
    if isinstance(request, ReadyRequest):
        request.release_body()
    return key


def _created(accepted: ClaimedRun | ReplayedResponse) -> Response[Any]:
    path = f"/threads/{accepted.thread_id}/runs/{accepted.run_id}"
    body = created(accepted) if isinstance(accepted, ClaimedRun) else msgspec.Raw(accepted.answer or b"null")
    return Response(body, headers={"Content-Location": path})


class RunStarter:
    """Creates a run and keeps the response open for it, within the limit of open streams."""

    def __init__(self, principal: Principal, runs: RunService, streams: OpenStreams, request: AnyRequest) -> None:
        self._principal = principal
        self._runs = runs
        self._streams = streams
        self._request = request

    async def stream(self, thread_id: UUID | None, body: RunCreate) -> EventStream:
        """Stream the new run; for a repeated request, the earlier run after ``Last-Event-ID``."""
        accepted = await self._create(thread_id, body)
        after = START if isinstance(accepted, ClaimedRun) else last_event_id(self._request) or START
        return EventStream(
            self._streams,
            self._runs.stream(self._principal, accepted.run_id, after=after),
            headers=_headers(accepted.thread_id, accepted.run_id, "stream"),
            on_disconnect=self._on_disconnect(accepted.run_id, body),
            holder=self._principal.holder,
        )

    async def wait(self, thread_id: UUID | None, body: RunCreate) -> JsonWait:
        """Wait for the result of the new run; for a repeated request, of the earlier run."""
        accepted = await self._create(thread_id, body)
        return JsonWait(
            self._streams,
            self._runs.result(self._principal, accepted.thread_id, accepted.run_id),
            headers=_headers(accepted.thread_id, accepted.run_id, "join"),
            on_disconnect=self._on_disconnect(accepted.run_id, body),
            holder=self._principal.holder,
        )

    async def _create(self, thread_id: UUID | None, body: RunCreate) -> ClaimedRun | ReplayedResponse:
        self._streams.admit(self._principal.holder)
        return await self._runs.create(self._principal, thread_id, body, await _key_of(self._request))

    def _on_disconnect(self, run_id: UUID, body: RunCreate) -> OnDisconnect | None:
        if body.on_disconnect != "cancel":
            return None
        return functools.partial(self._runs.stop, self._principal, run_id)
