"""HTTP client for addresses that users name: it connects only to checked addresses, with bounded time and size.

The check runs where the socket is created, on the very address it connects to, so DNS rebinding and unusual spellings
of an address do not get around it. No redirects, no proxies from the environment, no cookies.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp

from app.infra.egress.addresses import AddressAllowlist, RefusedAddress, host_of

CONNECT_SECONDS = 5.0
MAX_DIGITS = 9
MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of a response that are read; the rest is not awaited."""
NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL, RefusedAddress)
"""What is raised for a request that did not leave this machine."""
AWAY = frozenset({502, 503, 504})
"""What proxies answer for a server that is away: whether it got the request is not known."""


class EgressResponse(NamedTuple):
    """Status and body. ``retry_after``: seconds from the header ``Retry-After`` (RFC 9110, 10.2.3)."""

    status: int
    body: bytes
    retry_after: float | None = None


class EgressClient:
    """Calls addresses that users name. ``seconds`` is the timeout of a whole call.

    A connection serves one call, so that each call is checked.
    """

    def __init__(self, allowed: AddressAllowlist, seconds: float = 15.0, resolver: Any = None) -> None:
        self.allowed = allowed
        self._seconds = seconds
        self._resolver = resolver

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> EgressResponse:
        """POST ``body``. Raises ``ValueError`` for an invalid URL, ``OSError`` or ``aiohttp.ClientError`` on failure.

        ``RefusedAddress`` is an ``OSError``, and so is ``TimeoutError``.
        """
        async with asyncio.timeout(self._seconds):
            async with (
                checked_session(host_of(url), self.allowed, self._resolver, force_close=True) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                wait = seconds_of(response.headers.get("Retry-After", ""))
                return EgressResponse(response.status, await response.content.read(MAX_RESPONSE_BYTES), wait)


def checked_session(
    host: str, allowed: AddressAllowlist, resolver: Any = None, *, force_close: bool = False
) -> aiohttp.ClientSession:
    """Return a session for calls to ``host`` whose every connection goes to a checked address.

    With ``force_close`` a connection serves one call. Connecting raises ``RefusedAddress`` for a private address.
    """

    def open_checked(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, target = address
        if not allowed.host(host):
            allowed.check(target[0])
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    connector = aiohttp.TCPConnector(
        socket_factory=open_checked, resolver=resolver, force_close=force_close, use_dns_cache=False
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def seconds_of(text: str) -> float | None:
    """Parse ``Retry-After``, a number of seconds or a date; None if it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def failure_reason(error: BaseException) -> str:
    """Return why a request failed, in few words."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, OSError) and inner.errno and not isinstance(inner, socket.gaierror):
        return os.strerror(inner.errno)
    return str(inner) or type(inner).__name__
