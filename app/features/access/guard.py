"""Authenticate requests, check the scope that the route declares, and throttle failures by address.

A route that declares no permission refuses every request. Only responses to bad credentials are delayed: a valid
credential from the same address, which clients behind an untrusted proxy share, is never held up.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from litestar import Request
from litestar.di import NamedDependency
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import AgentServiceError, Forbidden, Refused, Unauthenticated, Unavailable
from app.base.ttl_cache import TTLCache
from app.infra.http.client_address import TrustedProxies
from app.infra.http.request_bodies import only_json
from app.security.access.structs import (
    ADMIN,
    DEFAULT_TENANT,
    MONITOR,
    OPERATE,
    READ,
    SCOPES,
    SERVICE,
    WRITE,
    AuditEvent,
    AuditSink,
    NullAuditSink,
    Principal,
)

CurrentPrincipal = NamedDependency[Principal]
"""The authenticated caller, as parameter ``principal`` of a route."""

MAX_UNDELAYED = 300
"""Refusals of one address that are answered at once, in each window."""

WINDOW_SECONDS = 10.0
DELAY_SECONDS = 2.0

MAX_ADDRESSES = 10_000

UNDECLARED = "?"
"""The scope of routes that declare no permission; no principal has it."""

MISSING = "An API key is needed: send Authorization: Bearer KEY, or X-Api-Key: KEY."


class RefusalThrottle:
    """Delay responses to repeated authentication failures from one address.

    ``proxies`` resolve the client's address; ``clock`` returns seconds.
    """

    def __init__(self, proxies: TrustedProxies, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = proxies
        self._refusals: TTLCache[str, itertools.count[int]] = TTLCache(
            MAX_ADDRESSES, WINDOW_SECONDS, lru=True, clock=clock
        )

    async def wait(self, scope: Any) -> None:
        """Count a refusal of the client's address, and sleep if there were too many in this window."""
        if self._count(self._proxies.client(scope)) > MAX_UNDELAYED:
            await asyncio.sleep(DELAY_SECONDS)

    def _count(self, address: str) -> int:
        window = self._refusals.get(address)
        if window is None:
            window = itertools.count(1)
            self._refusals.put(address, window)
        return next(window)


OPEN: dict[str, Any] = {"permission": None}
"""A handler's ``opt`` that needs no authentication. No key is checked, so no query is made."""

OPEN_SHOWS_MORE = {**OPEN, "shows_more": True}
"""``OPEN`` for a handler that calls ``may``: a key is checked if sent, and an invalid one is ignored."""

READS = {"permission": READ}
WRITES = {"permission": WRITE}
STARTS_RUNS = {**WRITES, "llm": True}
STARTS_RUNS_BY_MESSAGE = {**READS, "llm_by_message": True}
ADDS_NOTHING = {**WRITES, "stores": False}
OPERATES = {"permission": OPERATE}
ADMINISTERS = {"permission": ADMIN}
"""The ``opt`` of handlers that need a principal with that scope. Starting runs has a rate limit of its own.

``STARTS_RUNS_BY_MESSAGE``: for a route whose body says what is wanted; its handler calls ``check_scope`` and
``count_run``.

Writes (POST, PUT, PATCH) are refused for a tenant whose storage is full, unless the handler ``ADDS_NOTHING``.
"""


ANONYMOUS_PRINCIPAL = Principal(DEFAULT_TENANT, scopes=SCOPES)
"""The principal of every request if authentication is off."""


class Authenticator(Protocol):
    """Maps a credential to a principal."""

    async def authenticate(self, key: str) -> Principal:
        """Return the principal of a credential.

        Raises ``Unauthenticated``; ``Unavailable`` if it cannot be checked now.
        """
        ...


class RequestAuthenticator(Protocol):
    """Authenticates a request as a whole (``app.features.access.custom_auth``), in place of an ``Authenticator``."""

    async def admit(self, scope: Scope, receive: Receive, needed: str) -> tuple[Principal, Receive]:
        """Return the principal and the ``receive`` to read the rest of the request with.

        Raises as ``authenticate`` does, and what handlers raise.
        """
        ...


