"""Requests and answers as the routes see them: Litestar's, less what is done elsewhere here or never needed."""

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse
from litestar.types import Empty

NO_CONTENT = 204
_NOTHING = ASGIResponse(status_code=NO_CONTENT)


class ReadyRequest(Request[Any, Any, Any]):
    """A request whose body is ready, and of a size that may be (``app.infra.http.request_bodies``): nothing is counted
    again.
    """

    async def body(self) -> bytes:
        """The whole body. Raises ``HTTPException`` when the client went away before its end."""
        if self._body is Empty:
            pieces = []
            more = True
            while more:
                message: Any = await self.receive()
                if message["type"] != "http.request":
                    raise HTTPException("The connection closed before the whole body came.", status_code=400)
                pieces.append(message["body"])
                more = message.get("more_body", False)
            self._body = self._connection_state.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._body

    def release_body(self) -> None:
        """Let go of the body, which was read and is not needed again: a large one would stay until the answer."""
        if self._body is not Empty:
            self._body = self._connection_state.body = b""


class FastResponse(Response[Any]):
    """An answer; the one without content, headers and cookies is always the same."""

    def to_asgi_response(self, *args: Any, **named: Any) -> ASGIResponse:
        """What is sent."""
        if self.content is None and self.status_code == NO_CONTENT and not (self.headers or named.get("headers")):
            return _NOTHING
        return super().to_asgi_response(*args, **named)
