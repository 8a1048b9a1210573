"""A local receiver of webhooks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec
from aiohttp import web


class Call(msgspec.Struct):
    """A received call."""

    headers: dict[str, str]
    body: bytes

    def read(self) -> Any:
        """Return the decoded body."""
        return msgspec.json.decode(self.body)


class Receiver:
    """Records calls and answers with the statuses of ``plan`` in turn, then with 200."""

    def __init__(self, *plan: int) -> None:
        self.calls: list[Call] = []
        self.plan = list(plan)
        self.headers: dict[str, str] = {}
        self.slow: asyncio.Event | None = None
        self._came = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        app.router.add_post("/away", self._away)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.slow is not None:
            self.slow.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        call = Call({name.lower(): value for name, value in request.headers.items()}, await request.read())
        async with self._came:
            self.calls.append(call)
            status = self.plan.pop(0) if self.plan else 200
            self._came.notify_all()
        if self.slow is not None:
            await self.slow.wait()
        return web.Response(status=status, headers=self.headers)

    async def _away(self, request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/hook"})

    async def until(self, count: int) -> list[Call]:
        """Wait for ``count`` calls and return them."""
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: len(self.calls) >= count)
        return self.calls


@contextlib.asynccontextmanager
async def receiving(*plan: int) -> AsyncIterator[Receiver]:
    """Run a receiver."""
    async with Receiver(*plan) as receiver:
        yield receiver
