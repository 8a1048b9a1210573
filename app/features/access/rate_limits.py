"""Rate limits per key and tenant, reported in the headers of every response.

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

MESSAGES = {
    LLM: "This key may start {} runs a minute",
    KEY: "This key may make {} requests a minute",
    BYTES: "This tenant may send {} bytes a minute",
}
_STARTS = "run_starts"
STORING_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Methods that store something, unless the route declares otherwise."""
TENANT_MESSAGE = "This tenant may make {} requests a minute"


class RateLimitMiddleware:
    """Litestar middleware behind the guard. Open routes are not limited; a client without a key counts by address."""

    def __init__(
        self, app: ASGIApp, limiter: Limiter, proxies: TrustedProxies, meters: Meters, quota: StorageQuota
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._quota = quota
        self._proxies = proxies
        self._rejected = meters.ratelimit_rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on. Raises ``Limited``; a refused request takes no tokens."""
        opt = scope["route_handler"].opt
        principal: Principal | None = scope.get("user")
        if principal is None or opt.get("permission") is None:
            await self._app(scope, receive, send)
            return
        if opt["permission"] == WRITE and scope.get("method") in STORING_METHODS and opt.get("stores", True):
            self._quota.check(principal.tenant_id)
        subject = principal.key_id or principal.user_id or self._proxies.client(scope)
        if opt.get("llm_by_message"):
            scope["state"][_STARTS] = LaterRunStart(self._limiter, self._quota, principal, subject)
        takes = self._limiter.takes(principal.tenant_id, subject, principal.limits, llm=opt.get("llm", False))
        length = _content_length(scope)
        bytes_takes = []
        if length != 0:
            bytes_takes = self._limiter.take_bytes(principal.tenant_id, principal.limits, length or 0)
        takes += bytes_takes
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
            limit = MESSAGES.get(take.name, TENANT_MESSAGE).format(int(take.limit))
            if take.weight > take.limit:
                raise Limited(f"{limit}, and this one has {int(take.weight)}: send less.", verdict.wait, headers)
            raise Limited(f"{limit}: try again in {math.ceil(verdict.wait)} s.", verdict.wait, headers)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        if length is None and bytes_takes:
            receive = self._charging(receive, bytes_takes[0])
        await self._app(scope, receive, send_with_headers)

    def _charging(self, receive: Receive, take: BucketTake) -> Receive:
        """Wrap ``receive`` of a body without a length: charge each part as it arrives."""

        async def charged() -> Any:
            message = await receive()
            body = message.get("body", b"")
            if isinstance(body, bytes) and (size := len(body)):
                await self._limiter.charge(msgspec.structs.replace(take, weight=size))
            return message

        return charged


class RunRateLimit:
    """The run starts that a request has taken from the limiter, and the ``headers`` of its response."""

    def __init__(
        self, limiter: Limiter, takes: Sequence[BucketTake], verdict: BucketResult, headers: dict[str, str]
    ) -> None:
        self._limiter = limiter
        self._takes = takes
        self._verdict = verdict
        self._headers = headers

    async def add(self, count: int) -> None:
        """Take ``count`` more starts. Raises ``Limited``, and returns what the request has taken before."""
        take = self._takes[0]
        verdict = await self._limiter.take([msgspec.structs.replace(take, weight=count)])
        left, reset = (verdict.left[0], *self._verdict.left[1:]), (verdict.reset[0], *self._verdict.reset[1:])
        self._headers.update(headers_of(self._takes, BucketResult(left, reset)))
        if verdict.refused is None:
            return
        await self._limiter.charge(msgspec.structs.replace(take, weight=-take.weight))
        self._limiter.rejected(take.name)
        total = count + int(take.weight)
        advice = "send it in parts" if total > take.limit else f"try again in {math.ceil(verdict.wait)} s"
        limit = MESSAGES[LLM].format(int(take.limit))
        raise Limited(f"{limit}, and this request has {total}: {advice}.", verdict.wait, self._headers)


class LaterRunStart:
    """Takes run starts of a request once its message is known to start them."""

    def __init__(self, limiter: Limiter, quota: StorageQuota, principal: Principal, subject: str) -> None:
        self._limiter = limiter
        self._quota = quota
        self._principal = principal
        self._subject = subject

    async def take(self) -> None:
        """Take one start. Raises ``Limited``, also if the tenant's storage is full."""
        principal = self._principal
        self._quota.check(principal.tenant_id)
        verdict = await self._limiter.take_runs(principal.tenant_id, self._subject, principal.limits, 1)
        if verdict is None or verdict.refused is None:
            return
        self._limiter.rejected(LLM)
        limit = MESSAGES[LLM].format(int(self._limiter.limit(principal.limits, "rate_per_minute")))
        raise Limited(f"{limit}: try again in {math.ceil(verdict.wait)} s.", verdict.wait)


async def count_run(scope: Scope) -> None:
    """Count a run start of a request whose route counts ``BY_MESSAGE``. Raises ``Limited``."""
    start: LaterRunStart | None = scope["state"].get(_STARTS)
    if start is not None:
        await start.take()


async def count_runs(scope: Scope, count: int) -> None:
    """Count ``count`` run starts for one request. Raises ``Limited``."""
    starts: RunRateLimit | None = scope["state"].get(_STARTS)
    if starts is not None and count > 1:
        await starts.add(count - 1)


def _content_length(scope: Scope) -> int | None:
    """Return the bytes of the body; None if it is chunked."""
    chunked = False
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
        chunked = chunked or name == b"transfer-encoding"
    return None if chunked else 0


def headers_of(takes: Sequence[BucketTake], verdict: BucketResult) -> dict[str, str]:
    """Return the headers RateLimit-Policy and RateLimit: quota, remaining tokens and seconds until they are full."""
    policies = ", ".join(f'"{take.name}";q={int(take.limit)};w={int(take.window)}' for take in takes)
    states = ", ".join(
        f'"{take.name}";r={int(left)};t={math.ceil(reset)}'
        for take, left, reset in zip(takes, verdict.left, verdict.reset, strict=True)
    )
    return {"RateLimit-Policy": policies, "RateLimit": states}
