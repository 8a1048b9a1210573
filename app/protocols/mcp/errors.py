"""JSON-RPC errors, and the HTTP status of each: https://modelcontextprotocol.io/specification/2026-07-28/basic"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.errors import AgentServiceError
from app.infra.http.problems import INTERNAL_ERROR, FieldError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL = -32603
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

_STATUSES = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    METHOD_NOT_FOUND: 404,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
}
"""HTTP status of an error by code; others are an ordinary response."""

_CODES = {400: INVALID_REQUEST, 404: INVALID_PARAMS, 409: INVALID_PARAMS, 410: INVALID_PARAMS, 422: INVALID_PARAMS}
"""Code of one of the service's own errors by its status."""


class RpcError(Exception):
    """An error of the protocol, as JSON-RPC's ``code``, ``message`` and ``data``."""

    def __init__(self, code: int, message: str, data: Any = None, *, status: int | None = None) -> None:
        """``status``: the HTTP status, if not that of the code."""
        super().__init__(message)
        self.code = code
        self.data = data
        self.status = _STATUSES.get(code, 200) if status is None else status

    def body(self) -> dict[str, Any]:
        """Return the member ``error`` of the response."""
        return {"code": self.code, "message": str(self)} | ({} if self.data is None else {"data": self.data})


def rpc_error_of(error: AgentServiceError) -> RpcError | None:
    """Return the error of the protocol for one of the service's own; None for an error that keeps its HTTP status.

    Credentials, rights, rates and unavailability keep their statuses and headers (``error_shape``).
    """
    code = _CODES.get(error.status)
    return None if code is None else RpcError(code, str(error), status=200)


def error_shape(status: int, detail: str, errors: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of a route, outside of a request whose id is known. 422 (not a JSON-RPC message) becomes 400."""
    code = INTERNAL if status >= 500 else INVALID_REQUEST
    if status == 422 and not errors:
        code = PARSE_ERROR
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": detail or INTERNAL_ERROR}}
    return 400 if status == 422 else status, msgspec.json.encode(body)
