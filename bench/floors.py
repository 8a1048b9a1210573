"""What the parts cost bare, as servers of their own: ``granian bench.floors:hello``, ``:frames``, ``:idle``."""

from typing import Any

import msgspec
from litestar import Litestar, get

FRAMES = 103
CHUNK = b"".join(b"event: messages\r\ndata: %b\r\nid: 1-%d\r\n\r\n" % (b"x" * 140, n) for n in range(1, FRAMES + 1))


class Hello(msgspec.Struct):
    """An answer."""

    ok: bool


@get("/hello")
async def greet() -> Hello:
    """The least that a Litestar handler does."""
    return Hello(ok=True)


hello = Litestar([greet], openapi_config=None)


async def frames(scope: Any, receive: Any, send: Any) -> None:
    """The events of ``stream100``, ready, in one chunk: the most that the server can push."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def idle(scope: Any, receive: Any, send: Any) -> None:
    """An event, and nothing more until the client goes away: the least that an open stream holds."""
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
    """Agree to begin and to end."""
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})
