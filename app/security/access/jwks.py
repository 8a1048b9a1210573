"""Cache of a token issuer's JSON Web Key Set, refreshed in the background.

Sources: RFC 7517 (JSON Web Key), OpenID Connect Discovery 1.0.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
import structlog

from app.base.errors import Unavailable
from app.base.json_scan import UNREADABLE_JSON
from app.base.single_flight import SingleFlight
from app.base.tasks import Tasks
from app.infra.settings.environment import is_loopback

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 300.0
PAUSE_SECONDS = 10.0
"""Minimum interval of fetches that an unknown key id causes, so that invented key ids cannot cause more."""

FETCH_SECONDS = 5.0
MAX_RESPONSE_BYTES = 1 << 20
"""Bytes of an issuer's response."""

FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Key type required by a signature algorithm, by the prefix of its name."""


class IssuerKey(NamedTuple):
    """A key, and the JSON Web Key that the issuer published."""

    parsed: jwt.PyJWK
    published: dict[str, Any]


class JwksCache:
    """The keys at ``url``, or at the ``jwks_uri`` of the ``issuer``'s discovery document. ``clock`` counts seconds."""

    def __init__(self, issuer: str, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._url = url
        self._clock = clock
        self._keys: list[IssuerKey] = []
        self._fetched = float("-inf")
        self._fetches: SingleFlight[str, None] = SingleFlight()
        self._tasks = Tasks("keyset")
        self.version = 0
        """Incremented whenever the keys change."""

    def start(self) -> None:
        """Start the periodic refresh."""
        self._tasks.repeat(self._refresh, REFRESH_SECONDS, name="refresh")

    async def aclose(self) -> None:
        """Stop the refresh."""
        await self._tasks.aclose()

    async def key(self, key_id: str | None, algorithm: str) -> Any:
        """Return the public key for a token's header, None if there is none. Raises ``Unavailable`` before the first
        successful fetch.
        """
        found = self._find(key_id, algorithm)
        if found is None and self._clock() - self._fetched > PAUSE_SECONDS:
            await self._fetches.run("keys", self._refresh, self._tasks)
            found = self._find(key_id, algorithm)
        if found is None and not self._keys:
            raise Unavailable("The token issuer is unreachable, so tokens cannot be verified. Try again.", 5.0)
        return found

    def _find(self, key_id: str | None, algorithm: str) -> Any:
        fitting = [key.parsed for key in self._keys if _fits(key, algorithm)]
        if key_id is None:
            return fitting[0].key if len(fitting) == 1 else None
        return next((key.key for key in fitting if key.key_id == key_id), None)

    async def _refresh(self) -> None:
        """Fetch the keys; on failure keep those that are cached."""
        try:
            keys = await self._fetch()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, *UNREADABLE_JSON) as error:
            reason = str(error) if type(error) is ValueError else ""
            log.warning("token_keys_unavailable", error=type(error).__name__, reason=reason, kept=len(self._keys))
            return
        finally:
            self._fetched = self._clock()
        if [key.published for key in keys] != [key.published for key in self._keys]:
            self._keys = keys
            self.version += 1

    async def _fetch(self) -> list[IssuerKey]:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            url = self._url
            if not url:
                discovery = await _json(session, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
                if discovery.get("issuer") != self._issuer:
                    raise ValueError("the discovery document names another issuer")
                url = str(discovery.get("jwks_uri"))
                if not _is_safe(url):
                    raise ValueError("jwks_uri has neither https nor a loopback address")
            found = await _json(session, url)
        keys = []
        listed = found.get("keys")
        for key in listed if isinstance(listed, list) else ():
            with contextlib.suppress(jwt.PyJWTError):  # an unsupported key type
                published = key if isinstance(key, dict) else {}
                keys.append(IssuerKey(jwt.PyJWK.from_dict(published), published))
        if not keys:
            raise ValueError("no usable key")
        return keys


def _is_safe(url: str) -> bool:
    """Whether ``url`` can be trusted: without TLS a man in the middle could replace the keys."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def _fits(key: IssuerKey, algorithm: str) -> bool:
    return (
        key.parsed.key_type == FAMILIES.get(algorithm[:2])
        and key.parsed.public_key_use in {None, "sig"}
        and key.published.get("alg") in {None, algorithm}
    )


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        body = await answer.content.read(MAX_RESPONSE_BYTES + 1)
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError("too large")
    return msgspec.json.decode(body, type=dict[str, Any])
