"""Health, readiness, liveness, information, metrics.

What those may do who look after the service.
"""

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
    """Routes that need no key."""

    tags = ("system",)
    opt = OPEN

    @get("/ok", summary="Whether the process answers")
    async def ok(self) -> dict[str, bool]:
        """Always, as long as it does."""
        return {"ok": True}

    @get("/info", summary="Version and features")
    async def info(self, system: Service) -> Info:
        """For clients that adapt to the server."""
        return system.info()

    @get("/health", summary="Every dependency", opt=OPEN_SHOWS_MORE)
    async def health(self, request: Request[Any, Any, Any], system: Service) -> Response[Health]:
        """200 when the service does its job (healthy or degraded), 503 when it cannot.

        Details need a key with the scope `monitor`.
        """
        health = system.health(details=may(request, MONITOR))
        return Response(health, status_code=503 if health.status == "unhealthy" else 200)

    @get("/health/ready", summary="Whether to send requests here")
    async def ready(self, system: Service) -> Response[dict[str, str]]:
        """503 while starting, draining or without the database."""
        obstacle = system.obstacle()
        if obstacle:
            return Response({"status": "not ready", "reason": obstacle}, status_code=503)
        return Response({"status": "ready"})

    @get("/health/live", summary="Whether the process lives")
    async def live(self, system: Service) -> Response[dict[str, str]]:
        """503 when an essential task does not go on although the database works. It asks no dependency."""
        reason = system.stalled()
        if reason:
            return Response({"status": "stalled", "reason": reason}, status_code=503)
        return Response({"status": "alive"})


class MetricsController(Controller):
    """Beside the base path, where Prometheus looks."""

    tags = ("system",)
    opt = OPEN

    @get("/metrics", summary="Metrics for Prometheus", include_in_schema=False)
    async def metrics(
        self, request: Request[Any, Any, Any], metrics_page: NamedDependency[MetricsPage]
    ) -> Response[bytes]:
        """Prometheus text, or OpenMetrics where ``AcceptEntry`` asks for it."""
        body, content_type = await metrics_page.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})  # as a media type it would get a second charset


class AccessController(Controller):
    """The secrets of the service."""

    path = "/admin"
    tags = ("access",)
    opt = ADMINISTERS

    @post("/secrets/reload", status_code=200, summary="Read the secrets anew")
    async def reload(self, vault: NamedDependency[SecretStore]) -> Reloaded:
        """Those of this process at once; every process looks at its files every five seconds by itself."""
        return Reloaded(rotated=vault.refresh(), refused=dict(vault.refused))
