"""HTTP routes of AG-UI: https://docs.ag-ui.com/spec/1.0/basic/transports/http-sse"""

import functools
from collections.abc import AsyncIterator

import msgspec
from litestar import Controller, post
from litestar.params import FromPath, JSONBody

from app.base.errors import Invalid
from app.features.access.guard import STARTS_RUNS, WRITES, CurrentPrincipal
from app.infra.http.event_streams import EventStream, OpenResponse
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.ag_ui.errors import RunRefused, error_shape
from app.protocols.ag_ui.projection import EVENT_ID, STOPPING, run_error
from app.protocols.ag_ui.starting import follow, start
from app.protocols.ag_ui.structs import RunAgentInput
from app.protocols.gateway import Gateway, ProtocolGateway
from app.security.access.structs import Principal


class AGUIStream(EventStream):
    """Events of AG-UI, whose lines end with LF alone."""

    __slots__ = ()
    heartbeat = b": heartbeat\n\n"
    come_back = STOPPING


class AGUIController(Controller):
    """Each assistant is an agent of AG-UI."""

    path = "/ag-ui"
    tags = ("AG-UI",)
    opt = {**WRITES, ERROR_SHAPE: error_shape, PROTOCOL_LABEL: "ag-ui"}  # noqa: RUF012  as the framework declares it

    @post("/{assistant:str}", status_code=200, opt=STARTS_RUNS, summary="Run an agent and stream its events")
    async def run(
        self,
        assistant: FromPath[str],
        data: JSONBody[RunAgentInput],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> OpenResponse:
        """Messages that the thread does not know yet are the input; ``resume`` answers the interrupts of the last run.

        A repeated ``runId`` follows the same run, from its start or after ``Last-Event-ID``. The run continues if the
        client disconnects, unless ``forwardedProps`` has ``"onDisconnect": "cancel"``.
        """
        return await run_stream(gateway, principal, assistant, data, request)


async def run_stream(
    gateway: ProtocolGateway, principal: Principal, assistant: str, data: RunAgentInput, request: AnyRequest
) -> OpenResponse:
    """Start the run that ``data`` asks for and return the stream of its events. Raises ``Gone``, and as ``start``."""
    gateway.streams.admit(principal.holder)
    try:
        started = await start(gateway, principal, assistant, data, request)
    except RunRefused as error:
        return AGUIStream(gateway.streams, _refusal(error), holder=principal.holder)
    run = started.run
    seen = _number(request.headers.get("last-event-id"), str(run.run_id))
    if seen >= 0:
        await gateway.runs.check_log(principal, started.thread_id, run.run_id)
    chunks = follow(gateway, principal, started, seen)
    cancels = data.option("onDisconnect") == "cancel"
    stop = functools.partial(gateway.runs.stop, principal, run.run_id) if cancels else None
    headers = {"X-Thread-Id": str(started.thread_id), "X-Run-Id": str(run.run_id)}
    return AGUIStream(gateway.streams, chunks, headers=headers, on_disconnect=stop, holder=principal.holder)


async def _refusal(error: RunRefused) -> AsyncIterator[bytes]:
    yield b"data: %b\n\n" % msgspec.json.encode(run_error(str(error), error.code))


def _number(given: str | None, run_id: str) -> int:
    """Return the number of the last event that a client has of this run: -1 for none. Raises ``Invalid``."""
    if given is None:
        return -1
    match = EVENT_ID.fullmatch(given)
    if match is None or match[1] != run_id:
        raise Invalid("Invalid Last-Event-ID: send the id of an event of this run.")
    return int(match[2])