class Guard:
    """Authenticate each request and check its scope.

    A middleware, because Litestar's guards copy the handler per request (15 µs).
    Without ``access`` and ``entry`` authentication is off: every request has the default tenant's principal.
    Refusals are reported to ``records`` and throttled by ``slowdown``.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Authenticator | None,
        records: AuditSink = NullAuditSink(),
        entry: RequestAuthenticator | None = None,
        slowdown: RefusalThrottle | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._records = records
        self._entry = entry
        self._slowdown = slowdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its principal in ``scope["user"]``.

        Raises ``Unauthenticated``, ``Forbidden`` for a missing scope, ``Unavailable`` if the key cannot be checked.
        """
        opt = scope["route_handler"].opt
        needed = opt.get("permission", UNDECLARED)
        if self._entry is not None:
            receive = await self._enter(self._entry, scope, receive)
        elif self._access is None:
            if needed == UNDECLARED:
                raise Forbidden("This route declares no permission.")
            scope["user"] = ANONYMOUS_PRINCIPAL
        elif needed is not None:
            scope["user"] = await self._admit(self._access, scope, needed)
        elif opt.get("shows_more"):
            with contextlib.suppress(Unauthenticated, Unavailable):
                scope["user"] = await self._access.authenticate(key_in(scope["headers"]))
        await self._app(scope, await only_json(scope, receive), send)

    async def _enter(self, entry: RequestAuthenticator, scope: Scope, receive: Receive) -> Receive:
        opt = scope["route_handler"].opt
        needed = opt.get("permission", UNDECLARED)
        if needed is not None:
            try:
                scope["user"], receive = await entry.admit(scope, receive, needed)
            except (Unauthenticated, Refused):
                await self._on_refusal(scope)
                raise
            self._check(scope["user"], scope, needed)
        elif opt.get("shows_more"):
            with contextlib.suppress(AgentServiceError):
                scope["user"], receive = await entry.admit(scope, receive, MONITOR)
        return receive

    async def _admit(self, access: Authenticator, scope: Scope, needed: str) -> Principal:
        try:
            principal = await access.authenticate(key_in(scope["headers"]))
        except Unauthenticated:
            await self._on_refusal(scope)
            raise
        self._check(principal, scope, needed)
        return principal

    async def _on_refusal(self, scope: Scope) -> None:
        self._records.record(AuditEvent(SERVICE, "request.unauthenticated", "anonymous", _route(scope)))
        if self._slowdown is not None:
            await self._slowdown.wait(scope)

    def _check(self, principal: Principal, scope: Scope, needed: str) -> None:
        check_scope(principal, self._records, scope, needed)


def check_scope(principal: Principal, records: AuditSink, scope: Scope, needed: str) -> None:
    """Record and raise ``Forbidden`` if the principal lacks the scope ``needed``."""
    if needed not in principal.scopes:
        records.record(AuditEvent(principal.tenant_id, "request.forbidden", principal.actor, _route(scope)))
        raise Forbidden(f"This key may not do that: it needs the scope {needed}.")


def _route(scope: Scope) -> str:
    return f"{scope['method']} {scope.get('path_template', '')}"  # type: ignore[typeddict-item]


def key_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the unvalidated key in raw ``headers``; ``Authorization`` wins. Raises ``Unauthenticated``."""
    plain = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and (key := key.strip()):
                return key.decode("latin-1")
        elif name == b"x-api-key":
            plain = value
    if not plain:
        raise Unauthenticated(MISSING)
    return plain.decode("latin-1")


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """Return the request's principal: the dependency ``principal`` of every handler."""
    principal: Principal = request.scope["user"]
    return principal


def may(request: Request[Any, Any, Any], needed: str) -> bool:
    """Return whether the request's principal, if any, has the scope ``needed``."""
    principal: Principal | None = request.scope.get("user")
    return principal is not None and needed in principal.scopes
