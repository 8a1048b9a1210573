"""The one HTTP client for what users name: it dials only addresses that were checked, and takes no more than it may.

The check stands where a socket is made, with the very address it will be connected to: no name can resolve to something
else in between, and it does not matter how an address was written. No redirects, no proxies from the environment, no
cookies; time and size are bounded.
"""

import asyncio
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp

from app.infra.egress.addresses import AddressAllowlist, host_of

CONNECT_SECONDS = 5.0
MAX_DIGITS = 9
MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of an answer that are read; what follows is not waited for."""


class EgressResponse(NamedTuple):
    """What came back. ``retry_after``: the seconds that its header of this name asks to wait (RFC 9110, 10.2.3)."""

    status: int
    body: bytes
    retry_after: float | None = None


class EgressClient:
    """Calls to addresses that users name. ``seconds`` bounds a call as a whole.

    A connection serves one call, so that each call is checked.
    """

    def __init__(self, allowed: AddressAllowlist, seconds: float = 15.0, resolver: Any = None) -> None:
        self.allowed = allowed
        self._seconds = seconds
        self._resolver = resolver

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> EgressResponse:
        """POST ``body``. Raises ``ValueError`` for a bad URL, ``OSError`` or ``aiohttp.ClientError`` when it fails.

        ``RefusedAddress`` is an ``OSError``, and so is ``TimeoutError``.
        """
        host = host_of(url)

        def checked(address: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, where = address
            if not self.allowed.host(host):
                self.allowed.check(where[0])
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        connector = aiohttp.TCPConnector(
            socket_factory=checked, resolver=self._resolver, force_close=True, use_dns_cache=False
        )
        async with asyncio.timeout(self._seconds):
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,
                ) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                wait = seconds_of(response.headers.get("Retry-After", ""))
                return EgressResponse(response.status, await response.content.read(MAX_RESPONSE_BYTES), wait)


def seconds_of(text: str) -> float | None:
    """The seconds that a ``Retry-After`` asks to wait: a number of them, or a date; None for neither."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
