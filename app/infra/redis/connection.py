"""The address and password of Redis, rotated at runtime once Redis accepts the new ones."""

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
"""Timeout of a request."""
LOOK_SECONDS = 5.0
"""Interval of the check for a rotated address."""

FAILURES = (RedisError, OSError, TimeoutError, EOFError, ValueError, TypeError, LookupError, AttributeError)
"""What redis-py raises without Redis, and for answers that it cannot parse: what they hold is as good as lost."""

Urls = Callable[[], Sequence[Secret]]
"""Returns the addresses that are valid now, the newest first."""


def opened(url: Secret, **options: Any) -> Redis:
    """Create a client without retries and with short timeouts; redis-py retries ten times by default."""
    limits: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": SECONDS}
    return Redis.from_url(url.reveal(), **{"socket_timeout": SECONDS, **limits, **options})


class RedisAddress:
    """The address in use. A password may be rotated in Redis and in this program in either order."""

    def __init__(self, url: Secret | Urls) -> None:
        self._urls: Urls = (lambda: [url]) if isinstance(url, Secret) else url
        self.now = self._urls()[0]
        self._waiting = False

    async def moved(self) -> bool:
        """Switch to the newest address if Redis answers there; return whether it did. Until then keep the old one."""
        newest = self._urls()[0]
        if newest == self.now:
            return False
        client = opened(newest)
        try:
            async with asyncio.timeout(SECONDS):
                await client.ping()
        except FAILURES as error:
            if not self._waiting:
                log.warning(
                    "redis_address_waits", error=type(error).__name__, detail="the previous address stays in use"
                )
            self._waiting = True
            return False
        finally:
            with contextlib.suppress(*FAILURES):
                await client.aclose()
        self.now, self._waiting = newest, False
        log.info("redis_address_changed")
        return True
