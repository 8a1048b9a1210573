"""What ``serve`` and ``dev`` have their workers do. Imported in workers alone: it brings the whole program."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping

import structlog

from app.asgi import behind_names, layers
from app.base.crashes import arm
from app.base.errors import StartError
from app.db.revisions import HEAD
from app.lifespan import close_house, drain_house, open_house, retire_house
from app.schema import metadata
from app.serving.station import Station
from app.serving.worker import connections, run
from app.settings import Settings, load
from app.system.scraping import MetricsAlone
from app.telemetry.board import Boards
from app.telemetry.context import request, run_id
from app.telemetry.lines import Lines
from app.telemetry.logs import set_up
from app.wiring import build

log = structlog.get_logger(__name__)

SCRIPTED = "scripted:demo"


class Service:
    """The House as a worker serves it (``app.serving.port.Application``)."""

    def __init__(self, settings: Settings, boards: Boards, number: int, lines: Lines) -> None:
        self._lines = lines
        self._dropped = 0
        # health checks and other requests find a connection while all streams are open
        self._house = build(settings, streams=connections() * 5 // 6, boards=boards, number=number)
        self._house.supervision.on_give_up = _leave
        self._house.loop_lag.also(self._count_dropped)
        self.asgi = layers(self._house)
        self.metrics = behind_names(MetricsAlone(self._house.metrics_page), self._house)

    async def open(self) -> None:
        """Refuse a database that lacks migrations or parts of its schema, then open the House."""
        revision = await self._house.database.revision()
        if revision < HEAD:
            raise StartError(
                f"the database lacks the migrations up to {HEAD} (it has {revision or 'none'}): run `agent-service "
                f"migrate`, or set AGENT_MIGRATE_ON_START=1"
            )
        if revision == HEAD and (missing := await self._house.database.missing_parts(metadata)):
            named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            raise StartError(
                f"the database's schema is not whole: {len(missing)} parts are missing ({named}). Restore the backup "
                f"again, into an empty database that has the extension vector (docs/operations/backup.md)"
            )
        await open_house(self._house)
        if self._house.settings.server.environment == "production" and self._house.models.default()[0] == SCRIPTED:
            log.warning(
                "scripted_model_in_production",
                detail="the default model is scripted:demo, which plays a script: set OPENAI_API_KEY, "
                "ANTHROPIC_API_KEY, OPENAI_BASE_URL or AGENT_DEFAULT_MODEL",
            )

    def reload(self) -> None:
        """Read the secrets anew."""
        self._house.vault.look()

    async def retire(self) -> None:
        """Hand over what runs; open streams go on, from what other processes commit."""
        await retire_house(self._house)

    async def drain(self) -> None:
        """Hand over what runs, end open streams."""
        await drain_house(self._house)

    async def close(self) -> None:
        """Close the House."""
        await close_house(self._house)

    def _count_dropped(self) -> None:
        dropped, self._dropped = self._lines.dropped - self._dropped, self._lines.dropped
        self._house.meters.lines_dropped.add(dropped)

    def busy(self) -> str:
        """The run and the request for which code runs right now, and its task."""
        task = asyncio.current_task()
        words = {"run": run_id.get(), "request": request.get(), "task": task.get_name() if task is not None else ""}
        return ", ".join(f"{name} {text}" for name, text in words.items() if text)

    def about(self) -> dict[str, str]:
        """The default model and why it is that, and the agents."""
        model, reason = self._house.models.default()
        return {"model": f"{model} ({reason})", "agents": ", ".join(self._house.catalog.names())}


def _leave(_reason: str) -> None:
    """Let the parent put another worker in the place of this one, which drains first."""
    os.kill(os.getpid(), signal.SIGTERM)


def work(station: Station, boards: Boards, overrides: Mapping[str, str], defaults: Mapping[str, str]) -> int:
    """Serve with the settings of this moment until the parent ends it; the exit code."""
    last: list[Callable[[], None]] = []

    def create() -> Service:
        settings = load(overrides=overrides, defaults=defaults)
        lines = set_up(settings.server.log_level, settings.server.log_format)
        last.append(lines.flush)
        if settings.server.crash_at:
            arm(settings.server.crash_at)
        for sentence in settings.warnings:
            log.warning("setting_ignored", detail=sentence)
        return Service(settings, boards, station.number, lines)

    try:
        return run(create, station)
    finally:
        for say_the_last in last:
            say_the_last()
