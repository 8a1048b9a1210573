"""Why an answer ended, in OpenAI's words, and what a run that failed is answered with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.base.errors import BudgetSpent, ModelRejected, TokenLimit
from app.engine.structs import Run
from app.protocols.openai.errors import error_body
from app.protocols.parts import RunFailed

NO_RETRY = {"X-Should-Retry": "false"}
"""Header of an answer that a run has given. OpenAI's clients repeat a request after 429 and 500, which would run the
agent again, unless the answer has it."""

EARLY = {
    "length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
"""``finish_reason`` of an answer that its model did not finish, by what vendors call it."""


STATUSES = {ModelRejected.__name__: 400, BudgetSpent.__name__: 429}
"""Status by the error of a run; any other: 500."""

CODES = {BudgetSpent.__name__: "insufficient_quota"}
"""``code`` by the error of a run; any other: its name."""


def retry_headers(run: Run, *, lasts: bool) -> dict[str, str]:
    """Return the headers of an unexpected error after a run was accepted: only one that ``lasts`` is found again."""
    return {"X-Run-Id": str(run.run_id), "X-Should-Retry": "true" if lasts else "false"}


class Refusal(NamedTuple):
    """The status and the body of an error."""

    status: int
    body: dict[str, Any]


def early_finish(message: Mapping[str, Any]) -> str:
    """Return why the model did not finish ``message``: ``length`` or ``content_filter``; empty if it did."""
    metadata = message.get("response_metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return EARLY.get(str(metadata.get("finish_reason") or metadata.get("stop_reason") or ""), "")


def is_cut(failure: RunFailed) -> bool:
    """Whether a run failed because of the tokens that it may use: its answer counts, as far as it got."""
    return failure.error == TokenLimit.__name__


def refusal_of(failure: RunFailed) -> Refusal:
    """Return the error that a failed run is answered with."""
    status, code = STATUSES.get(failure.error, 500), CODES.get(failure.error)
    body = error_body(status, failure.message, code=code or failure.error)
    if code is not None:
        body["error"]["type"] = code
    return Refusal(status, body)
