"""API keys: create, list, rotate, revoke; authenticate without I/O while the cache is warm.

A key has the form ``as_<id>_<secret>``. The id is public; of the secret only an HMAC under the pepper is stored, and it
is never shown or logged again.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.clock import now
from app.base.errors import Invalid, NotFound, Unauthenticated, Unavailable
from app.base.tasks import Tasks
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.security.access import queries
from app.security.access.api_key_cache import ApiKeyCache
from app.security.access.structs import (
    DEFAULT_TENANT_NAME,
    MEMBER,
    SCOPES,
    AuditEvent,
    AuditSink,
    KeyInfo,
    NullAuditSink,
    Principal,
    granted,
    tenant_id_of,
)
from app.security.limits.structs import DaySpending, StorageUsage, TenantLimits

PREFIX = "as"
ID_BYTES = 8
SECRET_BYTES = 32

MAX_NAME_LENGTH = 100

REFUSED = "The API key is malformed, unknown, expired or revoked: send another one."

_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")  # 32 bytes are 43 in base64
DIGEST_BYTES = hashlib.sha256().digest_size
_NO_DIGEST = bytes(DIGEST_BYTES)

Peppers = Callable[[], Sequence[Secret]]
"""Returns the peppers that are valid now; new keys use the first."""


class AccessService:
    """Keys of all tenants. ``records`` receives audit events, ``clock`` counts seconds.

    During a pepper rotation there are two peppers: new keys use the first, keys stored under the second stay valid and
    are rehashed under the first on use.
    """

    def __init__(
        self,
        database: Database,
        pepper: Secret | Peppers,
        clock: Callable[[], float] = time.monotonic,
        records: AuditSink = NullAuditSink(),
    ) -> None:
        self._database = database
        self._peppers: Peppers = (lambda: (pepper,)) if isinstance(pepper, Secret) else pepper
        self._records = records
        self._cache = ApiKeyCache(self._look_up, clock)
        self._tasks = Tasks("rehash")
        self._old_digests: dict[tuple[str, str], tuple[UUID, bytes, bytes]] = {}

    async def create_key(
        self,
        name: str,
        *,
        tenant: str = DEFAULT_TENANT_NAME,
        expires_in: timedelta | None = None,
        scopes: frozenset[str] = MEMBER,
        user_id: str = "",
    ) -> tuple[KeyInfo, Secret]:
        """Create a key, and ``tenant`` if it is new. Returns the key's data and the whole key, which is shown only
        once.

        ``user_id``: the person on whose behalf it acts. Raises ``Invalid`` for an invalid name, for missing or unknown
        scopes, and for an ``expires_in`` that is not positive.
        """
        _check_name("name of the key", name)
        _check_name("name of the tenant", tenant)
        if user_id:
            _check_name("name of the user", user_id)
        if not scopes or scopes - SCOPES:
            raise Invalid(f"A key needs one or more of the scopes {', '.join(sorted(SCOPES))}.")
        if expires_in is not None and expires_in <= timedelta():
            raise Invalid("A key must expire in the future.")
        key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        tenant_id = tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            await queries.ensure_tenant(session, tenant_id, tenant)
            row = await queries.add(
                session,
                tenant_id,
                key_id,
                digest=self._digest(key_id, secret),
                expires_at=None if expires_in is None else now() + expires_in,
                name=name,
                scopes=sorted(scopes),
                user_id=user_id or None,
            )
        self._records.record(AuditEvent(tenant_id, "key.created", "operator", key_id))
        return from_row(KeyInfo, row), _whole(key_id, secret)

    async def list_keys(self, tenant: str = DEFAULT_TENANT_NAME) -> list[KeyInfo]:
        """Return the tenant's keys, oldest first."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            return [from_row(KeyInfo, row) for row in await queries.listed(session, tenant_id)]

    async def rotate_key(
        self, key_id: str, overlap: timedelta, tenant: str = DEFAULT_TENANT_NAME
    ) -> tuple[KeyInfo, Secret]:
        """Replace a key's secret; the previous one stays valid for ``overlap``. Returns the key's data and the whole
        new key.

        A secret from before an earlier rotation is void at once. Raises ``NotFound`` if the key is not valid.
        """
        secret, tenant_id = secrets.token_urlsafe(SECRET_BYTES), tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            row = await queries.rotate(session, tenant_id, key_id, self._digest(key_id, secret), overlap)
        if row is None:
            raise NotFound(f"Key {key_id} not found in tenant {tenant!r}, or it is revoked or expired.")
        self._records.record(AuditEvent(tenant_id, "key.rotated", "operator", key_id))
        return from_row(KeyInfo, row), _whole(key_id, secret)

    async def set_limits(self, tenant: str, limits: TenantLimits) -> None:
        """Set limits of ``tenant`` (created if new); effective everywhere within five seconds."""
        _check_name("name of the tenant", tenant)
        tenant_id = tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            await queries.ensure_tenant(session, tenant_id, tenant)
            await queries.set_limits(session, tenant_id, msgspec.to_builtins(limits))
        self._records.record(AuditEvent(tenant_id, "tenant.limits", "operator", tenant))

    async def limits_of(self, tenant: str) -> TenantLimits:
        """Return the tenant's own limits. Raises ``NotFound``."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            limits = await queries.limits_of(session, tenant_id)
        if limits is None:
            raise NotFound(f"Tenant {tenant!r} not found: it has no key. Check the name.")
        return msgspec.convert(limits, TenantLimits)

    async def check_tenant(self, tenant: str) -> None:
        """Raise ``NotFound`` unless the tenant is ``default`` or has keys or limits of its own."""
        if tenant != DEFAULT_TENANT_NAME:
            await self.limits_of(tenant)

    async def spending(self, tenant: str) -> list[DaySpending]:
        """Return the tenant's spending on models by day, newest first, at most 31 days."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            return [from_row(DaySpending, row) for row in await queries.spending_of(session, tenant_id)]

    async def stored(self, tenant: str) -> StorageUsage | None:
        """Return what the tenant stores; None if it was not measured, as without a storage limit."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            row = await queries.stored_of(session, tenant_id)
        return None if row is None else from_row(StorageUsage, row)

    async def revoke_key(self, key_id: str, tenant: str = DEFAULT_TENANT_NAME) -> None:
        """Revoke a key, effective everywhere within five seconds. Raises ``NotFound``."""
        tenant_id = tenant_id_of(tenant)
        async with self._database.writing(tenant_id) as session:
            if not await queries.revoke(session, tenant_id, key_id):
                raise NotFound(f"Key {key_id} not found in tenant {tenant!r}.")
        self._records.record(AuditEvent(tenant_id, "key.revoked", "operator", key_id))

    async def authenticate(self, key: str) -> Principal:
        """Return the principal of a key. Raises ``Unauthenticated``; ``Unavailable`` if it cannot be checked now."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            raise Unauthenticated(REFUSED)
        key_id, secret = parts.groups()
        principal = await self._cache.get(key_id, b"".join(self._digests(key_id, secret)))
        if principal is None:
            raise Unauthenticated(REFUSED)
        return principal

    async def aclose(self) -> None:
        """Cancel lookups and rehashing in progress."""
        await self._cache.aclose()
        await self._tasks.aclose()

    async def _look_up(self, keys: Sequence[tuple[str, bytes]]) -> list[Principal | None]:
        key_ids = list({key_id for key_id, _ in keys})
        async with self._database.looking_up(key_ids) as session:
            rows = await queries.live(session, key_ids)
        return [self._match(rows.get(key_id), key_id, digests) for key_id, digests in keys]

    def _match(self, row: Row[Any] | None, key_id: str, digests: bytes) -> Principal | None:
        candidates = [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
        # an unknown id is compared too, so that timing does not distinguish it from a wrong secret
        stored, before = (row.digest, row.previous_digest) if row is not None else (_NO_DIGEST, None)
        same = [hmac.compare_digest(stored, one) for one in candidates]
        same_before = [hmac.compare_digest(before or _NO_DIGEST, one) for one in candidates]
        if row is None or not any((*same, *same_before)):
            return None
        self._records.used(key_id)
        if any(same[1:]) or any(same_before[1:]):
            column = "digest" if any(same) else "previous_digest"
            self._rehash(row.tenant_id, key_id, column, getattr(row, column), candidates[0])
        limits = msgspec.convert(row.limits, TenantLimits)
        return Principal(row.tenant_id, key_id, granted(row.scopes), row.user_id or "", limits)

    def _rehash(self, tenant_id: UUID, key_id: str, column: str, was: bytes, digest: bytes) -> None:
        """Have a key that is in use rehashed under the first pepper: no request waits for that.

        One key at a time: after a restart with a new pepper all keys in use are due at once.
        """
        idle = not self._old_digests
        self._old_digests[key_id, column] = (tenant_id, was, digest)
        if idle:
            self._tasks.start(self._rehash_all(), name="keys")

    async def _rehash_all(self) -> None:
        try:
            while self._old_digests:
                (key_id, column), (tenant_id, was, digest) = next(iter(self._old_digests.items()))
                async with self._database.writing(tenant_id) as session:
                    await queries.move(session, tenant_id, key_id, column, (was, digest))
                self._records.record(AuditEvent(tenant_id, "key.rehashed", "service", key_id))
                del self._old_digests[key_id, column]
        except Unavailable:
            pass
        finally:
            self._old_digests.clear()  # they are valid, and are rehashed on a later use

    def _digest(self, key_id: str, secret: str) -> bytes:
        return self._digests(key_id, secret)[0]

    def _digests(self, key_id: str, secret: str) -> list[bytes]:
        whole = f"{key_id}_{secret}".encode()
        return [hmac.digest(pepper.reveal().encode(), whole, hashlib.sha256) for pepper in self._peppers()]


def _whole(key_id: str, secret: str) -> Secret:
    return Secret(f"{PREFIX}_{key_id}_{secret}")


def _check_name(what: str, text: str) -> None:
    if not text.strip() or not text.isprintable() or len(text) > MAX_NAME_LENGTH:
        raise Invalid(f"The {what} must be 1 to {MAX_NAME_LENGTH} printable characters.")
