"""Every error that leaves this service: ``application/problem+json`` (RFC 9457).

What nobody foresaw is logged with its traceback under the request's id; the client gets the id and a general sentence.
"""

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
SORRY = "Something failed inside the service. Try again; if it stays, tell who runs it the request_id."
WHERE = "The routes of the API begin with /api/v1, like /api/v1/threads; /docs lists them."
MODEL_SORRY = "The model behind this agent failed. Try again; if it stays, tell who runs the service the request_id."


class ProblemKind(NamedTuple):
    """A kind of problem: ``slug`` ends its ``type``; ``remedy`` is what the reader can do."""

    slug: str
    title: str
    remedy: str


KINDS = {
    400: ProblemKind("bad-request", "Bad request", "Send text in UTF-8, at most 64 levels deep, without NUL."),
    401: ProblemKind("not-authenticated", "Not authenticated", "Send `Authorization: Bearer KEY` or `X-Api-Key: KEY`."),
    403: ProblemKind("not-allowed", "Not allowed", "Use a key whose scopes allow this."),
    404: ProblemKind(
        "not-found", "Not found", "Check the path and the id; what belongs to another tenant is not found either."
    ),
    405: ProblemKind("method-not-allowed", "Method not allowed", "Use a method of the `Allow` header."),
    408: ProblemKind("slow-body", "Body too slow", "Send the whole body within ten seconds."),
    409: ProblemKind(
        "conflict", "Conflict", "The state of the thing forbids it now; `detail` says what to wait for or change."
    ),
    410: ProblemKind("gone", "Gone", "It was kept for a time, and the time is over."),
    413: ProblemKind("too-large", "Body too large", "Send less; `detail` names the limit of the route."),
    415: ProblemKind(
        "wrong-type",
        "Unsupported media type",
        "Send `Content-Type: application/json`, or a document of a type that is taken; not compressed.",
    ),
    422: ProblemKind(
        "not-acceptable", "Not acceptable", "Send valid JSON that fits the route; `errors` point to each place."
    ),
    429: ProblemKind("limited", "Too many requests", "Wait as long as `Retry-After` says."),
    500: ProblemKind("internal", "Internal error", "Try again; if it stays, report the `request_id`."),
    501: ProblemKind("not-built", "Not built yet", "This version does not serve it."),
    503: ProblemKind("unavailable", "Unavailable", "Wait as long as `Retry-After` says, then try again."),
}
OTHER = ProblemKind("other", "Request refused", "`detail` says why.")


class FieldError(msgspec.Struct, omit_defaults=True):
    """One place that is not acceptable: a JSON ``pointer`` into the body, or the name of a ``parameter``."""

    detail: str
    pointer: str | msgspec.UnsetType = msgspec.UNSET
    parameter: str | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, omit_defaults=True):
    """The body of every error. ``type`` is a page of this service; ``instance`` is the path that was asked for."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: list[FieldError] = []


def encode(scope: Scope, status: int, detail: str, errors: Sequence[FieldError] = ()) -> bytes:
    """The JSON of a problem with the request of ``scope``."""
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
    """Answer with a problem from an ASGI layer outside Litestar."""
    body = encode(scope, status, detail)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    return Response(
        encode(request.scope, status, detail, errors), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )


def of_own(request: Request[Any, Any, Any], error: AgentServiceError) -> Response[bytes]:
    """An error of our tree. Those that have no status of their own (500) keep their words for the log."""
    if isinstance(error, ModelError):
        log.error("request_failed", path=_route(request), error=type(error).__name__, vendor=error.vendor)
        return _answer(request, 500, MODEL_SORRY)
    if error.status == 500:
        return of_unknown(request, error)
    headers = dict(getattr(error, "headers", {}))
    if (wait := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    if isinstance(error, Unavailable | NotBuilt):
        log.warning("request_refused", path=_route(request), status=error.status, reason=str(error))
    places = error.errors if isinstance(error, Invalid) else ()
    errors = [FieldError(detail=detail, pointer=pointer) for pointer, detail in places]
    return _answer(request, error.status, str(error) or KINDS.get(error.status, OTHER).remedy, errors, headers)


def of_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """An error of the framework or of this room, in our words and with our statuses."""
    if isinstance(error, ValidationException):
        return _of_parameters(request, error)
    if isinstance(error.__cause__, SerializationException):
        return _answer(request, 422, f"{INVALID_JSON}.")
    status, detail = error.status_code, error.detail
    headers = {name.title(): value for name, value in (error.headers or {}).items()}
    if isinstance(error, MethodNotAllowedException):
        allow = ", ".join(sorted(name.strip() for name in headers.get("Allow", "").split(",")))
        return _answer(request, 405, f"{request.method} is not served here; use {allow}.", headers={"Allow": allow})
    if status >= 500:
        return of_unknown(request, error)
    if status == 404:
        detail = f"No route matches {request.scope['path']}. {WHERE}"
    if status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return _answer(request, status, detail or KINDS.get(status, OTHER).remedy, headers=headers)


def _of_parameters(request: Request[Any, Any, Any], error: ValidationException) -> Response[bytes]:
    """Litestar answers 400 for these; a value that does not fit is 422 here."""
    parameters = request.route_handler.parsed_fn_signature.parameters
    errors = []
    for place in error.extra if isinstance(error.extra, list) else ():
        name = str(place.get("key", ""))
        wanted = parameters[name].annotation if name in parameters else Any
        errors.append(FieldError(detail=sentence_of(place["message"], name, wanted), parameter=name))
    detail = " ".join(place.detail for place in errors) or error.detail.partition(" for ")[0] + "."
    return _answer(request, 422, detail, errors)


def of_unknown(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """What nobody foresaw: the traceback goes to the log, a general sentence to the client."""
    log.error("request_failed", path=_route(request), exc_info=error)
    return _answer(request, 500, SORRY)


def _route(request: Request[Any, Any, Any]) -> str:
    return str(request.scope.get("path_template", ""))


exception_handlers: dict[int | type[Exception], Callable[..., Response[bytes]]] = {
    AgentServiceError: of_own,
    HTTPException: of_litestar,
    Exception: of_unknown,
}
"""The application's ``exception_handlers``. A stray ``msgspec.ValidationError`` is 500 on purpose:
``app.infra.http.json_decoding`` raises ``Invalid`` for what a client sent, so any other comes from our own data and is
not the client's fault."""


async def answer_error(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Answer with the problem that ``error`` is, as the application does, when it has returned already."""
    kind = next(kind for kind in exception_handlers if isinstance(kind, type) and isinstance(error, kind))
    request: Request[Any, Any, Any] = Request(scope, receive, send)
    answer = exception_handlers[kind](request, error)
    await answer.to_asgi_response(app=None, request=request)(scope, receive, send)
