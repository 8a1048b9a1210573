"""HTTP requests of the SDK: they go to checked addresses only, and a failure costs its own request alone.

The SDK ends a whole connection, with all calls in flight, when one request raises. So what fails here becomes the
answer to that request: a JSON-RPC error with ``UNSENT`` if nothing was sent, or an end of the body.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import msgspec
from yarl import URL

from app.infra.egress.addresses import AddressAllowlist, host_of
from app.infra.egress.client import AWAY, NOT_SENT, checked_session, failure_reason

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Bytes of one response, a stream's included."""
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Bytes of a response that is one JSON message, or of one event of a stream."""
UNSENT = -32_099
"""Code of the error for a request that did not reach the server."""
LOST = "the connection was lost before the answer was complete"
BROKEN = -32_098
"""Code of the error for a request whose outcome is not known."""
SIGN_IN = -32_097
"""Code of the error for a request that needs a sign-in; its message is the address."""
REFUSED = -32_096
"""Code of the error for a request that is not sent, and would not be sent again."""
MARK = secrets.token_hex(16)
"""In the data of our own errors, so that no server can pretend one."""

_NOT_OURS = frozenset({"host", "content-length", "connection", "accept-encoding", "transfer-encoding"})


class BrokenBody(httpx2.StreamError):
    """A body that is longer than it may be, or that ended too soon."""


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Transport of the SDK's HTTP client for the server at ``url`` (``app.infra.egress``): one host, no redirects."""

    def __init__(self, url: str, allowed: AddressAllowlist, resolver: Any = None) -> None:
        self._host = host_of(url)
        self._session = checked_session(self._host, allowed, resolver)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request."""
        if request.url.host != self._host:
            return _unsent(f"the server refers to another host, {request.url.host}", request)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.decode("latin-1").lower() not in _NOT_OURS
        ]
        try:
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                data=await request.aread() or None,
                headers=[*headers, ("Accept-Encoding", "identity")],
                allow_redirects=False,
            )
        except NOT_SENT as error:
            return _unsent(failure_reason(error), request)
        except (aiohttp.ClientError, OSError) as error:
            return failed_response(BROKEN, f"the connection was lost: {failure_reason(error)}", request)
        if response.status in AWAY:
            response.close()
            return failed_response(BROKEN, f"the server answered with status {response.status}", request)
        if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
            response.close()
            return failed_response(BROKEN, "the server sent a compressed body, which was not asked for", request)
        streams = response.headers.get("Content-Type", "").lower().startswith("text/event-stream")
        limit = MAX_RESPONSE_BYTES if streams else MAX_MESSAGE_BYTES
        return httpx2.Response(
            response.status,
            headers=[(name, value) for name, value in response.headers.items() if name.lower() not in _NOT_OURS],
            stream=_Body(response, limit),
            request=request,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
        await asyncio.sleep(0)  # transports close in the next iteration of the loop


class _Body(httpx2.AsyncByteStream):
    """A response's body, at most ``limit`` bytes of it."""

    def __init__(self, response: aiohttp.ClientResponse, limit: int) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = self._limit
        try:
            async for chunk in self._response.content.iter_any():
                room -= len(chunk)
                if room < 0:
                    raise BrokenBody(f"the server sent more than {self._limit} bytes")
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenBody(f"{LOST} ({type(error).__name__})") from error

    async def aclose(self) -> None:
        self._response.close() if not self._response.content.at_eof() else self._response.release()


def _unsent(reason: str, request: httpx2.Request) -> httpx2.Response:
    return failed_response(UNSENT, reason, request)


def failed_response(code: int, reason: str, request: httpx2.Request) -> httpx2.Response:
    """Return the answer to a request that failed here: a JSON-RPC error that is marked as our own."""
    error = {"code": code, "message": reason, "data": MARK}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
    return httpx2.Response(503, headers={"Content-Type": "application/json"}, content=body, request=request)
