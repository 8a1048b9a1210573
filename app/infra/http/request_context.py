"""The outermost layer: request id and trace, response headers, metrics, and the last resort for errors.

It changes only the first message of a response, so streams pass through unbuffered.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.ids import new_id
from app.infra.http.problems import INTERNAL_ERROR, send_problem
from app.infra.http.response_detacher import KEY, DetachedResponse
from app.infra.telemetry.labels import METHOD
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.trace_context import SpanContext, current_span, parse_span_context, request
from app.infra.telemetry.tracing import NO_TRACER, SERVER, SpanTemplate, Tracer, Value

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset(METHOD.values)
OTHER_METHOD = "_OTHER"
DISCONNECTED = "499"
"""The status of requests whose client disconnected before a response began."""

UNMATCHED = "unmatched"
"""The route label of requests that match no route."""

UNTRACED = ("/metrics", "/health", "/health/ready", "/health/live", "/ok")
"""Suffixes of paths that probes request all the time: they get no spans."""

PROTOCOL_LABEL = "protocol"
"""Member of a handler's ``opt``: the protocol that it speaks, one of ``labels.PROTOCOL``, if it is not the API."""

REQUEST_SPAN = SpanTemplate("request", SERVER)
"""Requests without a response yet."""

ALWAYS = [
    (b"server", b"agent-service"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
UNLESS_SET = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
ALIASES = {
    "/healthz": "/api/v1/health",
    "/readyz": "/api/v1/health/ready",
    "/livez": "/api/v1/health/live",
}


class RequestContextMiddleware:
    """Outermost ASGI middleware. ``aliases`` maps paths to the paths they are served as.

    ``prefix``: the routes of ``app`` are below it, but a request may leave it out: a proxy may strip it, and operators
    bypass the proxy.
    """

    def __init__(
        self,
        app: ASGIApp,
        meters: Meters,
        aliases: Mapping[str, str] = ALIASES,
        tracer: Tracer = NO_TRACER,
        prefix: str = "",
    ) -> None:
        self._prefix = prefix
        self._tracer = tracer
        self.app = app
        self.aliases = aliases
        self._duration = meters.http_server_request_duration
        self._protocols = meters.protocol_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        path = scope["path"]
        if self._prefix and path.startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        path = self._prefix + self.aliases.get(path, path)
        if path != scope["path"]:
            scope["path"] = path
            scope["raw_path"] = quote(path).encode()
        request_id, caller = _identify(scope["headers"])
        request.set(request_id)
        span = None
        if self._tracer.active and not path.endswith(UNTRACED):
            span = self._tracer.receive(REQUEST_SPAN, caller)
        current_span.set(caller if span is None else span.context)
        sender = _ResponseSender(receive, send, request_id)
        scope[KEY] = sender  # type: ignore[literal-required]
        try:
            if b"%00" in scope["query_string"] or "\x00" in scope["path"]:
                await send_problem(
                    scope, sender, 400, "The URL has a NUL character, which cannot be stored: remove it."
                )
            else:
                await self.app(scope, receive, sender)
                if sender.detached is not None:
                    await sender.detached.serve()
        except Exception as error:  # noqa: BLE001 - the outermost edge
            await self._send_internal_error(scope, sender, error)
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            route = scope.get("path_template") or UNMATCHED
            self._duration.record(time.perf_counter() - started_at, method, route, sender.status)
            handler: Any = scope.get("route_handler")
            protocol = None if handler is None else handler.opt.get(PROTOCOL_LABEL)
            if protocol is not None:
                self._protocols.add(1, protocol, _outcome(sender.status))
            if span is not None:
                span.template = _template(method, route, sender.status, protocol)
                span.attributes = {"url.path": scope["path"], "agent.request_id": sender.request_id}
                span.end(sender.status if sender.status >= "500" else "")

    async def _send_internal_error(self, scope: Scope, sender: "_ResponseSender", error: Exception) -> None:
        """Respond to an error that the application let through; a response that has begun is cut."""
        route = scope.get("path_template", "")
        if sender.begun:
            log.error("answer_cut", path=route, exc_info=error.__cause__ or error)
        elif sender.detached is not None:
            await sender.detached.refuse(error)
        else:
            log.error("request_failed", path=route, exc_info=error)
            await send_problem(scope, sender, 500, INTERNAL_ERROR)


class _ResponseSender:
    """``send`` of one request (``app.infra.http.response_detacher.ResponseDetacher``)."""

    __slots__ = ("begun", "detached", "plain_receive", "plain_send", "request_id", "status")

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self.plain_receive = receive
        self.plain_send = send
        self.detached: DetachedResponse | None = None
        self.request_id = request_id
        self.begun = False
        self.status = DISCONNECTED

    async def __call__(self, message: Any) -> None:
        if not self.begun and message["type"] == "http.response.start":
            self.begun = True
            self.status = str(message["status"])
            headers = [*message["headers"], *ALWAYS, (b"x-request-id", self.request_id.encode())]
            present = {name for name, _ in headers}
            headers.extend(header for header in UNLESS_SET if header[0] not in present)
            message["headers"] = headers
        await self.plain_send(message)


def _outcome(status: str) -> str:
    if status == DISCONNECTED:
        return "disconnected"
    return "failed" if status >= "500" else "refused" if status >= "400" else "success"


@lru_cache(4096)
def _template(method: str, route: str, status: str, protocol: str | None) -> SpanTemplate:
    """Return the span template of requests with this response."""
    attributes: tuple[tuple[str, Value], ...] = (
        ("http.request.method", method),
        ("http.route", route),
        ("http.response.status_code", int(status)),
        ("url.scheme", "http"),
        *(() if protocol is None else (("agent.protocol", protocol),)),
    )
    return SpanTemplate(f"{method} {route}", SERVER, *attributes)


def _identify(headers: Any) -> tuple[str, SpanContext | None]:
    """Return the request's id, and its caller's trace context."""
    request_id = traceparent = b""
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            traceparent = value
    known = request_id.decode() if _SANE_ID.fullmatch(request_id) else str(new_id())
    return known, parse_span_context(traceparent.decode("latin-1")) if traceparent else None
