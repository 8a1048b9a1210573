"""Every error this program raises on purpose, as one tree.

    AgentServiceError
    ├─ StartError              the process cannot start: one line, exit 1
    │  └─ UsageError           the command line or a setting is wrong: one line, exit 2
    ├─ BadRequest 400          bytes that cannot be a JSON text, contradicting fields
    ├─ Unauthenticated 401
    ├─ Forbidden 403
    ├─ NotFound 404            unknown, or another tenant's
    ├─ Conflict 409
    ├─ Gone 410
    ├─ TooLarge 413
    ├─ UnsupportedType 415
    ├─ Invalid 422             well-formed, but not acceptable; ``errors`` point into the body
    ├─ Limited 429             ``retry_after`` seconds
    ├─ NotBuilt 501
    ├─ Unavailable 503         ``retry_after`` seconds
    ├─ Refused                 by the operator's own code, with a status of its choice
    ├─ ModelError              a provider failed
    │  ├─ ModelUnavailable     connection, 5xx, overload: another try may work
    │  ├─ ModelRateLimited     429: another try may work later
    │  ├─ ModelTimeout         a deadline passed (connect, first token, gap, total)
    │  ├─ ModelRejected        4xx: the request itself is at fault
    │  ├─ ModelCredentials     401 or 403
    │  └─ ModelProtocol        the answer broke the wire format or a cap
    ├─ AgentError              an agent failed while it ran
    │  ├─ StepLimit            more steps than its limit
    │  ├─ TokenLimit           more tokens than its limit
    │  ├─ BudgetSpent          its tenant's dollars of the day are spent
    │  ├─ RunTimeout           longer than its limit
    │  ├─ StepFailed           a step of a function agent raised
    │  ├─ ToolFailed           a tool that a function agent called answered with an error
    │  ├─ PathChanged          a function agent did not do again what it had done
    │  ├─ JournalFull          the steps of a function agent gave back too much
    │  └─ Unreadable           no text can be taken out of a document
    └─ LeaseLost               another owner has this run: stop at once, write nothing

The message of an error is a sentence that a person can act on; it never holds a secret, an SQL text or a prompt.
"""

from collections.abc import Mapping
from typing import ClassVar


class AgentServiceError(Exception):
    """The root of the tree. ``status`` is the HTTP status that a request failing with it gets."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"


class StartError(AgentServiceError):
    """The process cannot start; the message says what is missing and how to mend it."""


class UsageError(StartError):
    """A command line or a setting is wrong."""


class BadRequest(AgentServiceError):
    """The request cannot be understood."""

    status = 400
    title = "Bad request"


class Unauthenticated(AgentServiceError):
    """No valid credential came with the request."""

    status = 401
    title = "Not authenticated"


class Forbidden(AgentServiceError):
    """The credential is valid and does not allow this."""

    status = 403
    title = "Not allowed"


class NotFound(AgentServiceError):
    """Unknown, or another tenant's: the two are answered alike."""

    status = 404
    title = "Not found"


class Conflict(AgentServiceError):
    """The state of the thing does not allow it now. ``retry_after``: seconds after which it may."""

    status = 409
    title = "Conflict"

    def __init__(self, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(*([detail] if detail else []))
        self.retry_after = retry_after


class Gone(AgentServiceError):
    """It was there and is kept no longer."""

    status = 410
    title = "Gone"


class TooLarge(AgentServiceError):
    """More than is taken."""

    status = 413
    title = "Body too large"


class UnsupportedType(AgentServiceError):
    """A type that is not taken."""

    status = 415
    title = "Unsupported media type"


class Invalid(AgentServiceError):
    """The body is JSON, but not acceptable. ``errors`` are (JSON pointer, sentence) pairs."""

    status = 422
    title = "Not acceptable"

    def __init__(self, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.errors = errors


class Limited(AgentServiceError):
    """Too many; try again after ``retry_after`` seconds. ``headers`` tell of the limits."""

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
    """Cannot be served now; try again after ``retry_after`` seconds."""

    status = 503
    title = "Unavailable"

    def __init__(self, detail: str, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Refused(AgentServiceError):
    """The operator's own code refused the request, in words for the client. ``headers`` go out with the answer."""

    def __init__(self, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.headers = headers or {}


class ModelError(AgentServiceError):
    """A provider failed. ``retryable`` tells whether the same request may succeed on another try.

    ``provoked``: a prompt can bring it about, so it says nothing about the provider (an answer that is too long).
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
    """No connection, a 5xx, or an overload."""

    retryable = True


class ModelRateLimited(ModelError):
    """The provider answered 429."""

    retryable = True


class ModelTimeout(ModelError):
    """A deadline passed."""

    retryable = True


class ModelRejected(ModelError):
    """The provider refused the request as such."""


class ModelCredentials(ModelError):
    """The provider refused the key."""


class ModelProtocol(ModelError):
    """The provider's answer broke its wire format or one of our caps."""

    retryable = True


class AgentError(AgentServiceError):
    """An agent failed while it ran."""


class StepLimit(AgentError):
    """The run took more steps than its limit allows."""


class TokenLimit(AgentError):
    """The run used more tokens than its limit allows."""


class BudgetSpent(AgentError):
    """The tenant has spent what it may in a day."""


class RunTimeout(AgentError):
    """The run took longer than its limit allows."""


class StepFailed(AgentError):
    """A step of a function agent raised. ``kind`` is the name of the error's type, ``words`` are its message."""

    def __init__(self, name: str, kind: str, words: str) -> None:
        super().__init__(f"Step {name!r} failed: {kind}: {words}")
        self.name = name
        self.kind = kind
        self.words = words


class ToolFailed(AgentError):
    """A tool that a function agent called answered with an error. ``words`` are what it said."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"Tool {name!r} failed: {words}")
        self.name = name
        self.words = words


class PathChanged(AgentError):
    """A function agent that began again did not do what it had done the first time."""


class JournalFull(AgentError):
    """The steps of a function agent gave back more than a run may keep."""


class Unreadable(AgentError):
    """No text can be taken out of a document."""


class ReviewAborted(AgentError):
    """A person who was asked about a call of unknown outcome ended the run."""


class LeaseLost(AgentServiceError):
    """Another owner has this run; this one must stop and write nothing."""
