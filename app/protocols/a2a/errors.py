"""Errors of A2A in the forms of its bindings: https://a2a-protocol.org/latest/specification/#54-error-code-mappings"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from app.base.errors import AgentServiceError, BadRequest, Invalid
from app.base.json_scan import INVALID_JSON
from app.infra.http.problems import INTERNAL_ERROR, FieldError

ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
DOMAIN = "a2a-protocol.org"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
OTHER = -32000
"""A refusal that JSON-RPC and A2A have no code for; its reason is in ``data``."""

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    410: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
"""Name of google.rpc.Code by HTTP status; ``INTERNAL`` for the rest."""


class A2AError(AgentServiceError):
    """An error that A2A has a name for: ``code`` of JSON-RPC, ``reason`` of google.rpc.ErrorInfo."""

    status: ClassVar[int] = 400
    title = BadRequest.title
    code: ClassVar[int] = OTHER
    reason: ClassVar[str] = ""
    rpc_status: ClassVar[str] = "FAILED_PRECONDITION"


class TaskNotFound(A2AError):
    """The task is unknown, or another user's."""

    status = 404
    code = -32001
    reason = "TASK_NOT_FOUND"
    rpc_status = "NOT_FOUND"


class TaskNotCancelable(A2AError):
    """The task has ended."""

    code = -32002
    reason = "TASK_NOT_CANCELABLE"


class UnsupportedOperation(A2AError):
    """The agent, or the state of the task, does not support the operation."""

    code = -32004
    reason = "UNSUPPORTED_OPERATION"


class ContentTypeNotSupported(A2AError):
    """A part has a media type that agents cannot read."""

    code = -32005
    reason = "CONTENT_TYPE_NOT_SUPPORTED"
    rpc_status = "INVALID_ARGUMENT"


class VersionNotSupported(A2AError):
    """The client speaks another version of the protocol."""

    code = -32009
    reason = "VERSION_NOT_SUPPORTED"


def info(reason: str) -> dict[str, Any]:
    """Return the detail that names an error."""
    return {"@type": ERROR_INFO, "reason": reason, "domain": DOMAIN}


def _violations(errors: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    if not errors:
        return []
    fields = [{"field": pointer.lstrip("/").replace("/", "."), "description": words} for pointer, words in errors]
    return [{"@type": BAD_REQUEST, "fieldViolations": fields}]


def _facts(error: AgentServiceError) -> tuple[int, str, str, list[dict[str, Any]]]:
    """Return the HTTP status, the name of google.rpc.Code, the sentence and the details of ``error``."""
    if isinstance(error, A2AError):
        return error.status, error.rpc_status, str(error), [info(error.reason)]
    status = 400 if error.status == 422 else error.status
    rpc_status = STATUSES.get(status, "INTERNAL")
    found = _violations(error.errors) if isinstance(error, Invalid) else []
    return status, rpc_status, INTERNAL_ERROR if status == 500 else str(error), [*found, info(rpc_status)]


def http_error(error: AgentServiceError) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of ``error`` on the HTTP+JSON binding."""
    status, rpc_status, message, details = _facts(error)
    return status, {"error": {"code": status, "status": rpc_status, "message": message, "details": details}}


def rpc_error(error: AgentServiceError, *, code: int | None = None) -> dict[str, Any]:
    """Return the JSON-RPC error object of ``error``."""
    status, _, message, details = _facts(error)
    if code is None:
        code = error.code if isinstance(error, A2AError) else _code_of(status)
    return {"code": code, "message": message, "data": details}


def _code_of(status: int) -> int:
    if status >= 500 and status != 503:
        return INTERNAL
    return INVALID_PARAMS if status == 400 else OTHER


def _named(status: int) -> tuple[str, int]:
    """Return reason and JSON-RPC code of a refusal that came before the handler."""
    if status == 415:
        return ContentTypeNotSupported.reason, ContentTypeNotSupported.code
    return STATUSES.get(status, "INTERNAL"), _code_of(status)


def _of_fields(errors: Sequence[FieldError]) -> list[dict[str, Any]]:
    return _violations([(_place(one), one.detail) for one in errors])


def _place(error: FieldError) -> str:
    """Return the pointer or parameter of an invalid value; empty for the whole body."""
    return str((error.parameter if error.pointer is msgspec.UNSET else error.pointer) or "")


def http_shape(status: int, detail: str, errors: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of a route of the HTTP+JSON binding."""
    status = 400 if status == 422 else status
    body = {
        "code": status,
        "status": STATUSES.get(status, "INTERNAL"),
        "message": detail,
        "details": [*_of_fields(errors), info(_named(status)[0])],
    }
    return status, msgspec.json.encode({"error": body})


def rpc_shape(status: int, detail: str, errors: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of the JSON-RPC route that came before its request was read."""
    status = 400 if status == 422 else status
    reason, code = _named(status)
    if status == 400:
        code, status = PARSE_ERROR if detail.startswith(INVALID_JSON) else INVALID_REQUEST, 200
    error = {"code": code, "message": detail, "data": [*_of_fields(errors), info(reason)]}
    return status, msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
