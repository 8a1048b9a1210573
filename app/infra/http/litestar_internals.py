"""Everything that leans on private parts of Litestar 2.25 (pyproject.toml allows 2.25 up to, but not including, 3).

- ``Request._body`` and ``_connection_state.body`` hold a body that is read without Litestar's own count of its bytes,
  which ``app.infra.http.request_bodies`` has made already, and is freed after it was decoded. Remove it once Litestar
  has a public way to set and to forget the body of a request.
"""

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse
from litestar.types import Empty

NO_CONTENT = 204
_NOTHING = ASGIResponse(status_code=NO_CONTENT)


class ReadyRequest(Request[Any, Any, Any]):
    """A request whose body is complete and checked (``app.infra.http.request_bodies``), so it is not counted again."""

    async def body(self) -> bytes:
        """Return the whole body. Raises ``HTTPException`` if the client disconnected before its end."""
        if self._body is Empty:
            parts = []
            more = True
            while more:
                message: Any = await self.receive()
                if message["type"] != "http.request":
                    raise HTTPException("The connection was closed before the whole body arrived.", status_code=400)
                parts.append(message["body"])
                more = message.get("more_body", False)
            self._body = self._connection_state.body = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._body

    def release_body(self) -> None:
        """Free the body after it was read: a large one would stay in memory until the response."""
        if self._body is not Empty:
            self._body = self._connection_state.body = b""


class FastResponse(Response[Any]):
    """A response; empty ones without headers and cookies share one instance."""

    def to_asgi_response(self, *args: Any, **named: Any) -> ASGIResponse:
        """Return the ASGI response."""
        if self.content is None and self.status_code == NO_CONTENT and not (self.headers or named.get("headers")):
            return _NOTHING
        return super().to_asgi_response(*args, **named)
