"""Health, from what is known without asking anybody."""

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
    """The version of the installed distribution."""
    return importlib.metadata.version("agent-service")


class OptionalRedis(Protocol):
    """A Redis, without which the service still works."""

    @property
    def trouble(self) -> str:
        """What is wrong, in a sentence; empty when nothing is."""
        ...


class DurableRedis(OptionalRedis, Protocol):
    """One that evicts nothing, so that it may be full.

    ``memory`` are the bytes that it uses, and those it may use; 0: nobody knows, or no limit.
    """

    memory: tuple[int, int]


class SystemService:
    """What a process knows of itself.

    ``redis`` is its way to other processes, if it has one, and ``cache`` what it shares with them; ``supervision``
    knows whether its essential tasks make progress.
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

    def obstacle(self) -> str:
        """Why this process is not ready; empty when it is."""
        return self._supervision.trouble or self._readiness.obstacle

    def stalled(self) -> str:
        """Why this process has to be replaced; empty while its essential tasks move, or wait for the database."""
        return self._supervision.trouble

    def health(self, *, details: bool) -> Health:
        """Every dependency. A dead database is unhealthy; a failing provider only degrades."""
        began = time.perf_counter()
        checks = {
            "llm": self._llm(),
            "checkpoint_db": self._database(),
            "redis": _service_state(self._redis),
            "cache": _service_state(self._cache),
            "workers": self._workers(),
        }
        found = {check["status"] for check in checks.values()}
        status = "unhealthy" if "unhealthy" in found else "degraded" if "degraded" in found else "healthy"
        if not details:
            return Health(status=status)
        latency = round((time.perf_counter() - began) * 1000, 3)
        return Health(status=status, checks=checks, latency_ms=latency, version=version())

    def info(self) -> Info:
        """Version and features."""
        return Info(version=version(), flags=FLAGS)

    def _database(self) -> dict[str, Any]:
        state, trouble = self._prober.database_state, self._readiness.trouble
        known = {
            "status": "unhealthy" if trouble else "healthy",
            "latency_ms": state.latency_ms,
            "observed_at": state.observed_at,
        }
        if trouble:
            known["reason"] = trouble
        if state.lacking:
            known["migration"] = "lacks " + ", ".join(state.lacking)
        elif state.revision:
            known["migration"] = "head" if state.revision == HEAD else f"ahead: {state.revision}"
        return known

    def _llm(self) -> dict[str, Any]:
        """What traffic and free look-ups have shown; the times are those of the vendor heard of last."""
        vendors = self._models.health()
        worst = "degraded" if any(seen["status"] == "degraded" for seen in vendors.values()) else "healthy"
        observed = [seen for seen in vendors.values() if seen["observed_at"] is not None]
        last = max(observed, key=lambda seen: seen["observed_at"], default={"latency_ms": None, "observed_at": None})
        known = {"status": worst, "latency_ms": last["latency_ms"], "observed_at": last["observed_at"]}
        if worst == "degraded":
            failing = {name: seen["error"] for name, seen in vendors.items() if seen["status"] == "degraded"}
            known["reason"] = ", ".join(f"{name}: {error}" for name, error in failing.items())
        return {**known, "vendors": vendors}

    def _workers(self) -> dict[str, Any]:
        phase = self._readiness.phase
        if self._supervision.trouble:
            return {"status": "unhealthy", "phase": phase, "reason": self._supervision.trouble}
        return {"status": "healthy" if phase == "ready" else "degraded", "phase": phase}


def _service_state(dispensable: OptionalRedis | None) -> dict[str, Any]:
    """What can be done without is never more than degraded: streams go another way, what was cached is made anew."""
    if dispensable is None:
        return {"status": "not_configured"}
    if dispensable.trouble:
        return {"status": "degraded", "reason": dispensable.trouble}
    return {"status": "healthy"}
