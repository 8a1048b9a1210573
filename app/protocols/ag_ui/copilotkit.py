"""HTTP routes of CopilotKit's runtime, for its front ends without a runtime of their own.

It is CopilotKit's private wire: these are the routes and shapes of the packages of ``VERSION``. Threads are this
server's, so they last, and are the same for all other clients.
"""

from typing import Any, Literal, TypeVar

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from app.base.errors import Invalid, NotFound
from app.base.ids import agent_id
from app.features.access.guard import (
    READS,
    STARTS_RUNS,
    STARTS_RUNS_BY_MESSAGE,
    WRITES,
    CurrentPrincipal,
    check_scope,
)
from app.features.access.rate_limits import count_run
from app.features.assistants.structs import Assistant, AssistantSearch
from app.infra.http.event_streams import JsonAnswer, LateAnswer, OpenResponse
from app.infra.http.json_decoding import decode
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.ag_ui.connection import connect, stream
from app.protocols.ag_ui.controller import AGUIStream, run_stream
from app.protocols.ag_ui.errors import runtime_error_shape
from app.protocols.ag_ui.projection import run_error
from app.protocols.ag_ui.starting import RUN_ID
from app.protocols.ag_ui.structs import RunAgentInput
from app.protocols.gateway import Gateway, ProtocolGateway
from app.protocols.live_runs import live_run, stop_run
from app.protocols.threads import thread_id_of
from app.security.access.structs import WRITE, Principal
from app.security.audit.service import AuditService

VERSION = "1.75.0"
"""Version of CopilotKit's packages that this follows."""

CAPABILITIES: dict[str, Any] = {
    "transport": {"streaming": True, "resumable": True},
    "state": {"snapshots": True, "deltas": True, "persistentState": True},
    "tools": {"supported": True, "clientProvided": True},
    "reasoning": {"supported": True, "streaming": True},
    "humanInTheLoop": {"supported": True, "approvals": True, "interrupts": True, "approveWithEdits": True},
}


Audit = NamedDependency[AuditService]


class StopRequest(msgspec.Struct, kw_only=True):
    """Which run to stop: the one in progress, if it is ``runId``."""

    run_id: str | None = msgspec.field(default=None, name="runId")


class MethodCall(msgspec.Struct, kw_only=True):
    """A request to the single route: ``params`` are the ids that the address of the other routes has."""

    method: Literal["info", "agent/run", "agent/connect", "agent/stop"]
    params: dict[str, Any] | None = None
    body: dict[str, Any] | None = None


