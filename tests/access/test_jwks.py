"""The cached keys of an issuer: when they are fetched, by whom, and for whom."""

import asyncio

import pytest

from app.base.errors import Unavailable
from app.security.access import jwks
from app.security.access.jwks import JwksCache
from tests.access.clock import Clock
from tests.access.issuer import RSA, Issuer, jwk


async def test_a_caller_that_leaves_does_not_end_the_fetch_for_the_others(clock: Clock) -> None:
    async with Issuer() as issuer:
        issuer.open.clear()
        keys = JwksCache(issuer.url, "", clock)
        first, second = (asyncio.ensure_future(keys.key("rsa", "RS256")) for _ in range(2))
        async with asyncio.timeout(20):
            while not issuer.asked:  # noqa: ASYNC110  the issuer counts, it signals nothing
                await asyncio.sleep(0.005)
            first.cancel()
            await asyncio.wait([first])
            issuer.open.set()
            assert await second is not None
        assert issuer.asked == 1
        await keys.aclose()


async def test_unknown_keys_are_looked_up_again_only_after_a_pause(clock: Clock) -> None:
    async with Issuer() as issuer:
        keys = JwksCache(issuer.url, "", clock)
        issuer.down = True
        with pytest.raises(Unavailable):
            await keys.key("rsa", "RS256")
        issuer.down = False
        with pytest.raises(Unavailable):
            await keys.key("rsa", "RS256")
        clock.seconds += jwks.PAUSE_SECONDS + 1
        assert await keys.key("rsa", "RS256") is not None
        issuer.keys = [jwk(RSA["next"], "next")]
        assert await keys.key("next", "RS256") is None
        clock.seconds += jwks.PAUSE_SECONDS + 1
        assert await keys.key("next", "RS256") is not None
        assert keys.version == 2
        await keys.aclose()
