"""Authentication by JSON Web Tokens of one issuer.

Sources: RFC 7519 (JWT), RFC 8725 (best practice), RFC 9068 (profile for access tokens).
"""

import hashlib
import time
from typing import Any

import jwt
import msgspec

from app.base.errors import Unauthenticated, UsageError
from app.base.ttl_cache import TTLCache
from app.infra.db.engine import Database
from app.infra.settings import AuthSettings
from app.security.access import queries
from app.security.access.jwks import FAMILIES, JwksCache
from app.security.access.service import MAX_NAME_LENGTH
from app.security.access.structs import DEFAULT_TENANT_NAME, MEMBER, ROLES, Principal, tenant_id_of
from app.security.limits.structs import TenantLimits

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms that may be allowed: asymmetric signatures only, never a shared secret, never none."""

TIMES = ("exp", "nbf", "iat")
LATEST = 253_402_300_799
"""The last second of the year 9999."""

MAX_TOKEN_LENGTH = 8192
"""Characters of a token."""

CACHE_TTL = 60.0
"""Seconds for which a verified token is not verified again; a change of the issuer's keys ends it."""

MAX_CACHED_TOKENS = 10_000
"""Cached tokens."""

REFUSED = "The token is malformed, expired, not for this service, or not signed by its issuer: send another one."


class TokenService:
    """Authenticates tokens by the keys of their issuer."""

    def __init__(self, database: Database, keys: JwksCache, settings: AuthSettings) -> None:
        self._database = database
        self._keys = keys
        self._settings = settings
        self._algorithms = algorithms_of(settings.jwt_algorithms)
        self._good: TTLCache[bytes, tuple[int, Principal]] = TTLCache(MAX_CACHED_TOKENS, clock=time.time)

    async def authenticate(self, token: str) -> Principal:
        """Return the principal of ``token``. Raises ``Unauthenticated``; ``Unavailable`` if it cannot be verified."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(REFUSED)
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        known = self._good.get(digest)
        if known is not None and known[0] == self._keys.version:
            return known[1]
        claims = await self._verified(token)
        principal = await self._principal(claims)
        until = min(claims["exp"], time.time() + CACHE_TTL)
        self._good.put(digest, (self._keys.version, principal), until=until)
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
    """Parse a comma-separated list of algorithms. Raises ``UsageError``."""
    named = [part.strip() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in ALGORITHMS or name[:2] not in FAMILIES:
            raise UsageError(f"AGENT_JWT_ALGORITHMS names {name!r}; use some of {', '.join(ALGORITHMS)}")
    return frozenset(named)


def _check_times(claims: dict[str, Any]) -> None:
    """Validate that times are numbers (RFC 7519, NumericDate). Raises ``ValueError``."""
    for name in TIMES:
        moment = claims.get(name, 0)
        if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment <= LATEST:
            raise ValueError(f"{name} is not a time")


def _claim(claims: Any, path: str) -> Any:
    """Return the claim at ``path``: a claim's whole name, or nested names separated by dots."""
    if path in claims:
        return claims[path]
    for name in path.split("."):
        claims = claims.get(name) if isinstance(claims, dict) else None
    return claims


def _text(claim: Any) -> str:
    """Return a claim that names a tenant or a user. Raises ``Unauthenticated`` if it is not a valid name."""
    if not isinstance(claim, str) or not claim.strip() or not claim.isprintable() or len(claim) > MAX_NAME_LENGTH:
        raise Unauthenticated(REFUSED)
    return claim


class CombinedAuthenticator:
    """Accepts API keys and tokens; the prefix of keys distinguishes them."""

    def __init__(self, keys: Any, tokens: TokenService) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, key: str) -> Principal:
        """Return the principal of ``key``. Raises as the service for its kind does."""
        service = self._keys if key.startswith("as_") else self._tokens
        principal: Principal = await service.authenticate(key)
        return principal
