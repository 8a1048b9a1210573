"""Errors as OpenAI's clients read them: https://platform.openai.com/docs/guides/error-codes"""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.base.errors import Invalid, NotFound
from app.features.assistants.service import AssistantService
from app.infra.http.problems import FieldError

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""``type`` of an error by status; other client errors are ``invalid_request_error``, the rest ``server_error``."""


UNKNOWN_MODEL = "The model "
"""How the sentence about an unknown model begins."""


UNKNOWN_RESPONSE = "no such response is stored"
"""What is wrong with the id of an earlier response that does not exist."""


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the error of ``status``."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_shape(status: int, detail: str, errors: Sequence[FieldError]) -> tuple[int, bytes]:
    """Render an error of a route. 409 and 422 become 400: OpenAI's clients repeat a request after 409."""
    status = 400 if status in {409, 422} else status
    first = errors[0] if errors else None
    param = None
    if first is not None and isinstance(first.pointer, str):
        param = first.pointer.removeprefix("/model_options").lstrip("/").replace("/", ".") or None
    code = None
    if status == 404 and detail.startswith(UNKNOWN_MODEL):
        param, code = "model", "model_not_found"
    if param == "previous_response_id" and first is not None and first.detail.endswith(UNKNOWN_RESPONSE):
        code = "previous_response_not_found"
    return status, msgspec.json.encode(error_body(status, detail, param=param, code=code))


def named_model(error: Invalid, model: str, assistants: AssistantService) -> Exception:
    """Return the error of an unknown model, if ``error`` is about the assistant."""
    if not any(pointer == "/assistant_id" for pointer, _ in error.errors):
        return error
    return unknown_model(model, assistants)


def unknown_model(model: str, assistants: AssistantService) -> NotFound:
    """Return the error of a model that does not exist."""
    return NotFound(f"{UNKNOWN_MODEL}{model[:200]!r} does not exist. Models: {', '.join(assistants.names())}.")
