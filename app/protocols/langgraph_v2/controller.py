"""HTTP routes of the protocol, below the path of a thread."""

import functools
from typing import Any
from uuid import UUID

from litestar import Controller, Response, post
from litestar.params import FromPath, JSONBody

from app.features.access.guard import READS, STARTS_RUNS_BY_MESSAGE, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in
from app.features.access.rate_limits import count_run
from app.infra.http.event_streams import EVENT_STREAM, EventStream
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.gateway import Gateway, ProtocolGateway
from app.protocols.langgraph_v2.channels import Subscription
from app.protocols.langgraph_v2.commands import Caller, CommandHandler
from app.protocols.langgraph_v2.structs import Command, StreamRequest
from app.protocols.langgraph_v2.threads import ThreadEvents
from app.protocols.websockets import is_inner
from app.security.access.structs import Principal

Id = FromPath[UUID]


class ThreadProtocolController(Controller):
    """LangGraph's protocol v2: commands to a thread, and its events."""

    path = "/threads/{thread_id:str}"
    tags = ("threads, protocol v2",)
    opt = {**WRITES, PROTOCOL_LABEL: "langgraph.v2"}  # noqa: RUF012  as the framework declares it

    @post("/commands", status_code=200, opt={**STARTS_RUNS_BY_MESSAGE, **WRITES}, summary="Send a command to a thread")
    async def command(
        self,
        thread_id: Id,
        data: JSONBody[Command],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> Response[Any]:
        """``run.start``, ``input.respond``, ``input.inject``, ``state.get``, ``state.listCheckpoints``, ``state.fork``
        or ``agent.getTree``. A command that is refused is answered by ``{"type": "error", "error": CODE}``.
        """
        count = functools.partial(count_run, request.scope)
        caller = Caller(principal, thread_id, count, await key_in(request))
        return Response(await CommandHandler(gateway).execute(caller, data))

    @post(
        "/stream/events",
        status_code=200,
        responses=EVENT_STREAM,
        opt=READS,
        summary="Follow the events of a thread",
    )
    async def stream_events(
        self,
        thread_id: Id,
        data: JSONBody[StreamRequest],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> EventStream:
        """Server-sent events of all runs of the thread, after number ``since`` or from its latest runs on.

        The stream stays open for later runs; it ends when the thread is deleted.
        """
        return await _stream(gateway, principal, thread_id, data, request)

    @post(
        "/stream", status_code=200, responses=EVENT_STREAM, opt=READS, summary="Follow the events of a thread (alias)"
    )
    async def stream(
        self,
        thread_id: Id,
        data: JSONBody[StreamRequest],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> EventStream:
        """The same as ``/stream/events``, under the path that the protocol's specification names."""
        return await _stream(gateway, principal, thread_id, data, request)


class ThreadStream(EventStream):
    """Events of a thread, cut by a process that stops: the SDK reconnects then, but takes a clean end for a failure."""

    __slots__ = ()

    async def _drained(self) -> None:
        if not self._begun:
            await self._begin()


async def _stream(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, body: StreamRequest, request: AnyRequest
) -> EventStream:
    subscription = Subscription.of(body)
    gateway.streams.admit(principal.holder)
    events = ThreadEvents(gateway, principal, thread_id, keeps_step=is_inner(request.scope))
    start = await events.start(body.since)
    return ThreadStream(gateway.streams, events.follow(subscription, start), holder=principal.holder)
