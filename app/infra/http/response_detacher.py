"""Answers that outlive the layers that they came through.

A stream may stay open for hours. If it did so inside the framework, all that the framework knows of its request would
stay as well: some 10 kB in a dozen suspended calls. So it leaves itself with the outermost layer (``rest``), which
goes on with it when the others have returned, and speaks with the server directly from its headers on.
"""

from typing import Any, Protocol, cast

from litestar.types import Receive, Scope, Send

KEY = "agent_service.outside"
KEPT = ("type", "method", "path", "path_template")
"""Of a request's scope: what its end is told with."""


class DetachedResponse(Protocol):
    """What is still to be done for a request."""

    async def serve(self) -> None:
        """Do it. Raises what its source raises."""
        ...

    async def refuse(self, error: Exception) -> None:
        """Answer with a problem instead: ``serve`` raised ``error`` before it began to answer."""
        ...


class ResponseDetacher(Protocol):
    """The outermost layer of one request."""

    rest: DetachedResponse | None
    plain_receive: Receive
    plain_send: Send


def outside_of(scope: Scope) -> ResponseDetacher | None:
    """The outermost layer of the request of ``scope``, if it takes a rest."""
    return cast("ResponseDetacher | None", cast("dict[str, Any]", scope).get(KEY))


def forget(scope: Scope) -> None:
    """Let go of what nobody needs of a request whose answer has begun."""
    given = cast("dict[str, Any]", scope)
    kept = {key: given[key] for key in KEPT if key in given}
    given.clear()
    given.update(kept)
