"""Responses that outlive the layers they came through.

A stream may stay open for hours. Within the framework it would keep the request's state alive, some 10 kB in a dozen
suspended calls. So it registers with the outermost layer (``detached``), which serves it after the other layers have
returned, and after its headers it uses the server's ``send`` directly.
"""

from typing import Any, Protocol, cast

from litestar.types import Receive, Scope, Send

KEY = "agent_service.detacher"
KEPT_KEYS = ("type", "method", "path", "path_template", "route_handler")
"""Keys of a request's scope that are needed at its end, for metrics and traces."""


class DetachedResponse(Protocol):
    """A response that is served after the application has returned."""

    async def serve(self) -> None:
        """Serve it. Raises what its source raises."""
        ...

    async def refuse(self, error: Exception) -> None:
        """Respond with a problem instead: ``serve`` raised ``error`` before the response began."""
        ...


class ResponseDetacher(Protocol):
    """The outermost layer of one request."""

    detached: DetachedResponse | None
    plain_receive: Receive
    plain_send: Send


def detacher_of(scope: Scope) -> ResponseDetacher | None:
    """Return the outermost layer of the request, None if it does not support detached responses."""
    return cast("ResponseDetacher | None", cast("dict[str, Any]", scope).get(KEY))


def release_scope(scope: Scope) -> None:
    """Release request state once the response has started."""
    given = cast("dict[str, Any]", scope)
    kept = {key: given[key] for key in KEPT_KEYS if key in given}
    given.clear()
    given.update(kept)
