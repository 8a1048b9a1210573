"""Limits per key and tenant: the settings, or a tenant's own limits in their place."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.infra.settings import LimitSettings
from app.security.limits.structs import TenantLimits
from app.security.limits.token_buckets import BucketResult, BucketTake, LocalBuckets

if TYPE_CHECKING:  # loads Redis, and with it the OpenTelemetry SDK: 40 MB
    from app.security.limits.redis_buckets import SharedBuckets

LLM = "llm"
"""Limit on requests that start runs, per key."""
CRONS = "crons"
"""Subject of the runs that a tenant's crons start."""
BYTES = "bytes"
"""Limit on the bytes of request bodies, per tenant."""
KEY = "key"
TENANT = "tenant"
TOKENS = "tokens"
COST = "cost"
RUNS = "runs"
QUEUED = "queued"
STORAGE = "storage"
"""Limit on stored bytes, per tenant."""


class Limiter:
    """Rate limiter: buckets shared by all processes while Redis answers, else this process's share of them.

    ``share``: the part of a limit for this process if processes are not counted. ``clock`` counts seconds.
    """

    def __init__(
        self,
        settings: LimitSettings,
        shared: "SharedBuckets | None" = None,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._shared = shared
        self._share = share
        self._local = LocalBuckets(clock)
        self.rejected: Callable[[str], None] = lambda _: None
        """Called with the name of the limit for each rejection."""

    def start(self) -> None:
        """Start counting processes, if buckets are shared."""
        if self._shared is not None:
            self._shared.start()

    async def aclose(self) -> None:
        """Close the connection to Redis, if there is one."""
        if self._shared is not None:
            await self._shared.aclose()

    def takes(self, tenant_id: UUID, subject: str, own: TenantLimits, *, llm: bool) -> list[BucketTake]:
        """Return what one request of ``subject`` takes; ``llm``: it starts runs. Empty if nothing is limited."""
        takes = []
        rate = self.limit(own, "rate_per_minute") if llm else 0
        if rate:
            takes.append(BucketTake(LLM, f"{LLM}:{tenant_id}:{subject}", rate))
        if rate := self.limit(own, "requests_per_minute"):
            takes.append(BucketTake(KEY, f"{KEY}:{tenant_id}:{subject}", rate))
        if rate := self.limit(own, "tenant_requests_per_minute"):
            takes.append(BucketTake(TENANT, f"{TENANT}:{tenant_id}", rate))
        return takes

    def take_bytes(self, tenant_id: UUID, own: TenantLimits, count: int) -> list[BucketTake]:
        """Return what a body of ``count`` bytes takes. Empty if bytes are not limited."""
        rate = self.limit(own, "bytes_per_minute")
        return [BucketTake(BYTES, f"{BYTES}:{tenant_id}", rate, weight=count)] if rate else []

    async def take_runs(self, tenant_id: UUID, subject: str, own: TenantLimits, count: int) -> BucketResult | None:
        """Take ``count`` run starts of ``subject``, all or none. None if they are not limited."""
        rate = self.limit(own, "rate_per_minute")
        return (
            None if not rate else await self.take([BucketTake(LLM, f"{LLM}:{tenant_id}:{subject}", rate, weight=count)])
        )

    def limit(self, own: TenantLimits, name: str) -> Any:
        """Return the tenant's own limit ``name``, or that of the settings; 0: unlimited."""
        value = getattr(own, name)
        return getattr(self.settings, name) if value is None else value

    async def take(self, takes: Sequence[BucketTake]) -> BucketResult:
        """Take from all buckets or from none."""
        if self._shared is not None:
            verdict = await self._shared.take(takes)
            if verdict is not None:
                return verdict
        return self._local.take(takes, self._part())

    async def charge(self, one: BucketTake) -> None:
        """Take what is used already, or give back what was not (a negative weight)."""
        if self._shared is None or await self._shared.take([one], force=True) is None:
            self._local.charge(one, self._part())

    def _part(self) -> float:
        return self._share if self._shared is None else 1 / self._shared.processes
