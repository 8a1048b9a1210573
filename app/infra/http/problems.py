"""Error responses: ``application/problem+json`` (RFC 9457).

Unexpected errors are logged with their traceback and the request's id; the client gets the id and a general sentence.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, SerializationException, ValidationException
from litestar.types import Receive, Scope, Send

from app.base.errors import AgentServiceError, Invalid, ModelError, NotBuilt, Unavailable
from app.base.json_scan import INVALID_JSON
from app.infra.http.json_decoding import sentence_of
from app.infra.telemetry import trace_context

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR = "The service failed. Try again; if the error persists, report the request_id to the operator."
WHERE = "The routes of the API begin with /api/v1, like /api/v1/threads; /docs lists them."
MODEL_ERROR = "The model of this agent failed. Try again; if the error persists, report the request_id to the operator."


ErrorShape = Callable[[int, str, "Sequence[FieldError]"], tuple[int, bytes]]
"""Renders an error: of (status, sentence, invalid values) it makes the status and the JSON to respond with."""


ERROR_SHAPE = "error_shape"
"""Member of a handler's ``opt``: the ``ErrorShape`` of another protocol."""


PARAMETER = "{"
"""Stands for a parameter of a path."""


CHALLENGE = "challenge"
"""Member of a handler's ``opt``: a callable of a request that returns ``WWW-Authenticate`` of its refusal."""


class ProblemKind(NamedTuple):
    """A kind of problem: ``slug`` ends its ``type``; ``remedy`` is what the client can do."""

    slug: str
    title: str
    remedy: str


KINDS = {
    400: ProblemKind("bad-request", "Bad request", "Send text in UTF-8, at most 64 levels deep, without NUL."),
    401: ProblemKind("not-authenticated", "Not authenticated", "Send `Authorization: Bearer KEY` or `X-Api-Key: KEY`."),
    403: ProblemKind("not-allowed", "Not allowed", "Use a key whose scopes allow this."),
    404: ProblemKind(
        "not-found", "Not found", "Check the path and the id; resources of other tenants are not found either."
    ),
    405: ProblemKind("method-not-allowed", "Method not allowed", "Use a method of the `Allow` header."),
    408: ProblemKind("slow-body", "Body too slow", "Send the whole body within ten seconds."),
    409: ProblemKind(
        "conflict",
        "Conflict",
        "The request conflicts with the resource's current state; `detail` says what to wait for or change.",
    ),
    410: ProblemKind("gone", "Gone", "Its retention period has passed."),
    413: ProblemKind("too-large", "Body too large", "Send less; `detail` names the limit of the route."),
    415: ProblemKind(
        "wrong-type",
        "Unsupported media type",
        "Send `Content-Type: application/json`, or a document of a supported type; not compressed.",
    ),
    422: ProblemKind(
        "not-acceptable",
        "Unprocessable content",
        "Send valid JSON that fits the route; `errors` lists each invalid value.",
    ),
    429: ProblemKind("limited", "Too many requests", "Wait as long as `Retry-After` says."),
    500: ProblemKind("internal", "Internal error", "Try again; if the error persists, report the `request_id`."),
    501: ProblemKind("not-built", "Not built yet", "This version does not support it."),
    503: ProblemKind("unavailable", "Unavailable", "Wait as long as `Retry-After` says, then try again."),
}
OTHER = ProblemKind("other", "Request refused", "`detail` says why.")


class FieldError(msgspec.Struct, omit_defaults=True):
    """An invalid value: a JSON ``pointer`` into the body, or the name of a ``parameter``."""

    detail: str
    pointer: str | msgspec.UnsetType = msgspec.UNSET
    parameter: str | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every error. ``type`` is a page of this service, ``instance`` the requested path."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] = []


