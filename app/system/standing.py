"""How things stand, on the meters: what alerts are made of and nobody counts by himself."""

import contextlib
import time
from pathlib import Path

import msgspec

from app.limits.budgets import Budgets
from app.limits.service import COST, STORAGE
from app.limits.storage import StorageQuota
from app.llm.registry import Registry
from app.secrets.ring import Vault
from app.settings import Settings
from app.system.prober import Prober
from app.system.service import Dispensable, Lossless
from app.system.state import Readiness
from app.telemetry.meters import Meters

BUS, CACHE = "bus", "cache"
GIGABYTE = 1e9


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at. ``redis`` and ``cache`` are None where there is none."""

    settings: Settings
    models: Registry
    vault: Vault
    budgets: Budgets
    quota: StorageQuota
    redis: Lossless | None
    cache: Dispensable | None


class Standing:
    """Sets the gauges of one worker; it asks nobody and waits for nothing."""

    def __init__(self, meters: Meters, prober: Prober, readiness: Readiness, watched: Watched) -> None:
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
        meters.uptime.set((time.time_ns() - meters.board.began) / 1e9)
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
