"""Collect gauges that no request updates: the status of a worker and the size of the database."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.features.system import queries
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

COLLECT_INTERVAL = 60.0


class StatusSources(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a worker to sample. ``redis`` and ``cache`` are None if not configured."""

    settings: Settings
    models: ModelRegistry
    secrets: SecretStore
    budgets: Budgets
    quota: StorageQuota
    redis: DurableRedis | None
    cache: OptionalRedis | None


class StatusCollector:
    """Sets one worker's gauges from in-memory state; does no I/O."""

    def __init__(self, meters: Meters, prober: DatabaseProbe, readiness: Readiness, sources: StatusSources) -> None:
        self._meters = meters
        self._prober = prober
        self._readiness = readiness
        self._sources = sources
        objectives = sources.settings.objectives
        for name in ("availability", "first_token", "runs", "checkpoints"):
            meters.slo_target.set(getattr(objectives, name), name)
        meters.storage_limit.set(objectives.disk_gb * GIGABYTE)

    def sample(self) -> None:
        """Set all gauges."""
        meters, state, sources = self._meters, self._prober.database_state, self._sources
        meters.uptime.set((time.time_ns() - meters.buffer.created_at) / 1e9)
        meters.workers_ready.set(0 if self._readiness.not_ready_reason else 1)
        meters.migrations_lacking.set(len(state.lacking))
        meters.migrations_ahead.set(1 if self._prober.is_ahead else 0)
        for vendor, is_open in sources.models.breakers().items():
            meters.breaker_open.set(1 if is_open else 0, vendor)
        meters.budget_used.set(sources.budgets.highest_usage, COST)
        meters.budget_used.set(sources.quota.highest_usage, STORAGE)
        self._sample_secrets()
        if (cache := sources.cache) is not None:
            meters.redis_connected.set(0 if cache.trouble else 1, CACHE)
        if (redis := sources.redis) is not None:
            meters.redis_connected.set(0 if redis.trouble else 1, BUS)
            for part, size in zip(("used", "limit"), redis.memory, strict=True):
                if size:
                    meters.redis_memory.set(size, part)

    def _sample_secrets(self) -> None:
        secrets, now = self._sources.secrets, time.time()
        for name in secrets.held:
            self._meters.secret_refused.set(1 if name in secrets.refused else 0, name)
            path = self._sources.settings.secret_path(name)
            if path:
                with contextlib.suppress(OSError):  # a missing file is already reported as refused
                    self._meters.secret_age.set(max(0.0, now - Path(path).stat().st_mtime), name)


TABLES_BY_PART = {
    "checkpoints": "^checkpoint",
    "runs": "^(runs|steps|tool_intents)$",
    "transitions": "^run_transitions$",
    "records": "^(audit_log|idempotency_keys|webhook_deliveries|push_configs|push_deliveries|mcp_accounts)$",
    "events": "^(events|live_frames)$",
    "store": "^store_",
}
"""Patterns of table names by part; sizes include indexes."""


class StorageCollector:
    """Measures the database at most once per ``COLLECT_INTERVAL``. ``clock`` returns seconds."""

    def __init__(self, database: Database, meters: Meters, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._meters = meters
        self._clock = clock
        self._due = clock()

    async def refresh(self) -> None:
        """Set the size gauges if the interval has passed."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + COLLECT_INTERVAL
        parts, patterns = list(TABLES_BY_PART), list(TABLES_BY_PART.values())
        async with self._database.engine_connection() as connection:
            sizes = await connection.fetch(queries.SIZES, "database", parts, patterns)
        for row in sizes:
            self._meters.storage_size.set(row["bytes"], row["part"])
