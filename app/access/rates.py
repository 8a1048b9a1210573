"""Rates of requests: what a key and a tenant may ask for a minute, told in the headers of every answer.

Source: draft-ietf-httpapi-ratelimit-headers-10 (RateLimit and RateLimit-Policy).
"""

import math
from collections.abc import Sequence
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send

from app.access.structs import Principal
from app.base.errors import Limited
from app.limits.buckets import Take, Verdict
from app.limits.service import KEY, LLM, Limiter
from app.telemetry.meters import Meters
from app.web.proxies import Proxies

WORDS = {LLM: "This key may start {} runs a minute", KEY: "This key may make {} requests a minute"}
OTHER_WORDS = "This tenant may make {} requests a minute"


class Rates:
    """Litestar middleware behind the guard. Open routes are not limited; who has no key counts by its address."""

    def __init__(self, app: ASGIApp, limiter: Limiter, proxies: Proxies, meters: Meters) -> None:
        self._app = app
        self._limiter = limiter
        self._proxies = proxies
        self._rejected = meters.ratelimit_rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through. Raises ``Limited``; a request that is refused takes nothing."""
        opt = scope["route_handler"].opt
        principal: Principal | None = scope.get("user")
        if principal is None or opt.get("permission") is None:
            await self._app(scope, receive, send)
            return
        who = principal.key_id or principal.user_id or self._proxies.client(scope)
        takes = self._limiter.takes(principal.tenant_id, who, principal.limits, llm=opt.get("llm", False))
        if not takes:
            await self._app(scope, receive, send)
            return
        verdict = await self._limiter.take(takes)
        headers = headers_of(takes, verdict)
        if verdict.refused is not None:
            take = takes[verdict.refused]
            self._rejected.add(1, take.name)
            words = WORDS.get(take.name, OTHER_WORDS).format(int(take.limit))
            raise Limited(f"{words}: try again in {math.ceil(verdict.wait)} s.", verdict.wait, headers)

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, telling)


def headers_of(takes: Sequence[Take], verdict: Verdict) -> dict[str, str]:
    """What clients read: the policies, and of each what is left and in how many seconds it is whole again."""
    policies = ", ".join(f'"{take.name}";q={int(take.limit)};w={int(take.window)}' for take in takes)
    states = ", ".join(
        f'"{take.name}";r={int(left)};t={math.ceil(reset)}'
        for take, left, reset in zip(takes, verdict.left, verdict.reset, strict=True)
    )
    return {"RateLimit-Policy": policies, "RateLimit": states}
