"""Health, from what is known without asking anybody."""

import importlib.metadata
import time
from functools import cache
from typing import Any

import msgspec

from app.llm.registry import Registry
from app.system.prober import Prober
from app.system.state import Readiness
from app.system.structs import Health, Info


@cache
def version() -> str:
    """The version of the installed distribution."""
    return importlib.metadata.version("agent-service")


class SystemService:
    """What a process knows of itself."""

    def __init__(self, prober: Prober, readiness: Readiness, models: Registry, head: str) -> None:
        self._prober = prober
        self._readiness = readiness
        self._models = models
        self._head = head

    def obstacle(self) -> str:
        """Why this process is not ready; empty when it is."""
        return self._readiness.obstacle

    def health(self, *, details: bool) -> Health:
        """Every dependency. A dead database is unhealthy; a failing provider only degrades."""
        began = time.perf_counter()
        checks = {
            "llm": self._llm(),
            "checkpoint_db": self._database(),
            "redis": {"status": "not_configured"},
            "workers": {"status": "healthy" if not self._readiness.draining else "degraded"},
        }
        found = {check["status"] for check in checks.values()}
        status = "unhealthy" if "unhealthy" in found else "degraded" if "degraded" in found else "healthy"
        if not details:
            return Health(status=status)
        latency = round((time.perf_counter() - began) * 1000, 3)
        return Health(status=status, checks=checks, latency_ms=latency, version=version())

    def info(self) -> Info:
        """Version and features."""
        flags = {"assistants": True, "crons": False, "langsmith": False}
        return Info(version=version(), flags=flags, host={"kind": "self-hosted"})

    def _database(self) -> dict[str, Any]:
        state = self._prober.database_state
        migration = "head" if state.revision == self._head else state.revision or "unknown"
        return {
            "status": "healthy" if state.ok else "unhealthy",
            "latency_ms": state.latency_ms,
            "observed_at": state.observed_at,
            "migration": migration,
        }

    def _llm(self) -> dict[str, Any]:
        vendors = {name: msgspec.to_builtins(seen) for name, seen in self._models.health().items()}
        worst = "degraded" if any(v["status"] == "degraded" for v in vendors.values()) else "healthy"
        return {"status": worst, "vendors": vendors}
