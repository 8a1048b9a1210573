"""Authentication of requests: credential → principal, who may do what the route's ``opt`` asks for.

A route that declares no permission lets nobody in.

Refusals of one address, answered later once there are many: a flood of bad credentials costs little that way.

Only the answers to bad credentials wait. A valid credential from the same address, which many clients share behind a
proxy that is not trusted, is never held up.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from litestar import Request
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import AgentServiceError, Forbidden, Refused, Unauthenticated, Unavailable
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

FREE = 300
"""Refusals of one address that are answered at once, in each window."""

WINDOW_SECONDS = 10.0
DELAY_SECONDS = 2.0

MAX_ADDRESSES = 10_000


class RefusalThrottle:
    """Counts refusals by address, as ``proxies`` tell it; ``clock`` counts seconds."""

    def __init__(self, proxies: TrustedProxies, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxies = proxies
        self._clock = clock
        self._refusals: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def wait(self, scope: Any) -> None:
        """Count one more refusal of the address that sent the request, and wait if there were many."""
        if self._count(self._proxies.client(scope)) > FREE:
            await asyncio.sleep(DELAY_SECONDS)

    def _count(self, address: str) -> int:
        moment = self._clock()
        until, count = self._refusals.pop(address, (0.0, 0))
        if until <= moment:
            until, count = moment + WINDOW_SECONDS, 0
        self._refusals[address] = until, count + 1
        if len(self._refusals) > MAX_ADDRESSES:
            self._refusals.popitem(last=False)
        return count + 1


OPEN: dict[str, Any] = {"permission": None}
"""A handler's ``opt`` that lets everybody in. No key is looked at, so nothing is asked of the database."""

OPEN_SHOWS_MORE = {**OPEN, "shows_more": True}
"""The same for a handler that asks ``may``: a key counts if it can be checked, and harms nobody if not."""

READS = {"permission": READ}
WRITES = {"permission": WRITE}
STARTS_RUNS = {**WRITES, "llm": True}
ADDS_NOTHING = {**WRITES, "stores": False}
OPERATES = {"permission": OPERATE}
ADMINISTERS = {"permission": ADMIN}
"""The ``opt`` of handlers that need a principal with that scope; those that start runs have a rate of their own.

What writes (POST, PUT, PATCH) is refused for a tenant whose storage is full, unless the handler ``ADDS_NOTHING``.
"""

UNDECLARED = "?"
"""The scope of routes that declare no permission, which nobody has."""

MISSING = "An API key is needed: send Authorization: Bearer KEY, or X-Api-Key: KEY."

ANONYMOUS_PRINCIPAL = Principal(DEFAULT_TENANT, scopes=SCOPES)
"""Who asks where authentication is off."""


class Authenticator(Protocol):
    """Tells whom a credential stands for."""

    async def authenticate(self, key: str) -> Principal:
        """Raises ``Unauthenticated``, and ``Unavailable`` when nobody can tell."""
        ...


class RequestAuthenticator(Protocol):
    """Tells who asks by the whole request (``app.features.access.custom_auth``), in place of an ``Authenticator``."""

    async def admit(self, scope: Scope, receive: Receive, needed: str) -> tuple[Principal, Receive]:
        """Who asks, and how the rest of the request is received now. Raises as ``authenticate`` does, and others."""
        ...


class Guard:
    """Litestar middleware around every route, for Litestar's own guards copy the handler each time (15 µs).

    Without ``access`` and ``entry`` authentication is off: everybody is the one tenant, whatever key is sent.
    ``records`` keeps who was refused; ``slowdown`` answers floods of bad credentials later.
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
        """Let a request through with its principal in ``scope["user"]``.

        Raises ``Unauthenticated``, ``Forbidden`` for a key without the scope, ``Unavailable`` when nobody can tell.
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
        if needed not in principal.scopes:
            self._records.record(AuditEvent(principal.tenant_id, "request.forbidden", principal.actor, _route(scope)))
            raise Forbidden(f"This key may not do that: it needs the scope {needed}.")


def _route(scope: Scope) -> str:
    return f"{scope['method']} {scope.get('path_template', '')}"  # type: ignore[typeddict-item]


def key_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The key in raw ``headers``; ``Authorization`` wins. What no key can be is left to ``authenticate``."""
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
    """The principal that the guard found: the dependency ``principal`` of every handler."""
    principal: Principal = request.scope["user"]
    return principal


def may(request: Request[Any, Any, Any], needed: str) -> bool:
    """Whether the request's principal, if there is one, has the scope ``needed``."""
    principal: Principal | None = request.scope.get("user")
    return principal is not None and needed in principal.scopes
