"""Authentication of requests: key → principal. Every route needs one but those that say they are open."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from litestar import Request
from litestar.types import ASGIApp, Receive, Scope, Send

from app.access.service import AccessService
from app.access.structs import DEFAULT_TENANT, SCOPES, USE, Principal
from app.base.errors import Forbidden, Unauthenticated, Unavailable

OPEN = {"open": True}
"""A handler's ``opt`` that lets everybody in. No key is looked at, so nothing is asked of the database."""

OPEN_SHOWS_MORE = {"open": True, "shows_more": True}
"""The same for a handler that asks ``may``: a key counts if it can be checked, and harms nobody if not."""

MISSING = "An API key is needed: send Authorization: Bearer KEY, or X-Api-Key: KEY."

_EVERYBODY = Principal(DEFAULT_TENANT, scopes=SCOPES)


class Guard:
    """Litestar middleware around every route, for Litestar's own guards copy the handler each time (15 µs).

    Without ``access`` authentication is off: everybody is the one tenant, whatever key is sent.
    """

    def __init__(self, app: ASGIApp, access: AccessService | None) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through with its principal in ``scope["user"]``.

        Raises ``Unauthenticated``, ``Forbidden`` for a key without the scope, ``Unavailable`` when nobody can tell.
        """
        await self._admit(scope, scope["route_handler"].opt)
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, opt: Mapping[str, Any]) -> None:
        if self._access is None:
            scope["user"] = _EVERYBODY
        elif not opt.get("open"):
            principal = await self._access.authenticate(_key_in(scope["headers"]))
            if USE not in principal.scopes:
                raise Forbidden(f"This API key may not do that: it needs the scope {USE}.")
            scope["user"] = principal
        elif opt.get("shows_more"):
            with contextlib.suppress(Unauthenticated, Unavailable):
                scope["user"] = await self._access.authenticate(_key_in(scope["headers"]))


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
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
    """Whether a request to a handler that is ``OPEN_SHOWS_MORE`` came with the scope ``needed``."""
    principal: Principal | None = request.scope.get("user")
    return principal is not None and needed in principal.scopes
