"""API keys: made, listed, revoked, and checked without I/O while they are warm.

A key reads ``as_<id>_<secret>``. The id is public; of the secret only an HMAC under the pepper is stored, and nothing
of it is ever shown or logged again.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from app.access import queries
from app.access.structs import DEFAULT_TENANT_NAME, KeyInfo, Principal, tenant_id_of
from app.base.clock import now
from app.base.errors import NotFound, Unauthenticated
from app.db.engine import Database
from app.secrets.secret import Secret

PREFIX = "as"
ID_BYTES = 8
SECRET_BYTES = 32
LONGEST_KEY = 256

WARM_SECONDS = 3.0
"""How long an answer of the database is believed: a revoked key is refused everywhere within five seconds."""

MOST_WARM = 10_000
"""Keys, good and bad, that are remembered: a flood of bad ones pushes out the oldest and fills no memory."""

REFUSED = "The API key is missing, malformed, unknown, expired or revoked: send Authorization: Bearer KEY."


class AccessService:
    """Keys of all tenants, under one pepper."""

    def __init__(self, database: Database, pepper: Secret, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._warm: OrderedDict[bytes, tuple[float, Principal | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Future[Principal | None]] = {}

    async def create_key(
        self, name: str, *, tenant: str = DEFAULT_TENANT_NAME, expires_in: timedelta | None = None
    ) -> tuple[KeyInfo, Secret]:
        """Make a key for ``tenant`` (made too when it is new). The second part is the whole key, given this once."""
        key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        tenant_id = tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            await queries.ensure_tenant(session, tenant_id, tenant)
            row = await queries.add(
                session,
                tenant_id,
                key_id,
                digest=self._digest(key_id, secret),
                name=name,
                expires_at=None if expires_in is None else now() + expires_in,
            )
        return KeyInfo(**row._mapping), Secret(f"{PREFIX}_{key_id}_{secret}")  # noqa: SLF001  public by documentation

    async def list_keys(self, tenant: str = DEFAULT_TENANT_NAME) -> list[KeyInfo]:
        """The tenant's keys, oldest first."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            return [KeyInfo(**row._mapping) for row in await queries.listed(session, tenant_id)]  # noqa: SLF001

    async def revoke_key(self, key_id: str, tenant: str = DEFAULT_TENANT_NAME) -> None:
        """Void a key, felt everywhere within five seconds. Raises ``NotFound``."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            if not await queries.revoke(session, tenant_id, key_id):
                raise NotFound(f"Key {key_id} not found in tenant {tenant!r}.")

    async def authenticate(self, key: str) -> Principal:
        """Who ``key`` stands for. Raises ``Unauthenticated``, and ``Unavailable`` when nobody can tell."""
        key_id, secret = _split(key)
        digest = self._digest(key_id, secret)
        known = self._warm.get(digest)
        if known is not None and known[0] > self._clock():
            principal = known[1]
        else:
            principal = await self._ask_once(key_id, digest)
        if principal is None:
            raise Unauthenticated(REFUSED)
        return principal

    async def _ask_once(self, key_id: str, digest: bytes) -> Principal | None:
        asking = self._asking.get(digest)
        if asking is not None:
            return await asyncio.shield(asking)
        future: asyncio.Future[Principal | None] = asyncio.get_running_loop().create_future()
        self._asking[digest] = future
        try:
            principal = await self._ask(key_id, digest)
            future.set_result(principal)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._asking[digest]
        self._warm[digest] = (self._clock() + WARM_SECONDS, principal)
        self._warm.move_to_end(digest)
        if len(self._warm) > MOST_WARM:
            self._warm.popitem(last=False)
        return principal

    async def _ask(self, key_id: str, digest: bytes) -> Principal | None:
        async with self._database.looking_up(key_id) as session:
            row = await queries.live(session, key_id)
        # an unknown id is compared too, so that it takes as long as a wrong secret
        stored, tenant_id = (row.digest, row.tenant_id) if row is not None else (bytes(32), UUID(int=0))
        if not hmac.compare_digest(stored, digest) or row is None:
            return None
        return Principal(tenant_id, key_id, frozenset(row.scopes))

    def _digest(self, key_id: str, secret: str) -> bytes:
        return hmac.digest(self._pepper.reveal().encode(), f"{key_id}_{secret}".encode(), hashlib.sha256)


def _split(key: str) -> tuple[str, str]:
    prefix, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    if (
        len(key) > LONGEST_KEY
        or prefix != PREFIX
        or not key_id
        or not secret
        or not key.isascii()
        or not key.isprintable()
    ):
        raise Unauthenticated(REFUSED)
    return key_id, secret
