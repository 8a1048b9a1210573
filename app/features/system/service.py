"""Health of this process, from in-memory state."""

import importlib.metadata
import time
from functools import cache
from typing import Any, Protocol

from app.base.tasks import TaskWatchdog
from app.features.system.database_probe import DatabaseProbe
from app.features.system.readiness import Readiness
from app.features.system.structs import Health, Info
from app.infra.db.revisions import HEAD
from app.providers.llm.registry import ModelRegistry

FLAGS = {"assistants": True, "crons": True, "langsmith": False}


@cache
def version() -> str:
    """Return the version of the installed distribution."""
    return importlib.metadata.version("agent-service")


class OptionalRedis(Protocol):
    """A Redis that the service works without."""

    @property
    def trouble(self) -> str:
        """Return what is wrong, as a sentence; empty if nothing is."""
        ...


class DurableRedis(OptionalRedis, Protocol):
    """A Redis without eviction, which can become full.

    ``memory``: used bytes and the limit; 0 if unknown or unlimited.
    """

    memory: tuple[int, int]


class SystemService:
    """Health, readiness and liveness of one process.

    ``redis``: the transport to other processes, if configured; ``cache``: the shared cache; ``supervision``: the
    watchdog of essential tasks.
    """

    def __init__(
        self,
        prober: DatabaseProbe,
        readiness: Readiness,
        models: ModelRegistry,
        redis: OptionalRedis | None,
        supervision: TaskWatchdog,
        *,
        cache: OptionalRedis | None = None,
    ) -> None:
        self._prober = prober
        self._readiness = readiness
        self._models = models
        self._redis = redis
        self._cache = cache
        self._supervision = supervision

    def not_ready_reason(self) -> str:
        """Return why this process is not ready; empty if it is."""
        return self._supervision.trouble or self._readiness.not_ready_reason

    def stalled(self) -> str:
        """Return why this process must be replaced; empty while its essential tasks progress or await the database."""
        return self._supervision.trouble

    def health(self, *, details: bool) -> Health:
        """Return the health of every dependency: no database is unhealthy, a failing provider only degraded."""
        started_at = time.perf_counter()
        checks = {
            "llm": self._llm(),
            "checkpoint_db": self._database(),
            "redis": _service_state(self._redis),
            "cache": _service_state(self._cache),
            "workers": self._workers(),
        }
        statuses = {check["status"] for check in checks.values()}
        status = "unhealthy" if "unhealthy" in statuses else "degraded" if "degraded" in statuses else "healthy"
        if not details:
            return Health(status=status)
        latency = round((time.perf_counter() - started_at) * 1000, 3)
        return Health(status=status, checks=checks, latency_ms=latency, version=version())

    def info(self) -> Info:
        """Return version and features."""
        return Info(version=version(), flags=FLAGS)

    def _database(self) -> dict[str, Any]:
        state, trouble = self._prober.database_state, self._readiness.trouble
        check = {
            "status": "unhealthy" if trouble else "healthy",
            "latency_ms": state.latency_ms,
            "observed_at": state.observed_at,
        }
        if trouble:
            check["reason"] = trouble
        if state.lacking:
            check["migration"] = "lacks " + ", ".join(state.lacking)
        elif state.revision:
            check["migration"] = "head" if state.revision == HEAD else f"ahead: {state.revision}"
        return check

    def _llm(self) -> dict[str, Any]:
        """Return what requests and free probes have shown; latency and time are those of the last observed vendor."""
        vendors = self._models.health()
        status = "degraded" if any(vendor["status"] == "degraded" for vendor in vendors.values()) else "healthy"
        observed = [vendor for vendor in vendors.values() if vendor["observed_at"] is not None]
        last = max(observed, key=lambda one: one["observed_at"], default={"latency_ms": None, "observed_at": None})
        check = {"status": status, "latency_ms": last["latency_ms"], "observed_at": last["observed_at"]}
        if status == "degraded":
            failing = {name: vendor["error"] for name, vendor in vendors.items() if vendor["status"] == "degraded"}
            check["reason"] = ", ".join(f"{name}: {error}" for name, error in failing.items())
        return {**check, "vendors": vendors}

    def _workers(self) -> dict[str, Any]:
        phase = self._readiness.phase
        if self._supervision.trouble:
            return {"status": "unhealthy", "phase": phase, "reason": self._supervision.trouble}
        return {"status": "healthy" if phase == "ready" else "degraded", "phase": phase}


def _service_state(redis: OptionalRedis | None) -> dict[str, Any]:
    """Return the health of an optional Redis, at worst degraded: streams and cached values have a fallback."""
    if redis is None:
        return {"status": "not_configured"}
    if redis.trouble:
        return {"status": "degraded", "reason": redis.trouble}
    return {"status": "healthy"}
