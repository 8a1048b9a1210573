"""The outermost layer: a request's id and trace, the headers of every answer, the clock, and the last resort.

It touches only the first message of an answer, so streams pass through unbuffered.
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
from app.infra.http.problems import SORRY, send_problem
from app.infra.http.response_detacher import KEY, DetachedResponse
from app.infra.telemetry.labels import METHOD
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.trace_context import SpanContext, current_span, parse_span_context, request
from app.infra.telemetry.tracing import NO_TRACER, SERVER, SpanTemplate, Tracer, Value

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset(METHOD.values)
OTHER_METHOD = "_OTHER"
UNMATCHED = "unmatched"
"""The route of requests that no route serves."""

UNTRACED = ("/metrics", "/health", "/health/ready", "/health/live", "/ok")
"""Ends of the paths that machines ask for all the time: they leave no spans."""

REQUEST_SPAN = SpanTemplate("request", SERVER)
"""Of requests that are not answered yet."""

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
    """ASGI middleware outside everything else. ``aliases`` are paths that are served as another path.

    ``prefix``: the routes of ``app`` lie below it, but nobody has to name it: a proxy may take it away, and those who
    look after the server ask it past any proxy.
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
        self._record = meters.http_server_request_duration.record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
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
        current_span.set(caller if span is None else span.place)
        answer = _ResponseSender(receive, send, request_id)
        scope[KEY] = answer  # type: ignore[literal-required]
        try:
            if b"%00" in scope["query_string"] or "\x00" in scope["path"]:
                await send_problem(scope, answer, 400, "The address has a NUL, which cannot be stored.")
            else:
                await self.app(scope, receive, answer)
                if answer.rest is not None:
                    await answer.rest.serve()
        except Exception as error:  # noqa: BLE001 - the outermost edge
            await self._last_resort(scope, answer, error)
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            route = scope.get("path_template") or UNMATCHED
            self._record(time.perf_counter() - began, method, route, answer.status)
            if span is not None:
                span.form = _form(method, route, answer.status)
                span.attributes = {"url.path": scope["path"], "agent.request_id": answer.request_id}
                span.end(answer.status if answer.status >= "500" else "")

    async def _last_resort(self, scope: Scope, answer: "_ResponseSender", error: Exception) -> None:
        """Answer what the application let through. A begun answer stays unfinished: the server cuts the connection."""
        route = scope.get("path_template", "")
        if answer.begun:
            log.error("answer_cut", path=route, exc_info=error.__cause__ or error)
        elif answer.rest is not None:
            await answer.rest.refuse(error)
        else:
            log.error("request_failed", path=route, exc_info=error)
            await send_problem(scope, answer, 500, SORRY)


class _ResponseSender:
    """``send`` of one request (``app.infra.http.response_detacher.ResponseDetacher``)."""

    __slots__ = ("begun", "plain_receive", "plain_send", "request_id", "rest", "status")

    def __init__(self, receive: Receive, send: Send, request_id: str) -> None:
        self.plain_receive = receive
        self.plain_send = send
        self.rest: DetachedResponse | None = None
        self.request_id = request_id
        self.begun = False
        self.status = "499"  # until an answer begins: the client went away before

    async def __call__(self, message: Any) -> None:
        if not self.begun and message["type"] == "http.response.start":
            self.begun = True
            self.status = str(message["status"])
            headers = [*message["headers"], *ALWAYS, (b"x-request-id", self.request_id.encode())]
            present = {name for name, _ in headers}
            headers.extend(header for header in UNLESS_SET if header[0] not in present)
            message["headers"] = headers
        await self.plain_send(message)


@lru_cache(4096)
def _form(method: str, route: str, status: str) -> SpanTemplate:
    """Of requests that were answered so."""
    attributes: tuple[tuple[str, Value], ...] = (
        ("http.request.method", method),
        ("http.route", route),
        ("http.response.status_code", int(status)),
        ("url.scheme", "http"),
    )
    return SpanTemplate(f"{method} {route}", SERVER, *attributes)


def _identify(headers: Any) -> tuple[str, SpanContext | None]:
    """The request's id, and where its caller is in a trace."""
    request_id = traceparent = b""
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            traceparent = value
    known = request_id.decode() if _SANE_ID.fullmatch(request_id) else str(new_id())
    return known, parse_span_context(traceparent.decode("latin-1")) if traceparent else None
