"""The header ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header)."""

import hashlib
from typing import Any

from litestar import Request

from app.access.structs import Principal
from app.base.bulk import offload
from app.base.errors import Invalid
from app.idempotency.structs import Key

LONGEST = 255


async def key_in(request: Request[Any, Any, Any]) -> Key | None:
    """The key that came with ``request``, if one did. Raises ``Invalid`` for one that can be none."""
    key = bare_key_in(request)
    if key is None:
        return None
    body = await request.body()
    fingerprint = await offload(len(body), hashlib.sha256, body)
    return Key(key.route, key.key, fingerprint.digest())


def bare_key_in(request: Request[Any, Any, Any]) -> Key | None:
    """The same for a body that is not kept: whoever reads it gives the key its fingerprint. Raises ``Invalid``."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    if not 1 <= len(given) <= LONGEST or not given.isprintable():
        raise Invalid(f"Idempotency-Key must have 1 to {LONGEST} printable characters, a UUID for example.")
    route = f"{request.method} {request.url.path}"
    who = request.scope.get("user")
    if isinstance(who, Principal) and who.rules is not None:  # what one person made is not for another to have
        route += f" {who.user_id}"
    return Key(route, given, b"")
