"""Where Redis is and by which password: changed while the program runs, once Redis answers to what is new."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.infra.secrets.secret import Secret

log = structlog.get_logger(__name__)

SECONDS = 0.25
"""What an answer may take."""
LOOK_SECONDS = 5.0
"""How often a new address is looked for."""

FAILURES = (RedisError, OSError, TimeoutError)

Urls = Callable[[], Sequence[Secret]]
"""Gives the addresses that are good now, the newest first."""


def opened(url: Secret, **options: Any) -> Redis:
    """A client that tries once and not for long: redis-py would try ten times over."""
    calm: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": SECONDS}
    return Redis.from_url(url.reveal(), **{"socket_timeout": SECONDS, **calm, **options})


class RedisAddress:
    """The address in use. Whoever rotates a password may tell Redis and this program in either order."""

    def __init__(self, url: Secret | Urls) -> None:
        self._urls: Urls = (lambda: [url]) if isinstance(url, Secret) else url
        self.now = self._urls()[0]
        self._waiting = False

    async def moved(self) -> bool:
        """Whether ``now`` is another address, at which Redis answers. Until it does the one before goes on."""
        newest = self._urls()[0]
        if newest == self.now:
            return False
        client = opened(newest)
        try:
            async with asyncio.timeout(SECONDS):
                await client.ping()
        except FAILURES as error:
            if not self._waiting:
                log.warning("redis_address_waits", error=type(error).__name__, detail="the one before goes on")
            self._waiting = True
            return False
        finally:
            with contextlib.suppress(*FAILURES):
                await client.aclose()
        self.now, self._waiting = newest, False
        log.info("redis_address_changed")
        return True
