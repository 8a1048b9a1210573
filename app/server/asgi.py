"""The application of one worker: its routes over the services. Builds nothing at import."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide

from app.base.hide_modules import hide_modules
from app.console.assets import SignIn
from app.features.access.guard import OPEN, Guard, RefusalThrottle, principal_of
from app.features.access.idempotency import DuplicateRequests
from app.features.access.rate_limits import RateLimitMiddleware
from app.features.system.service import version
from app.infra.http.host_and_cors import HostAndCorsMiddleware, OriginRule
from app.infra.http.json_decoding import JsonBody
from app.infra.http.large_answers import LargeAnswers
from app.infra.http.litestar_internals import FastResponse, ReadyRequest
from app.infra.http.openapi import openapi_config
from app.infra.http.problems import exception_handlers
from app.infra.http.request_bodies import RequestBodyMiddleware
from app.infra.http.request_context import RequestContextMiddleware
from app.infra.http.response_deadline import ResponseDeadlineMiddleware
from app.infra.http.server_address import ServerAddress
from app.infra.settings import AuthSettings, ServerSettings
from app.protocols.langgraph_v2 import websocket as langgraph_v2
from app.protocols.mcp.resource_metadata import OAuthResource
from app.protocols.openai.responses import websocket as responses
from app.protocols.websockets import WebSocketRoutes
from app.server.api_reference.page import complete
from app.server.composition.services import AppServices
from app.server.routes import BASE_PATH, controllers_of, root_controllers_of

AFTER = {"streams": "runs", "max_document_bytes": "documents", "quota": "threads"}
"""Parts that a handler asks for in addition to another one."""

WEBSOCKETS = (
    (BASE_PATH, langgraph_v2.PATH, langgraph_v2.ThreadConnection),
    ("", responses.PATH, responses.ResponsesConnection),
)
"""Who serves WebSocket connections: what their paths begin with, and the pattern of the rest."""


def litestar(services: AppServices) -> Litestar:
    """Return the routes of ``services``, which the caller opens and closes (``app.server.application``)."""
    server = services.settings.server
    with hide_modules("pydantic", "opentelemetry", "starlette"):  # plugins that nothing here uses: 15 MB and 0.3 s
        return _routed(services, server)


def _routed(services: AppServices, server: ServerSettings) -> Litestar:
    return Litestar(
        route_handlers=[
            Router(BASE_PATH, route_handlers=[*controllers_of(server.role)]),
            *root_controllers_of(
                server.role, metrics=server.metrics_port in {0, server.port}, console=server.console == "on"
            ),
        ],
        middleware=[
            functools.partial(
                Guard,
                access=services.auth.authenticator,
                records=services.persistence.audit,
                entry=services.auth.custom_auth,
                slowdown=RefusalThrottle(services.proxies),
            ),
            functools.partial(
                RateLimitMiddleware,
                limiter=services.limits.limiter,
                proxies=services.proxies,
                meters=services.telemetry.meters,
                quota=services.limits.quota,
            ),
            DuplicateRequests,
        ],
        dependencies=dependencies(services),
        dto=JsonBody,
        return_dto=None,
        request_class=ReadyRequest,
        response_class=FastResponse,
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(version(), opt=OPEN, complete=complete),
        path=server.root_path or None,
        state=State(
            {
                "oauth": _oauth_resource(services),
                "address": ServerAddress(server.public_url, server.root_path),
                "sign_in": _sign_in(services.settings.auth),
            }
        ),
        request_max_body_size=None,
        logging_config=None,
    )


def _oauth_resource(services: AppServices) -> OAuthResource:
    auth, server = services.settings.auth, services.settings.server
    return OAuthResource(auth.jwt_issuer if auth.mode == "jwt" else "", server.root_path)


def _sign_in(auth: AuthSettings) -> SignIn:
    if auth.mode != "jwt":
        return SignIn()
    return SignIn(auth.jwt_issuer, auth.console_client_id, auth.console_scope, auth.jwt_audience)


def with_websockets(services: AppServices) -> WebSocketRoutes:
    """Return all that requests and connections pass. Without authentication ``layers`` judge the origins of both."""
    server = services.settings.server
    origins = OriginRule(server.cors_origins) if services.auth.is_on else None
    return WebSocketRoutes(layers(services), WEBSOCKETS, services.streams, server.root_path, origins)


def layers(services: AppServices) -> RequestContextMiddleware:
    """All that a request passes: envelope, names and origins, time, bodies, large answers, routes."""
    prefix = services.settings.server.root_path
    runs = services.settings.runs
    answering = LargeAnswers(litestar(services), services.streams.large)
    timed = ResponseDeadlineMiddleware(
        RequestBodyMiddleware(answering, max_large_bytes=runs.request_bytes), runs.request_seconds
    )
    inner = behind_names(timed, services)
    return RequestContextMiddleware(inner, services.telemetry.meters, tracer=services.telemetry.tracer, prefix=prefix)


def behind_names(app: Any, services: AppServices) -> HostAndCorsMiddleware:
    """``app``, served to the hosts and origins that the settings allow."""
    server = services.settings.server
    return HostAndCorsMiddleware(
        app,
        server.allowed_hosts,
        server.cors_origins,
        server.root_path,
        authenticated=services.auth.is_on,
    )


def dependencies(services: AppServices) -> dict[str, Provide]:
    """What handlers may ask for by name.

    Dependencies that stand side by side are resolved in a task group (20 µs each), those in a line one after the other
    (2 µs each). So each part comes after the principal, or after the part that its handlers ask for too (``AFTER``).
    Open routes have no principal, so theirs stand alone.
    """
    provided = {
        "system": Provide(lambda: services.health.system, sync_to_thread=False),
        "a2a": Provide(lambda: services.a2a, sync_to_thread=False),
        "mcp_sign_ins": Provide(lambda: services.mcp_sign_ins, sync_to_thread=False),
        "metrics_page": Provide(lambda: services.telemetry.metrics_page, sync_to_thread=False),
        "principal": Provide(principal_of, sync_to_thread=False),
    }
    parts = {
        "assistants": services.features.assistants,
        "threads": services.features.threads,
        "runs": services.features.runs,
        "crons": services.features.crons,
        "store": services.features.store,
        "documents": services.features.documents,
        "max_document_bytes": services.settings.documents.max_bytes,
        "webhooks": services.features.webhooks,
        "audit": services.persistence.audit,
        "operation": services.operation,
        "secrets": services.persistence.secrets,
        "streams": services.streams,
        "gateway": services.gateway,
        "mcp": services.mcp,
        "quota": services.limits.quota,
    }
    for name, part in parts.items():
        provided[name] = Provide(_provider(part, after=AFTER.get(name, "principal")), sync_to_thread=False)
    return provided


def _provider(part: Any, after: str) -> Callable[..., Any]:
    def give(**_: Any) -> Any:
        return part

    kind: Any = NamedDependency[Any]  # type: ignore[misc]
    one_before = inspect.Parameter(after, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    give.__signature__ = inspect.Signature([one_before])  # type: ignore[attr-defined]
    give.__annotations__ = {after: kind, "return": Any}
    return give
