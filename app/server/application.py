"""What ``serve`` and ``dev`` have their workers do. Imported in workers alone: it brings the whole program."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from app.base.crash_points import arm
from app.base.errors import StartError
from app.infra.db.revisions import HEAD
from app.infra.settings.environment import Settings, load
from app.infra.telemetry.line_writer import LineWriter
from app.infra.telemetry.logs import set_up
from app.infra.telemetry.prometheus_page import MetricsPage
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.infra.telemetry.trace_context import request, run_id
from app.server.asgi import behind_names, with_websockets
from app.server.composition.services import build
from app.server.granian_internals import connections
from app.server.lifespan import Lifespan
from app.server.schema import metadata
from app.server.worker import run
from app.server.worker_context import WorkerContext

PATH = "/metrics"

SCRIPTED = "scripted:demo"


class MetricsApp:
    """An ASGI application that answers ``GET /metrics``."""

    def __init__(self, page: MetricsPage) -> None:
        self._page = page

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, body, kind = 404, b"Only /metrics is here.\n", "text/plain; charset=utf-8"
        if scope["path"] == PATH and scope["method"] in {"GET", "HEAD"}:
            accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
            body, kind = await self._page.render(accept)
            status = 200
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


log = structlog.get_logger(__name__)


class WorkerService:
    """The services as a worker serves them (``app.server.worker.Application``)."""

    def __init__(self, settings: Settings, buffers: MetricsBuffers, number: int, lines: LineWriter) -> None:
        self._lines = lines
        self._dropped = 0
        # health checks and other requests find a connection while all streams are open
        self._services = build(settings, streams=connections() * 5 // 6, buffers=buffers, number=number)
        self._lifespan = Lifespan(self._services)
        self._services.health.watchdog.on_give_up = _leave
        self._services.telemetry.loop_lag.also(self._count_dropped)
        self.asgi = with_websockets(self._services)
        self.metrics = behind_names(MetricsApp(self._services.telemetry.metrics_page), self._services)

    async def open(self) -> None:
        """Refuse a database that lacks migrations or parts of its schema, then start the services."""
        revision = await self._services.persistence.database.revision()
        if revision < HEAD:
            raise StartError(
                f"the database lacks the migrations up to {HEAD} (it has {revision or 'none'}): run `agent-service "
                f"migrate`, or set AGENT_MIGRATE_ON_START=1"
            )
        if revision == HEAD and (missing := await self._services.persistence.database.missing_parts(metadata)):
            named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            raise StartError(
                f"the database's schema is not whole: {len(missing)} parts are missing ({named}). Restore the backup "
                f"again, into an empty database that has the extension vector (docs/operations/backup.md)"
            )
        await self._lifespan.open()
        if (
            self._services.settings.server.environment == "production"
            and self._services.agents.models.default()[0] == SCRIPTED
        ):
            log.warning(
                "scripted_model_in_production",
                detail="the default model is scripted:demo, which plays a script: set OPENAI_API_KEY, "
                "ANTHROPIC_API_KEY, OPENAI_BASE_URL or AGENT_DEFAULT_MODEL",
            )

    def reload(self) -> None:
        """Read the secrets again."""
        self._services.persistence.secrets.refresh()

    async def retire(self) -> None:
        """Hand over what runs; open streams go on, from what other processes commit."""
        await self._lifespan.retire()

    async def drain(self) -> None:
        """Hand over what runs, end open streams."""
        await self._lifespan.drain()

    async def close(self) -> None:
        """Close the services."""
        await self._lifespan.close()

    def _count_dropped(self) -> None:
        dropped, self._dropped = self._lines.dropped - self._dropped, self._lines.dropped
        self._services.telemetry.meters.lines_dropped.add(dropped)

    def busy(self) -> str:
        """The run and the request for which code runs right now, and its task."""
        task = asyncio.current_task()
        words = {"run": run_id.get(), "request": request.get(), "task": task.get_name() if task is not None else ""}
        return ", ".join(f"{name} {text}" for name, text in words.items() if text)

    def about(self) -> dict[str, str]:
        """The default model and why it is that, and the agents."""
        model, reason = self._services.agents.models.default()
        return {"model": f"{model} ({reason})", "agents": ", ".join(self._services.agents.catalog.names())}


def _leave(_reason: str) -> None:
    """Ask the parent to replace this worker, which drains first."""
    os.kill(os.getpid(), signal.SIGTERM)


def work(
    context: WorkerContext, buffers: MetricsBuffers, overrides: Mapping[str, str], defaults: Mapping[str, str]
) -> int:
    """Serve with the settings of this moment until the parent ends it; the exit code."""
    flushes: list[Callable[[], None]] = []

    def create() -> WorkerService:
        settings = load(overrides=overrides, defaults=defaults)
        server = settings.server
        lines = set_up(server.log_level, server.log_format, tracebacks=server.log_runs)
        flushes.append(lines.flush)
        if settings.server.crash_at:
            arm(settings.server.crash_at)
        for sentence in settings.warnings:
            log.warning("setting_ignored", detail=sentence)
        return WorkerService(settings, buffers, context.number, lines)

    try:
        return run(create, context)
    finally:
        for flush in flushes:
            flush()