class CopilotKitController(Controller):
    """CopilotKit's runtime: each assistant is one of its agents."""

    path = "/copilotkit"
    tags = ("CopilotKit",)
    opt = {**WRITES, ERROR_SHAPE: runtime_error_shape, PROTOCOL_LABEL: "copilotkit"}  # noqa: RUF012  as the framework declares it

    @get("/info", opt=READS, summary="Describe the runtime and its agents")
    async def info(self, principal: CurrentPrincipal, gateway: Gateway) -> dict[str, Any]:
        """Agents by their names, other assistants by their ids."""
        return await _info(gateway, principal)

    @post("/agent/{agent:str}/run", status_code=200, opt=STARTS_RUNS, summary="Run an agent and stream its events")
    async def run(
        self,
        agent: FromPath[str],
        data: JSONBody[RunAgentInput],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> OpenResponse:
        """As ``POST /ag-ui/{assistant}``."""
        return await run_stream(gateway, principal, agent, data, request)

    @post("/agent/{agent:str}/connect", status_code=200, opt=READS, summary="Stream the history and runs of a thread")
    async def connect(
        self, agent: FromPath[str], data: JSONBody[RunAgentInput], principal: CurrentPrincipal, gateway: Gateway
    ) -> OpenResponse:
        """The thread's messages and state, then the events of the runs in progress, by any client or cron.

        ``lastSeenEventId`` continues after an event. With ``"follow": true`` in ``forwardedProps`` the stream waits for
        later runs; without it, it ends when none is in progress, because front ends take an open stream for a run.
        """
        return await _connect(gateway, principal, agent, data)

    @post("/agent/{agent:str}/stop/{thread_id:str}", status_code=200, summary="Stop the run of a thread")
    async def stop(
        self,
        agent: FromPath[str],
        thread_id: FromPath[str],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> dict[str, Any]:
        """What its steps have committed stays. ``stopped`` is false if no run is in progress, or not the body's
        ``runId``.
        """
        body = await request.body()
        return await _stop(gateway, principal, agent, thread_id, decode(body or b"{}", StopRequest))

    @post("/", status_code=200, opt=STARTS_RUNS_BY_MESSAGE, summary="Call any of the runtime's methods")
    async def call(
        self,
        data: JSONBody[MethodCall],
        principal: CurrentPrincipal,
        gateway: Gateway,
        audit: Audit,
        request: AnyRequest,
    ) -> OpenResponse:
        """The single route of front ends with ``useSingleEndpoint``. ``agent/run``, which counts as a run start, and
        ``agent/stop`` need the scope ``write``, all else ``read``.
        """
        if data.method in {"agent/run", "agent/stop"}:
            check_scope(principal, audit, request.scope, WRITE)
        match data.method:
            case "info":
                return _json(gateway, principal, await _info(gateway, principal))
            case "agent/run":
                agent_input = _converted(data.body, RunAgentInput)
                await count_run(request.scope)
                return await run_stream(gateway, principal, _param(data, "agentId"), agent_input, request)
            case "agent/connect":
                agent_input = _converted(data.body, RunAgentInput)
                return await _connect(gateway, principal, _param(data, "agentId"), agent_input)
            case "agent/stop":
                which = _converted(data.body or {}, StopRequest)
                agent, thread = _param(data, "agentId"), _param(data, "threadId")
                return _json(gateway, principal, await _stop(gateway, principal, agent, thread, which))


def _json(gateway: ProtocolGateway, principal: Principal, answer: dict[str, Any]) -> OpenResponse:
    async def result() -> LateAnswer:
        return LateAnswer(200, msgspec.json.encode(answer))

    return JsonAnswer(gateway.streams, result(), holder=principal.holder)


Body = TypeVar("Body")


def _converted(body: dict[str, Any] | None, wanted: type[Body]) -> Body:
    """Read the body of a call. Raises ``Invalid``."""
    return decode(msgspec.json.encode({} if body is None else body), wanted)


async def _info(gateway: ProtocolGateway, principal: Principal) -> dict[str, Any]:
    found, _ = await gateway.assistants.search(principal, AssistantSearch(limit=1000))
    return {
        "version": VERSION,
        "agents": dict(map(_agent, found)),
        "audioFileTranscriptionEnabled": False,
        "mode": "sse",
        "threadEndpoints": dict.fromkeys(("list", "inspect", "mutations", "realtimeMetadata"), False),
        "suggestions": False,
        "a2uiEnabled": False,
        "openGenerativeUIEnabled": False,
        "telemetryDisabled": True,
    }


def _agent(assistant: Assistant) -> tuple[str, dict[str, Any]]:
    is_system = assistant.assistant_id == agent_id(assistant.graph_id)
    name = assistant.graph_id if is_system else str(assistant.assistant_id)
    identity = {"name": assistant.name or name, "type": assistant.graph_id}
    return name, {
        "name": name,
        "description": assistant.description or "",
        "className": "HttpAgent",
        "capabilities": {"identity": identity, **CAPABILITIES},
    }


async def _connect(gateway: ProtocolGateway, principal: Principal, agent: str, data: RunAgentInput) -> OpenResponse:
    gateway.streams.admit(principal.holder)
    await _check_agent(gateway, principal, agent)
    connection = await connect(gateway, principal, data)
    headers = {"X-Thread-Id": str(connection.thread_id)}
    chunks = stream(gateway, principal, connection)
    return AGUIStream(gateway.streams, chunks, headers=headers, holder=principal.holder)


async def _stop(
    gateway: ProtocolGateway, principal: Principal, agent: str, thread: str, which: StopRequest
) -> dict[str, Any]:
    await _check_agent(gateway, principal, agent)
    thread_id = thread_id_of(principal, thread)
    run = await live_run(gateway, principal, thread_id)
    if run is not None and which.run_id not in {None, run.metadata.get(RUN_ID, str(run.run_id))}:
        return {"stopped": False, "message": f"Run '{which.run_id}' is not the active run for thread '{thread}'."}
    if run is None or not await stop_run(gateway, principal, thread_id, run.run_id):
        return {"stopped": False, "message": f"No active run for thread '{thread}'."}
    return {"stopped": True, "interrupt": run_error("Run stopped by user", "STOPPED")}


async def _check_agent(gateway: ProtocolGateway, principal: Principal, agent: str) -> None:
    """Raise ``NotFound`` for an agent that the principal may not run, or that does not exist."""
    try:
        await gateway.assistants.runnable(principal, agent)
    except Invalid as error:
        raise NotFound(f"The agent {agent[:200]!r} does not exist.") from error


def _param(call: MethodCall, name: str) -> str:
    value = (call.params or {}).get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"params.{name} is missing: send it as a text.", ((f"/params/{name}", "is missing"),))
    return value
