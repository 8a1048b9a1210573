"""What a tenant may use: requests, tokens, dollars, bytes."""

import msgspec

from app.base.ids import new_id
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import Meters
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices
from app.security.limits.storage_quota import StorageQuota
from app.server.composition.models import AgentRuntime
from app.server.composition.persistence import Persistence


class Limits(msgspec.Struct, frozen=True):
    """``limiter`` bounds rates, ``budgets`` what models cost, ``quota`` the bytes stored."""

    limiter: Limiter
    budgets: Budgets
    quota: StorageQuota


def build_limits(settings: Settings, persistence: Persistence, agents: AgentRuntime, meters: Meters) -> Limits:
    """Build the limits. Embeddings are charged to the budgets from then on."""
    limiter = Limiter(settings.limits, share=1 / settings.server.workers)
    if settings.redis.url is not None:
        from app.security.limits.redis_buckets import SharedBuckets

        limiter = Limiter(settings.limits, SharedBuckets(persistence.secrets.rotating("REDIS_URL").good, str(new_id())))
    limiter.rejected = lambda name: meters.ratelimit_rejected.add(1, name)
    prices = Prices(settings.limits.prices)
    budgets = Budgets(persistence.database, limiter, prices, agents.catalog.model_of, meters)
    agents.models.charge_to = budgets.charge
    agents.memory.store.indexing.admit = budgets.admit
    return Limits(limiter, budgets, StorageQuota(persistence.database, limiter))
