"""Requests with an ``Idempotency-Key`` that another request of this process has at the moment."""

import asyncio
from collections import defaultdict
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from app.access.structs import Principal
from app.base.errors import Conflict
from app.idempotency.queries import UNDER_WAY

WAIT_SECONDS = 10.0

Place = tuple[Any, ...]


class DuplicateRequests:
    """Litestar middleware behind the guard: of requests with one key, one is served at a time.

    The others wait in memory, without a connection of the database, until the first begins to answer; what it made is
    committed then, and they get it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._under_way: defaultdict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[Place, int] = defaultdict(int)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. Raises ``Conflict`` where the one before it does not begin to answer in time."""
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
        principal = scope.get("user")
        method: Any = scope.get("method")
        if key is None or method is None or not isinstance(principal, Principal):
            await self._app(scope, receive, send)
            return
        place = (principal.tenant_id, principal.user_id, method, scope["path"], key)
        lock = self._under_way[place]
        self._users[place] += 1
        try:
            await self._serve(lock, scope, receive, send)
        finally:
            self._users[place] -= 1
            if not self._users[place]:
                del self._users[place], self._under_way[place]

    async def _serve(self, lock: asyncio.Lock, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await lock.acquire()
        except TimeoutError:
            raise Conflict(UNDER_WAY, retry_after=1) from None
        held = True

        async def started(message: Any) -> None:
            nonlocal held
            if held:
                held = False
                lock.release()
            await send(message)

        try:
            await self._app(scope, receive, started)
        finally:
            if held:  # a stream begins to answer after this, when the run is committed
                held = False
                lock.release()
