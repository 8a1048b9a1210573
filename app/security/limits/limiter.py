"""How much of everything a key and a tenant may use: the settings, or a tenant's own limits in their place."""

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
"""The name of the limit on requests that start runs, a key."""
CRONS = "crons"
"""Who starts the runs of a tenant's crons."""
BYTES = "bytes"
"""The name of the limit on the bytes of request bodies, a tenant."""
KEY = "key"
TENANT = "tenant"
TOKENS = "tokens"
COST = "cost"
RUNS = "runs"
QUEUED = "queued"
STORAGE = "storage"
"""The name of the limit on the bytes that a tenant stores."""


class Limiter:
    """Buckets of all processes while Redis answers; this process's share of them when it does not, or without one.

    ``share``: the part of a limit that is this process's own where nobody counts processes. ``clock`` counts seconds.
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
        """Told of each refusal: the name of the limit."""

    def start(self) -> None:
        """Begin to work with others."""
        if self._shared is not None:
            self._shared.start()

    async def aclose(self) -> None:
        """Stop."""
        if self._shared is not None:
            await self._shared.aclose()

    def takes(self, tenant_id: UUID, subject: str, own: TenantLimits, *, llm: bool) -> list[BucketTake]:
        """What one request of ``subject`` in the tenant takes; ``llm``: it starts runs. Empty where nothing is
        limited.
        """
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
        """What a body of ``count`` bytes takes. Empty where bytes are not limited."""
        rate = self.limit(own, "bytes_per_minute")
        return [BucketTake(BYTES, f"{BYTES}:{tenant_id}", rate, weight=count)] if rate else []

    async def take_runs(self, tenant_id: UUID, subject: str, own: TenantLimits, count: int) -> BucketResult | None:
        """Take ``count`` starts of runs of ``subject``, all or none. None where they are not limited."""
        rate = self.limit(own, "rate_per_minute")
        return (
            None if not rate else await self.take([BucketTake(LLM, f"{LLM}:{tenant_id}:{subject}", rate, weight=count)])
        )

    def limit(self, own: TenantLimits, name: str) -> Any:
        """The tenant's own limit ``name``, or that of the settings; 0 is none."""
        value = getattr(own, name)
        return getattr(self.settings, name) if value is None else value

    async def take(self, takes: Sequence[BucketTake]) -> BucketResult:
        """Take all or nothing."""
        if self._shared is not None:
            verdict = await self._shared.take(takes)
            if verdict is not None:
                return verdict
        return self._local.take(takes, self._part())

    async def charge(self, one: BucketTake) -> None:
        """Take what was used already, or give back what was not (a negative weight)."""
        if self._shared is None or await self._shared.take([one], force=True) is None:
            self._local.charge(one, self._part())

    def _part(self) -> float:
        return self._share if self._shared is None else 1 / self._shared.processes
