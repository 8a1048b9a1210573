"""Bare servers that measure the floors: ``granian bench.floors:hello``, ``:frames``, ``:idle``."""

from typing import Any

import msgspec
from litestar import Litestar, get

FRAMES = 103
CHUNK = b"".join(b"event: messages\r\ndata: %b\r\nid: 1-%d\r\n\r\n" % (b"x" * 140, n) for n in range(1, FRAMES + 1))


class Hello(msgspec.Struct):
    """A response."""

    ok: bool


@get("/hello")
async def greet() -> Hello:
    """A minimal Litestar handler."""
    return Hello(ok=True)


hello = Litestar([greet], openapi_config=None)


async def frames(scope: Any, receive: Any, send: Any) -> None:
    """The events of ``stream100`` in one chunk: the upper bound of what the server can send."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def idle(scope: Any, receive: Any, send: Any) -> None:
    """One event, then silence until the client disconnects: the minimum of an open stream."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: 1\r\n\r\n", "more_body": scope["path"] != "/ready"})
    if scope["path"] != "/ready":
        await receive()


async def lifespan(receive: Any, send: Any) -> None:
    """Handle lifespan events."""
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})
