"""Errors as clients of AG-UI and of CopilotKit's runtime read them.

What is refused before a run starts has an HTTP status, as https://docs.ag-ui.com/spec/1.0/basic/transports/http-sse
asks; its body has the shape of the event that would end the run.
"""

from collections.abc import Sequence

import msgspec

from app.infra.http.problems import FieldError
from app.protocols.ag_ui.projection import run_error

CODES = {
    400: "invalid_input",
    401: "not_authenticated",
    403: "not_allowed",
    404: "not_found",
    408: "slow_body",
    409: "conflict",
    410: "gone",
    413: "too_large",
    415: "wrong_type",
    422: "invalid_input",
    429: "rate_limited",
    503: "unavailable",
}
"""``code`` by status; others are ``internal`` from 500 on, ``refused`` below."""


class RunRefused(Exception):
    """The request is well-formed, but the thread's state does not allow the run: the stream has this error alone."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_shape(status: int, detail: str, _: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of an AG-UI route."""
    code = CODES.get(status, "internal" if status >= 500 else "refused")
    return status, msgspec.json.encode(run_error(detail, code))


def runtime_error_shape(status: int, detail: str, _: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of a route of CopilotKit's runtime."""
    code = CODES.get(status, "internal" if status >= 500 else "refused")
    return status, msgspec.json.encode({"error": code, "message": detail})
