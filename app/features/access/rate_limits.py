"""Rates of requests: what a key and a tenant may ask for a minute, told in the headers of every answer.

Source: draft-ietf-httpapi-ratelimit-headers-10 (RateLimit and RateLimit-Policy).
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from app.base.errors import Limited
from app.infra.http.client_address import TrustedProxies
from app.infra.telemetry.meters import Meters
from app.security.access.structs import WRITE, Principal
from app.security.limits.limiter import BYTES, KEY, LLM, Limiter
from app.security.limits.storage_quota import StorageQuota
from app.security.limits.token_buckets import BucketResult, BucketTake

WORDS = {
    LLM: "This key may start {} runs a minute",
    KEY: "This key may make {} requests a minute",
    BYTES: "This tenant may send {} bytes a minute",
}
_STARTS = "run_starts"
ADDING = frozenset({"POST", "PUT", "PATCH"})
"""Methods by which a client stores something, where the route does not say otherwise."""
OTHER_WORDS = "This tenant may make {} requests a minute"


class RateLimitMiddleware:
    """Litestar middleware behind the guard. Open routes are not limited; who has no key counts by its address."""

    def __init__(
        self, app: ASGIApp, limiter: Limiter, proxies: TrustedProxies, meters: Meters, quota: StorageQuota
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._quota = quota
        self._proxies = proxies
        self._rejected = meters.ratelimit_rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through. Raises ``Limited``; a request that is refused takes nothing."""
        opt = scope["route_handler"].opt
        principal: Principal | None = scope.get("user")
        if principal is None or opt.get("permission") is None:
            await self._app(scope, receive, send)
            return
        if opt["permission"] == WRITE and scope.get("method") in ADDING and opt.get("stores", True):
            self._quota.check(principal.tenant_id)
        subject = principal.key_id or principal.user_id or self._proxies.client(scope)
        takes = self._limiter.takes(principal.tenant_id, subject, principal.limits, llm=opt.get("llm", False))
        length = _length(scope)
        sized = self._limiter.take_bytes(principal.tenant_id, principal.limits, length or 0) if length != 0 else []
        takes += sized
        if not takes:
            await self._app(scope, receive, send)
            return
        verdict = await self._limiter.take(takes)
        headers = headers_of(takes, verdict)
        if takes[0].name == LLM:
            scope["state"][_STARTS] = RunRateLimit(self._limiter, takes, verdict, headers)
        if verdict.refused is not None:
            take = takes[verdict.refused]
            self._rejected.add(1, take.name)
            words = WORDS.get(take.name, OTHER_WORDS).format(int(take.limit))
            if take.weight > take.limit:
                raise Limited(f"{words}, and this one has {int(take.weight)}: send less.", verdict.wait, headers)
            raise Limited(f"{words}: try again in {math.ceil(verdict.wait)} s.", verdict.wait, headers)

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        if length is None and sized:
            receive = self._counting(receive, sized[0])
        await self._app(scope, receive, telling)

    def _counting(self, receive: Receive, one: BucketTake) -> Receive:
        """``receive`` of a body that does not say how long it is: each piece is charged when it has come."""

        async def counted() -> Any:
            message = await receive()
            body = message.get("body", b"")
            if isinstance(body, bytes) and (size := len(body)):
                await self._limiter.charge(msgspec.structs.replace(one, weight=size))
            return message

        return counted


class RunRateLimit:
    """The starts of runs that a request was counted for, and the ``headers`` of its answer."""

    def __init__(
        self, limiter: Limiter, takes: Sequence[BucketTake], verdict: BucketResult, headers: dict[str, str]
    ) -> None:
        self._limiter = limiter
        self._takes = takes
        self._verdict = verdict
        self._headers = headers

    async def add(self, count: int) -> None:
        """Count ``count`` starts more. Raises ``Limited``, and the request has taken nothing then."""
        one = self._takes[0]
        verdict = await self._limiter.take([msgspec.structs.replace(one, weight=count)])
        left, reset = (verdict.left[0], *self._verdict.left[1:]), (verdict.reset[0], *self._verdict.reset[1:])
        self._headers.update(headers_of(self._takes, BucketResult(left, reset)))
        if verdict.refused is None:
            return
        await self._limiter.charge(msgspec.structs.replace(one, weight=-one.weight))
        self._limiter.rejected(one.name)
        total = count + int(one.weight)
        advice = "send it in parts" if total > one.limit else f"try again in {math.ceil(verdict.wait)} s"
        words = WORDS[LLM].format(int(one.limit))
        raise Limited(f"{words}, and this request has {total}: {advice}.", verdict.wait, self._headers)


async def count_runs(scope: Scope, count: int) -> None:
    """Count a request that starts ``count`` runs as so many. Raises ``Limited``."""
    starts: RunRateLimit | None = scope["state"].get(_STARTS)
    if starts is not None and count > 1:
        await starts.add(count - 1)


def _length(scope: Scope) -> int | None:
    """The bytes of the body, None if the request does not say."""
    chunked = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
        chunked = chunked or name == b"transfer-encoding"
    return None if chunked else 0


def headers_of(takes: Sequence[BucketTake], verdict: BucketResult) -> dict[str, str]:
    """What clients read: the policies, and of each what is left and in how many seconds it is whole again."""
    policies = ", ".join(f'"{take.name}";q={int(take.limit)};w={int(take.window)}' for take in takes)
    states = ", ".join(
        f'"{take.name}";r={int(left)};t={math.ceil(reset)}'
        for take, left, reset in zip(takes, verdict.left, verdict.reset, strict=True)
    )
    return {"RateLimit-Policy": policies, "RateLimit": states}
