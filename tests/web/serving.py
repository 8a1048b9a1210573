"""The HTTP layers around a few routes, as in production, and an ASGI client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from litestar import Litestar
from litestar.testing import AsyncTestClient

from app.infra.http.json_decoding import JsonBody
from app.infra.http.litestar_internals import FastResponse, ReadyRequest
from app.infra.http.open_streams import OpenStreams
from app.infra.http.openapi import openapi_config
from app.infra.http.problems import exception_handlers
from app.infra.http.request_bodies import RequestBodyMiddleware
from app.infra.http.request_context import RequestContextMiddleware
from app.infra.telemetry.meters import Meters

Message = dict[str, Any]


def application(*routes: Any, path: str | None = None) -> Litestar:
    """Litestar with the settings of ``app.infra.http``."""
    return Litestar(
        list(routes),
        path=path,
        exception_handlers=exception_handlers,
        dto=JsonBody,
        return_dto=None,
        request_class=ReadyRequest,
        response_class=FastResponse,
        openapi_config=openapi_config("1.2.3"),
        logging_config=None,
        request_max_body_size=None,
    )


def layers(*routes: Any, meters: Meters | None = None, **limits: Any) -> RequestContextMiddleware:
    """Everything that a request passes; ``limits`` are those of ``RequestBodyMiddleware``."""
    return RequestContextMiddleware(RequestBodyMiddleware(application(*routes), **limits), meters or Meters())


@asynccontextmanager
async def serving(*routes: Any, meters: Meters | None = None, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the layers around ``routes``."""
    async with AsyncTestClient(layers(*routes, meters=meters, **limits)) as client:
        yield client


def scope(method: str = "GET", path: str = "/", headers: Mapping[str, str] | None = None) -> Message:
    """An HTTP connection as a server describes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


class Connection:
    """One connection under the test's control: ``leave`` ends it, and it reads only while ``reads`` is set."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self._left = asyncio.Event()
        self._changed = asyncio.Event()

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)
        self._changed.set()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until ``holds`` does, looking whenever something was sent."""
        async with asyncio.timeout(5):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def ended(self) -> bool:
        return bool(self.sent) and self.sent[-1]["type"] == "http.response.body" and not self.sent[-1]["more_body"]

    def serve(self, answer: Any) -> "asyncio.Task[None]":
        """Let ``answer`` (an ASGI application) serve this connection."""
        work: Awaitable[None] = answer(scope(), self.receive, self.send)
        return asyncio.ensure_future(work)


def fast_streams(meters: Meters | None = None, **settings: Any) -> OpenStreams:
    """Streams with heartbeats and timeouts of hundredths of a second."""
    return OpenStreams(meters or Meters(), **{"tick": 0.01, "heartbeat": 0.03, "stuck": 0.1, **settings})


class Flag:
    """Counts the calls of an ``on_disconnect``."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1


def at_rest(streams: OpenStreams) -> bool:
    """Whether ``streams`` has no open response and no task left."""
    return len(streams) == 0 and len(streams.tasks) == 0
