"""What the parts cost bare, as servers of their own: ``granian bench.floors:hello`` and ``:frames``."""

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
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await receive()
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