def encode(scope: Scope, status: int, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """Encode a problem with the request of ``scope``."""
    kind = KINDS.get(status, OTHER)
    return msgspec.json.encode(
        Problem(
            type=f"/docs/errors#{kind.slug}",
            title=kind.title,
            status=status,
            detail=detail,
            instance=scope["path"],
            request_id=trace_context.request.get(),
            errors=list(errors),
        )
    )


async def send_problem(scope: Scope, send: Send, status: int, detail: str) -> None:
    """Respond with a problem from an ASGI layer outside of Litestar."""
    body = encode(scope, status, detail)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _respond(
    request: Request[Any, Any, Any],
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    shape = _shape_of(request)
    if shape is not None:
        status, body = shape(status, detail, errors)
        return Response(body, status_code=status, media_type="application/json", headers=headers)
    return Response(
        encode(request.scope, status, detail, errors), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )


def _challenge(request: Request[Any, Any, Any]) -> str:
    challenge = _opt_of(request).get(CHALLENGE)
    return "Bearer" if challenge is None else str(challenge(request))


def _opt_of(request: Request[Any, Any, Any]) -> Mapping[str, Any]:
    """Return the ``opt`` of the request's handler; nothing where no route matches."""
    handler: Any = request.scope.get("route_handler")
    return {} if handler is None else handler.opt


def _shape_of(request: Request[Any, Any, Any]) -> ErrorShape | None:
    """Return how errors of the request's handler are rendered; where none matches, of the routes nearest to it."""
    if request.scope.get("route_handler") is not None:
        return _opt_of(request).get(ERROR_SHAPE)
    app: Any = request.scope.get("litestar_app")
    return None if app is None else _tree_of(app).shape_at(request.scope["path"])


class _RouteTree:
    """Routes by what their paths begin with, for the one nearest to a path that no route matches.

    That is the one with the most segments in common; then one of exactly this path (the method is wrong), then the
    longest; of equals the first. All parameters of a path are one segment here.
    """

    def __init__(self) -> None:
        self._longest: dict[tuple[str, ...], _RankedShape] = {}
        self._exact: dict[tuple[str, ...], _RankedShape] = {}

    def add(self, path: str, number: int, shape: ErrorShape | None) -> None:
        """Add the route with a ``number`` in the order of all."""
        segments = tuple(PARAMETER if one.startswith("{") else one for one in path.strip("/").split("/"))
        found = _RankedShape((len(segments), -number), shape)
        for length in range(1, len(segments) + 1):
            known = self._longest.get(segments[:length], found)
            self._longest[segments[:length]] = max(known, found, key=_rank)
        self._exact.setdefault(segments, found)

    def shape_at(self, path: str) -> ErrorShape | None:
        """Return the shape of the errors of the route nearest to ``path``; None if none begins like it."""
        asked = path.strip("/").split("/")
        begins: list[tuple[str, ...]] = [()]
        for segment in asked:
            longer = [(*begin, one) for begin in begins for one in (segment, PARAMETER)]
            longer = [begin for begin in longer if begin in self._longest]
            if not longer:
                break
            begins = longer
        exact = [self._exact[begin] for begin in begins if begin in self._exact and len(begin) == len(asked)]
        nearest = exact or [self._longest[begin] for begin in begins if begin]
        return max(nearest, key=_rank).shape if nearest else None


class _RankedShape(NamedTuple):
    rank: tuple[int, int]
    shape: ErrorShape | None


def _rank(found: _RankedShape) -> tuple[int, int]:
    return found.rank


@functools.lru_cache(maxsize=1)
def _tree_of(app: Any) -> _RouteTree:
    """Return the routes of the application, of which a process has one."""
    tree = _RouteTree()
    for at, route in enumerate(app.routes):
        handlers = getattr(route, "route_handlers", None) or [route.route_handler]
        handler = max(handlers, key=lambda one: "POST" in getattr(one, "http_methods", ()))  # used most
        tree.add(route.path, at, handler.opt.get(ERROR_SHAPE))
    return tree


def of_service_error(request: Request[Any, Any, Any], error: AgentServiceError) -> Response[bytes]:
    """Respond to one of our errors. The message of those without a status (500) is only logged."""
    if isinstance(error, ModelError):
        log.error("request_failed", path=_route(request), error=type(error).__name__, vendor=error.vendor)
        return _respond(request, 500, MODEL_ERROR)
    if error.status == 500:
        return of_unexpected(request, error)
    headers = dict(getattr(error, "headers", {}))
    if (wait := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", _challenge(request))
    if isinstance(error, Unavailable | NotBuilt):
        log.warning("request_refused", path=_route(request), status=error.status, reason=str(error))
    places = error.errors if isinstance(error, Invalid) else ()
    errors = [FieldError(detail=detail, pointer=pointer) for pointer, detail in places]
    return _respond(request, error.status, str(error) or KINDS.get(error.status, OTHER).remedy, errors, headers)


def of_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Respond to an error of the framework or of this package, with our words and statuses."""
    if isinstance(error, ValidationException):
        return _of_parameters(request, error)
    if isinstance(error.__cause__, SerializationException):
        return _respond(request, 422, f"{INVALID_JSON}.")
    status, detail = error.status_code, error.detail
    headers = {name.title(): value for name, value in (error.headers or {}).items()}
    if isinstance(error, MethodNotAllowedException):
        allow = ", ".join(sorted(name.strip() for name in headers.get("Allow", "").split(",")))
        return _respond(request, 405, f"{request.method} is not allowed here; use {allow}.", headers={"Allow": allow})
    if status >= 500:
        return of_unexpected(request, error)
    if status == 404:
        detail = f"No route matches {request.scope['path']}."
        detail = detail if _shape_of(request) is not None else f"{detail} {WHERE}"
    if status == 401:
        headers.setdefault("WWW-Authenticate", _challenge(request))
    return _respond(request, status, detail or KINDS.get(status, OTHER).remedy, headers=headers)


def _of_parameters(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Respond 422 to invalid parameters, where Litestar responds 400."""
    parameters = request.route_handler.parsed_fn_signature.parameters
    errors = []
    for place in error.extra if isinstance(error.extra, list) else ():
        name = str(place.get("key", ""))
        wanted = parameters[name].annotation if name in parameters else Any
        errors.append(FieldError(detail=sentence_of(place["message"], name, wanted), parameter=name))
    detail = " ".join(place.detail for place in errors) or error.detail.partition(" for ")[0] + "."
    return _respond(request, 422, detail, errors)


def of_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Log an unexpected error with its traceback; respond with a general sentence."""
    log.error("request_failed", path=_route(request), exc_info=error)
    return _respond(request, 500, INTERNAL_ERROR)


def _route(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("path_template", ""))


exception_handlers: dict[int | type[Exception], Callable[..., Response[bytes]]] = {
    AgentServiceError: of_service_error,
    HTTPException: of_http_exception,
    Exception: of_unexpected,
}
"""The application's ``exception_handlers``. A stray ``msgspec.ValidationError`` is 500 on purpose:
``app.infra.http.json_decoding`` raises ``Invalid`` for a client's input, so any other comes from our own data.
"""


async def answer_error(
    scope: Scope, receive: Receive, send: Send, error: Exception, headers: Mapping[str, str] | None = None
) -> None:
    """Respond to ``error`` as the application does, after it has returned, with ``headers`` in addition."""
    kind = next(kind for kind in exception_handlers if isinstance(kind, type) and isinstance(error, kind))
    request: Request[Any, Any, Any] = Request(scope, receive, send)
    response = exception_handlers[kind](request, error)
    response.headers.update(headers or {})
    await response.to_asgi_response(app=None, request=request)(scope, receive, send)
