"""Authentication of requests: key → principal. Every route needs one but those that say they are open."""

import contextlib
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from app.access.service import REFUSED, AccessService
from app.access.structs import DEFAULT_TENANT, Principal
from app.base.errors import Unauthenticated

OPEN = {"open": True}
"""A handler's ``opt`` that lets everybody in."""

_EVERYBODY = Principal(DEFAULT_TENANT)


class Guard:
    """A Litestar guard. Without ``access`` authentication is off: everybody is the one tenant."""

    def __init__(self, access: AccessService | None) -> None:
        self._access = access

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Put the principal into ``connection.scope["user"]``. Raises ``Unauthenticated``."""
        if self._access is None:
            connection.scope["user"] = _EVERYBODY
        elif handler.opt.get("open"):
            with contextlib.suppress(Unauthenticated):  # a key only shows more there
                connection.scope["user"] = await self._access.authenticate(_key_of(connection))
        else:
            connection.scope["user"] = await self._access.authenticate(_key_of(connection))


def _key_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    headers = connection.headers
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    if found := headers.get("x-api-key"):
        return str(found)
    raise Unauthenticated(REFUSED)


def principal_of(request: Request[Any, Any, Any]) -> Principal:
    """The principal that the guard found: the dependency ``principal`` of every handler."""
    principal: Principal = request.scope["user"]
    return principal
