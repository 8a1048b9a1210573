"""How things stand, on the meters: what alerts are made of and nobody counts by himself.

How large the database has become, and the parts of it that grow.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.features.system.database_probe import DatabaseProbe
from app.features.system.readiness import Readiness
from app.features.system.service import DurableRedis, OptionalRedis
from app.infra.db.engine import Database
from app.infra.secrets.rotating_secret import SecretStore
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import Meters
from app.providers.llm.registry import ModelRegistry
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import COST, STORAGE
from app.security.limits.storage_quota import StorageQuota

BUS, CACHE = "bus", "cache"
GIGABYTE = 1e9


class StatusSources(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. ``redis`` and ``cache`` are None where there is none."""

    settings: Settings
    models: ModelRegistry
    vault: SecretStore
    budgets: Budgets
    quota: StorageQuota
    redis: DurableRedis | None
    cache: OptionalRedis | None


class StatusCollector:
    """Sets the gauges of one worker; it asks nobody and waits for nothing."""

    def __init__(self, meters: Meters, prober: DatabaseProbe, readiness: Readiness, watched: StatusSources) -> None:
        self._meters = meters
        self._prober = prober
        self._readiness = readiness
        self._watched = watched
        objectives = watched.settings.objectives
        for name in ("availability", "first_token", "runs", "checkpoints"):
            meters.slo_target.set(getattr(objectives, name), name)
        meters.storage_limit.set(objectives.disk_gb * GIGABYTE)

    def sample(self) -> None:
        """Look now."""
        meters, state = self._meters, self._prober.database_state
        meters.uptime.set((time.time_ns() - meters.buffer.created_at) / 1e9)
        meters.workers_ready.set(0 if self._readiness.obstacle else 1)
        meters.migrations_lacking.set(len(state.lacking))
        meters.migrations_ahead.set(1 if self._prober.is_ahead else 0)
        for vendor, is_open in self._watched.models.breakers().items():
            meters.breaker_open.set(1 if is_open else 0, vendor)
        meters.budget_used.set(self._watched.budgets.fullest, COST)
        meters.budget_used.set(self._watched.quota.fullest, STORAGE)
        self._look_at_secrets()
        if (cache := self._watched.cache) is not None:
            meters.redis_connected.set(0 if cache.trouble else 1, CACHE)
        if (redis := self._watched.redis) is not None:
            meters.redis_connected.set(0 if redis.trouble else 1, BUS)
            for part, size in zip(("used", "limit"), redis.memory, strict=True):
                if size:
                    meters.redis_memory.set(size, part)

    def _look_at_secrets(self) -> None:
        vault, now = self._watched.vault, time.time()
        for name in vault.held:
            self._meters.secret_refused.set(1 if name in vault.refused else 0, name)
            path = self._watched.settings.secret_path(name)
            if path:
                with contextlib.suppress(OSError):  # it is gone: the vault has refused that already
                    self._meters.secret_age.set(max(0.0, now - Path(path).stat().st_mtime), name)


EVERY_SECONDS = 60.0

PARTS = {
    "checkpoints": "^checkpoint",
    "runs": "^(runs|steps|tool_intents)$",
    "transitions": "^run_transitions$",
    "records": "^(audit_log|idempotency_keys|webhook_deliveries)$",
    "events": "^(events|live_frames)$",
    "store": "^store_",
}
"""Patterns of the names of tables, which count with their indexes, by what they hold."""

_SIZES = """
select $1 as part, pg_database_size(current_database())::float8 as bytes
union all
select part, sum(pg_total_relation_size(c.oid))::float8
from unnest($2::text[], $3::text[]) as t (part, pattern)
join pg_class c on c.relname ~ pattern and c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace
group by part
"""


class StorageCollector:
    """Looks once a minute, however often it is asked to; every process sees the same. ``clock`` counts seconds."""

    def __init__(self, database: Database, meters: Meters, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._meters = meters
        self._clock = clock
        self._due = clock()

    async def refresh(self) -> None:
        """Look, if it is time."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + EVERY_SECONDS
        async with self._database.engine_connection() as connection:
            sizes = await connection.fetch(_SIZES, "database", list(PARTS), list(PARTS.values()))
        for row in sizes:
            self._meters.storage_size.set(row["bytes"], row["part"])
