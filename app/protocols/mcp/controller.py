"""HTTP routes of the Model Context Protocol: one address for all agents, one for each assistant."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from app.base.errors import Forbidden, NotFound
from app.features.access.guard import OPERATES, STARTS_RUNS_BY_MESSAGE, CurrentPrincipal, check_scope
from app.features.access.idempotency import key_in
from app.features.access.rate_limits import count_run
from app.infra.http.event_streams import OpenResponse
from app.infra.http.host_and_cors import OriginRule
from app.infra.http.problems import CHALLENGE, ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.gateway import ProtocolGateway
from app.protocols.mcp.admin import AdminSurface
from app.protocols.mcp.agent_surface import AgentSurface
from app.protocols.mcp.agents import AgentTools
from app.protocols.mcp.errors import error_shape
from app.protocols.mcp.resource_metadata import challenge
from app.protocols.mcp.resources import StoredResources
from app.protocols.mcp.server import McpServer, Request
from app.protocols.mcp.structs import RpcMessage
from app.protocols.mcp.surface import Surface
from app.security.access.structs import WRITE, AuditSink, Principal

OTHER_ORIGIN = "Web pages of that origin may not use this server. Add it to AGENT_CORS_ORIGINS."


class McpParts(NamedTuple):
    """What the routes work with. ``origins``: which web pages may use them. ``admin``: None if it is switched off.

    ``prompts``: the instructions of agents that have some, by name.
    """

    server: McpServer
    gateway: ProtocolGateway
    tools: AgentTools
    resources: StoredResources
    prompts: Mapping[str, str]
    admin: AdminSurface | None
    records: AuditSink
    origins: OriginRule

    def agents(self, assistant: str | None = None) -> AgentSurface:
        """Return what all agents offer, or one ``assistant``."""
        return AgentSurface(self.gateway, self.tools, self.resources, self.prompts, assistant)


Mcp = NamedDependency[McpParts]
"""What a handler asks for by the name ``mcp``."""


class RequestGate:
    """Checks the rights of a message. Implements ``app.protocols.mcp.surface.Gate``."""

    def __init__(self, request: AnyRequest, principal: Principal, records: AuditSink) -> None:
        self._request = request
        self._principal = principal
        self._records = records

    def need(self, scope: str) -> None:
        """Check a scope."""
        check_scope(self._principal, self._records, self._request.scope, scope)

    async def start_run(self) -> None:
        """Check that runs may be started, and count one."""
        self.need(WRITE)
        await count_run(self._request.scope)


class McpController(Controller):
    """Agents as tools. A client sends one JSON-RPC message per request."""

    path = "/mcp"
    tags = ("MCP",)
    opt = {  # noqa: RUF012  as the framework declares it
        **STARTS_RUNS_BY_MESSAGE,
        ERROR_SHAPE: error_shape,
        CHALLENGE: challenge,
        PROTOCOL_LABEL: "mcp",
    }

    @post("/", status_code=200, summary="Serve a message to all agents")
    async def all_agents(
        self, data: JSONBody[RpcMessage], principal: CurrentPrincipal, mcp: Mcp, request: AnyRequest
    ) -> OpenResponse:
        """JSON, or server-sent events for a call. Calls need the scope `write`, all else `read`."""
        return await serve(mcp, mcp.agents(), data, principal, request)

    @post(
        "/admin",
        status_code=200,
        opt={**OPERATES, "llm_by_message": True, PROTOCOL_LABEL: "mcp.admin"},
        summary="Serve a message to operations",
    )
    async def operations(
        self, data: JSONBody[RpcMessage], principal: CurrentPrincipal, mcp: Mcp, request: AnyRequest
    ) -> OpenResponse:
        """Operations of the server as tools; 404 unless `AGENT_MCP_ADMIN` is on."""
        if mcp.admin is None:
            raise NotFound("Operations over MCP are switched off: set AGENT_MCP_ADMIN=on.")
        return await serve(mcp, mcp.admin, data, principal, request)

    @post("/{assistant:str}", status_code=200, summary="Serve a message to one assistant")
    async def one_assistant(
        self,
        assistant: FromPath[str],
        data: JSONBody[RpcMessage],
        principal: CurrentPrincipal,
        mcp: Mcp,
        request: AnyRequest,
    ) -> OpenResponse:
        """As for all agents, with one tool: the assistant, given by id or agent's name."""
        return await serve(mcp, mcp.agents(assistant), data, principal, request)


async def serve(
    mcp: McpParts, surface: Surface, message: RpcMessage, principal: Principal, request: AnyRequest
) -> OpenResponse:
    """Respond to ``message``. Raises ``Forbidden`` for a web page that may not use the server."""
    headers: dict[str, Any] = dict(request.headers.items())
    if not mcp.origins.allows(headers.get("origin"), headers.get("host")):
        raise Forbidden(OTHER_ORIGIN)
    gate = RequestGate(request, principal, mcp.records)
    return await mcp.server.serve(surface, Request(message, headers, principal, gate, await key_in(request)))
