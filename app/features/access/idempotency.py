"""The header ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header): parsing, and duplicates in flight."""

import asyncio
import hashlib
from collections import defaultdict
from typing import Any
from uuid import UUID

from litestar import Request
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import Conflict, Invalid
from app.base.offload import offload
from app.security.access.structs import Principal
from app.security.idempotency.queries import UNDER_WAY
from app.security.idempotency.structs import IdempotencyKey

WAIT_SECONDS = 10.0

RequestKey = tuple[Any, ...]

MAX_KEY_LENGTH = 255


class DuplicateRequests:
    """Litestar middleware behind the guard: serialise requests with the same idempotency key.

    Duplicates wait in memory, without a database connection, until the first request starts its response: its result
    is committed by then, and they replay it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_flight: defaultdict[RequestKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: defaultdict[RequestKey, int] = defaultdict(int)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. Raises ``Conflict`` if the previous one does not start its response in ``WAIT_SECONDS``."""
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
        principal = scope.get("user")
        method: Any = scope.get("method")
        if key is None or method is None or not isinstance(principal, Principal):
            await self._app(scope, receive, send)
            return
        request_key = (principal.tenant_id, principal.user_id, method, scope["path"], key)
        lock = self._in_flight[request_key]
        self._users[request_key] += 1
        try:
            await self._serve(lock, scope, receive, send)
        finally:
            self._users[request_key] -= 1
            if not self._users[request_key]:
                del self._users[request_key], self._in_flight[request_key]

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
            if held:  # a stream starts its response after this, when the run is committed
                held = False
                lock.release()


async def key_in(request: Request[Any, Any, Any]) -> IdempotencyKey | None:
    """Return the key of ``request`` with the fingerprint of its body; None without one. Raises ``Invalid``."""
    key = bare_key_in(request)
    if key is None:
        return None
    return IdempotencyKey(key.route, key.key, await fingerprint_of(await request.body()))


def bare_key_in(request: Request[Any, Any, Any]) -> IdempotencyKey | None:
    """Return the key without a fingerprint, for a body that is read elsewhere. Raises ``Invalid``."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    check_key(given, "Idempotency-Key")
    return IdempotencyKey(route_of(f"{request.method} {request.url.path}", request.scope.get("user")), given, b"")


def check_key(given: str, name: str, *pointers: str) -> None:
    """Check a key that a request names by its field or header ``name``. Raises ``Invalid``, with ``pointers``."""
    if not 1 <= len(given) <= MAX_KEY_LENGTH or not given.isprintable():
        raise Invalid(
            f"{name} must have 1 to {MAX_KEY_LENGTH} printable characters, a UUID for example.",
            tuple((pointer, "is not a valid id") for pointer in pointers),
        )


def route_of(route: str, principal: Any) -> str:
    """Return the route of keys of ``principal``: users must not replay each other's results."""
    is_user = isinstance(principal, Principal) and principal.rules is not None
    return f"{route} {principal.user_id}" if is_user else route


async def fingerprint_of(content: bytes) -> bytes:
    """Return the fingerprint of what a request asks for."""
    return (await offload(len(content), hashlib.sha256, content)).digest()


def on_thread(key: IdempotencyKey | None, thread_id: UUID | None) -> IdempotencyKey | None:
    """Return ``key`` for the thread that a header of the request names, which the body's fingerprint does not have."""
    if key is None or thread_id is None:
        return key
    return IdempotencyKey(f"{key.route} {thread_id}", key.key, key.fingerprint)
