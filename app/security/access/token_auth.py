"""JSON Web Tokens of one issuer as credentials.

Sources: RFC 7519 (JWT), RFC 8725 (best practice), RFC 9068 (profile for access tokens).
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jwt
import msgspec

from app.base.errors import Unauthenticated, UsageError
from app.infra.db.engine import Database
from app.infra.settings import AuthSettings
from app.security.access import queries
from app.security.access.jwks import FAMILIES, JwksCache
from app.security.access.service import MAX_NAME_LENGTH
from app.security.access.structs import DEFAULT_TENANT_NAME, MEMBER, ROLES, Principal, tenant_id_of
from app.security.limits.structs import TenantLimits

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What may be allowed: signatures by a private key alone, never a shared secret, never none."""

TIMES = ("exp", "nbf", "iat")
LATEST = 253_402_300_799
"""The last second of the year 9999."""

MAX_TOKEN_LENGTH = 8192
"""Characters of a token."""

CACHE_TTL = 60.0
"""How long a verified token counts without being verified again; a change of the issuer's keys ends it."""

MAX_CACHED_TOKENS = 10_000
"""Tokens that are remembered."""

REFUSED = "The token is malformed, expired, not for this service, or not signed by its issuer: send another one."


class TokenService:
    """Tells whom a token stands for, by the keys of its issuer. ``now`` gives the seconds since 1970."""

    def __init__(
        self, database: Database, keys: JwksCache, settings: AuthSettings, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._keys = keys
        self._settings = settings
        self._algorithms = algorithms_of(settings.jwt_algorithms)
        self._now = now
        self._good: OrderedDict[bytes, tuple[float, int, Principal]] = OrderedDict()

    async def authenticate(self, token: str) -> Principal:
        """Whom ``token`` stands for. Raises ``Unauthenticated``, and ``Unavailable`` when nobody can tell."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(REFUSED)
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        known = self._good.get(digest)
        if known is not None and known[0] > self._now() and known[1] == self._keys.version:
            return known[2]
        claims = await self._verified(token)
        principal = await self._principal(claims)
        self._good[digest] = min(claims["exp"], self._now() + CACHE_TTL), self._keys.version, principal
        if len(self._good) > MAX_CACHED_TOKENS:
            self._good.popitem(last=False)
        return principal

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid")
            if algorithm not in self._algorithms or "crit" in header or not isinstance(key_id, str | None):
                raise Unauthenticated(REFUSED)
            key = await self._keys.key(key_id, algorithm)
            if key is None:
                raise Unauthenticated(REFUSED)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=self._settings.jwt_leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            _check_times(claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise Unauthenticated(REFUSED) from error
        return claims

    async def _principal(self, claims: dict[str, Any]) -> Principal:
        tenant = DEFAULT_TENANT_NAME
        if name := self._settings.jwt_tenant_claim:
            tenant = _text(_claim(claims, name))
        scopes = MEMBER
        if name := self._settings.jwt_roles_claim:
            found = _claim(claims, name)
            roles = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
            scopes = frozenset().union(*(ROLES[role] for role in roles if isinstance(role, str) and role in ROLES))
        tenant_id = tenant_id_of(tenant)
        async with self._database.reading(tenant_id) as session:
            limits = await queries.limits_of(session, tenant_id)
        own = msgspec.convert(limits, TenantLimits) if limits else TenantLimits()
        return Principal(tenant_id, scopes=scopes, user_id=_text(claims["sub"]), limits=own)


def algorithms_of(text: str) -> frozenset[str]:
    """The allow-list that ``text`` names, with commas between. Raises ``UsageError``."""
    named = [part.strip() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in ALGORITHMS or name[:2] not in FAMILIES:
            raise UsageError(f"AGENT_JWT_ALGORITHMS names {name!r}; use some of {', '.join(ALGORITHMS)}")
    return frozenset(named)


def _check_times(claims: dict[str, Any]) -> None:
    """Refuse times that are not numbers (RFC 7519, NumericDate). Raises ``ValueError``."""
    for name in TIMES:
        moment = claims.get(name, 0)
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment <= LATEST:
            raise ValueError(f"{name} is not a time")


def _claim(claims: Any, path: str) -> Any:
    """The member at ``path``: a claim's whole name, or names with dots between."""
    if path in claims:
        return claims[path]
    for name in path.split("."):
        claims = claims.get(name) if isinstance(claims, dict) else None
    return claims


def _text(claim: Any) -> str:
    """A claim that names a tenant or a user. Raises ``Unauthenticated`` for what cannot be a name."""
    if not isinstance(claim, str) or not claim.strip() or not claim.isprintable() or len(claim) > MAX_NAME_LENGTH:
        raise Unauthenticated(REFUSED)
    return claim


class CombinedAuthenticator:
    """API keys and tokens side by side: what begins as keys do is a key."""

    def __init__(self, keys: Any, tokens: TokenService) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, key: str) -> Principal:
        """Whom ``key`` stands for."""
        service = self._keys if key.startswith("as_") else self._tokens
        principal: Principal = await service.authenticate(key)
        return principal
