"""Timeout of a request until its response begins (``AGENT_REQUEST_SECONDS``)."""

import asyncio
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import Unavailable
from app.infra.http.problems import answer_error
from app.infra.http.request_bodies import is_upload

RETRY_SECONDS = 5.0


class ResponseDeadlineMiddleware:
    """ASGI middleware: cancel a request whose response has not begun after ``seconds``, and respond 503.

    A response that has begun, like a stream or a long poll with heartbeats, is not limited. Uploads have their own
    timeouts from where their body is read (``app.infra.http.uploads``).
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        begun = returned = False
        timer = asyncio.timeout(self._seconds)

        def stop() -> None:
            if not (returned or timer.expired()):  # streams are sent after the application has returned
                timer.reschedule(None)

        async def receiving() -> Any:
            if is_upload(scope):
                stop()
            return await receive()

        async def sending(message: Any) -> None:
            nonlocal begun
            if not begun:
                begun = True
                stop()
            await send(message)

        try:
            async with timer:
                await self._app(scope, receiving, sending)
                returned = True
        except TimeoutError:
            if begun or not timer.expired():
                raise
            sentence = f"The request took longer than {self._seconds:g} seconds and was cancelled. Try again."
            await answer_error(scope, receive, send, Unavailable(sentence, RETRY_SECONDS))
