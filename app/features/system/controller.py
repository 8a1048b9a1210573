"""HTTP routes of health, readiness, liveness, information, metrics, and the administration of secrets."""

from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency

from app.features.access.guard import ADMINISTERS, OPEN, OPEN_SHOWS_MORE, may
from app.features.system.service import SystemService
from app.features.system.structs import Health, Info
from app.infra.secrets.rotating_secret import SecretStore
from app.infra.telemetry.prometheus_page import MetricsPage
from app.security.access.structs import MONITOR, Reloaded

Service = NamedDependency[SystemService]


class SystemController(Controller):
    """Health and information; no key needed."""

    tags = ("system",)
    opt = OPEN

    @get("/ok", summary="Whether the process answers")
    async def ok(self) -> dict[str, bool]:
        """Return 200 without checking anything."""
        return {"ok": True}

    @get("/info", summary="Version and features")
    async def info(self, system: Service) -> Info:
        """Return what clients need to adapt to the server."""
        return system.info()

    @get("/health", summary="Every dependency", opt=OPEN_SHOWS_MORE)
    async def health(self, request: Request[Any, Any, Any], system: Service) -> Response[Health]:
        """Return 200 if the service works (healthy or degraded), 503 if not.

        Details need a key with the scope `monitor`.
        """
        health = system.health(details=may(request, MONITOR))
        return Response(health, status_code=503 if health.status == "unhealthy" else 200)

    @get("/health/ready", summary="Whether to send requests here")
    async def ready(self, system: Service) -> Response[dict[str, str]]:
        """Return 503 while starting, draining or without the database."""
        reason = system.not_ready_reason()
        if reason:
            return Response({"status": "not ready", "reason": reason}, status_code=503)
        return Response({"status": "ready"})

    @get("/health/live", summary="Whether the process lives")
    async def live(self, system: Service) -> Response[dict[str, str]]:
        """Return 503 if an essential task is stuck although the database works. Checks no dependency."""
        reason = system.stalled()
        if reason:
            return Response({"status": "stalled", "reason": reason}, status_code=503)
        return Response({"status": "alive"})


class MetricsController(Controller):
    """Metrics, at ``/metrics`` outside the base path."""

    tags = ("system",)
    opt = OPEN

    @get("/metrics", summary="Metrics for Prometheus", include_in_schema=False)
    async def metrics(
        self, request: Request[Any, Any, Any], metrics_page: NamedDependency[MetricsPage]
    ) -> Response[bytes]:
        """Return Prometheus text, or OpenMetrics if ``Accept`` asks for it."""
        body, content_type = await metrics_page.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})  # ``media_type`` would append a second charset


class AccessController(Controller):
    """Administration of the service's secrets."""

    path = "/admin"
    tags = ("access",)
    opt = ADMINISTERS

    @post("/secrets/reload", status_code=200, summary="Reload the secrets")
    async def reload(self, secrets: NamedDependency[SecretStore]) -> Reloaded:
        """Reload the secrets of this process now; every process polls its files every five seconds."""
        return Reloaded(rotated=secrets.refresh(), refused=dict(secrets.refused))
