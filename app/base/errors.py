"""Every error that this program raises on purpose, as one tree.

    AgentServiceError
    ├─ StartError              the process cannot start: one line, exit 1
    │  └─ UsageError           the command line or a setting is wrong: one line, exit 2
    ├─ BadRequest 400          not a JSON text, or contradicting fields
    ├─ Unauthenticated 401
    ├─ Forbidden 403
    ├─ NotFound 404            unknown, or another tenant's
    ├─ Conflict 409
    ├─ Gone 410
    ├─ TooLarge 413
    ├─ UnsupportedType 415
    ├─ Invalid 422             well-formed but invalid; ``errors`` point into the body
    ├─ Limited 429             ``retry_after`` seconds
    ├─ NotBuilt 501
    ├─ Unavailable 503         ``retry_after`` seconds
    ├─ Refused                 by the operator's own code, with a status of its choice
    ├─ ModelError              a provider failed
    │  ├─ ModelUnavailable     connection, 5xx, overload: a retry may work
    │  ├─ ModelRateLimited     429: a later retry may work
    │  ├─ ModelTimeout         no answer in time (connect, first token, gap, total)
    │  ├─ ModelRejected        4xx: the request itself is at fault
    │  ├─ ModelCredentials     401 or 403
    │  └─ ModelProtocol        the response violates the wire format or a cap
    ├─ AgentError              an agent failed during a run
    │  ├─ StepLimit            step limit exceeded
    │  ├─ TokenLimit           token limit exceeded
    │  ├─ BudgetSpent          the tenant's daily budget is spent
    │  ├─ RunTimeout           time limit exceeded
    │  ├─ StepFailed           a step of a function agent raised
    │  ├─ ToolFailed           a tool called by a function agent returned an error
    │  ├─ PathChanged          a replayed function agent diverged from its journal
    │  ├─ JournalFull          the step results of a function agent are too large
    │  ├─ Unreadable           no text can be extracted from a document
    │  ├─ DamagedCheckpoint    the stored state of a thread cannot be read
    │  └─ ReviewAborted        a reviewer ended the run
    └─ LeaseLost               another owner has this run: stop at once, write nothing

Messages are sentences that a person can act on; they never hold a secret, SQL or a prompt.
"""

from collections.abc import Mapping
from typing import ClassVar, Self


class AgentServiceError(Exception):
    """Root of the tree. ``status`` is the HTTP status of a request that fails with it."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"


class StartError(AgentServiceError):
    """The process cannot start. The message names the cause and the fix."""


class UsageError(StartError):
    """The command line or a setting is wrong."""


class BadRequest(AgentServiceError):
    """The request cannot be understood."""

    status = 400
    title = "Bad request"


class Unauthenticated(AgentServiceError):
    """The request carries no valid credential."""

    status = 401
    title = "Not authenticated"


class Forbidden(AgentServiceError):
    """The credential is valid but does not allow the request."""

    status = 403
    title = "Not allowed"


class NotFound(AgentServiceError):
    """The resource is unknown or another tenant's; the two are indistinguishable to the client."""

    status = 404
    title = "Not found"


class Conflict(AgentServiceError):
    """The request conflicts with the current state of the resource. ``retry_after``: seconds after which to retry."""

    status = 409
    title = "Conflict"

    def __init__(self, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(*([detail] if detail else []))
        self.retry_after = retry_after


class Gone(AgentServiceError):
    """The retention period of the resource has passed."""

    status = 410
    title = "Gone"


class TooLarge(AgentServiceError):
    """The request exceeds a size limit."""

    status = 413
    title = "Body too large"


class UnsupportedType(AgentServiceError):
    """The media type is not supported."""

    status = 415
    title = "Unsupported media type"


class Invalid(AgentServiceError):
    """The body is JSON, but invalid. ``errors`` are (JSON pointer, sentence) pairs."""

    status = 422
    title = "Unprocessable content"

    def __init__(self, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.errors = errors

    @classmethod
    def at(cls, detail: str, pointer: str) -> Self:
        """Build the error of the one value at the JSON ``pointer``."""
        return cls(detail, ((pointer, detail),))


class Limited(AgentServiceError):
    """A rate or quota is exceeded; retry after ``retry_after`` seconds. ``headers`` describe the limits."""

    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, retry_after: float = 1.0, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.headers = headers or {}


class NotBuilt(AgentServiceError):
    """A part of the interface that this version does not serve."""

    status = 501
    title = "Not built yet"


class Unavailable(AgentServiceError):
    """The service is unavailable; retry after ``retry_after`` seconds."""

    status = 503
    title = "Unavailable"

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Refused(AgentServiceError):
    """The operator's own code refused the request, in words for the client. ``headers`` go out with the response."""

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = headers or {}


class ModelError(AgentServiceError):
    """A provider failed. ``retryable``: whether the same request may succeed on another try.

    ``provoked``: a prompt can cause it, so it says nothing about the provider (an answer that is too long).
    """

    title = "Model error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, vendor: str = "", retry_after: float | None = None, provoked: bool = False
    ) -> None:
        super().__init__(detail)
        self.vendor = vendor
        self.retry_after = retry_after
        self.provoked = provoked


class ModelUnavailable(ModelError):
    """Connection failure, a 5xx, or overload."""

    retryable = True


class ModelRateLimited(ModelError):
    """The provider responded 429."""

    retryable = True


class ModelTimeout(ModelError):
    """The model did not answer within its timeout."""

    retryable = True


class ModelRejected(ModelError):
    """The provider rejected the request itself (4xx)."""


class ModelCredentials(ModelError):
    """The provider rejected the API key (401 or 403)."""


class ModelProtocol(ModelError):
    """The provider's response violated its wire format or exceeded a cap."""

    retryable = True


class AgentError(AgentServiceError):
    """An agent failed during a run."""


class StepLimit(AgentError):
    """The run exceeded its step limit."""


class TokenLimit(AgentError):
    """The run exceeded its token limit."""


class BudgetSpent(AgentError):
    """The tenant's daily budget is spent."""


class RunTimeout(AgentError):
    """The run exceeded its time limit."""


class StepFailed(AgentError):
    """A step of a function agent raised. ``kind``: name of the exception type; ``words``: its message."""

    def __init__(self, name: str, kind: str, words: str) -> None:
        super().__init__(f"Step {name!r} failed: {kind}: {words}")
        self.name = name
        self.kind = kind
        self.words = words


class ToolFailed(AgentError):
    """A tool called by a function agent returned an error. ``words``: its message."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"Tool {name!r} failed: {words}")
        self.name = name
        self.words = words


class PathChanged(AgentError):
    """A replayed function agent took a different path than its journal recorded."""


class JournalFull(AgentError):
    """The step results of a function agent exceed what a run may store."""


class Unreadable(AgentError):
    """No text can be extracted from a document."""


class DamagedCheckpoint(AgentError):
    """The stored state of a thread cannot be read."""


class ReviewAborted(AgentError):
    """The run was ended by a reviewer who was asked about a call of unknown outcome."""


class LeaseLost(AgentServiceError):
    """Another owner holds the lease of this run. Stop and write nothing."""
