"""The application: built in a worker by ``create_app``, nothing at import."""

import asyncio
import os
import signal
from typing import Any

import structlog
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.types import ASGIApp

from app.access.guard import OPEN, Guard, principal_of
from app.lifespan import close_house, drain_house, open_house
from app.routes import BASE_PATH, CONTROLLERS, ROOT_CONTROLLERS
from app.settings import Settings
from app.system.service import version
from app.telemetry.logs import set_up
from app.web.bodies import Bodies
from app.web.decoding import JsonBody
from app.web.headers import Envelope
from app.web.openapi import openapi_config
from app.web.problems import exception_handlers
from app.wiring import House, build

log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> ASGIApp:
    """The ASGI application of one worker. Raises ``StartError`` for settings that cannot work."""
    set_up(settings.server.log_level, settings.server.log_format)
    for sentence in settings.warnings:
        log.warning("setting_ignored", detail=sentence)
    house = build(settings)
    return Envelope(Bodies(litestar(house)), house.meters)


def litestar(house: House) -> Litestar:
    """The routes of ``house``, which start-up opens and shutdown closes."""

    async def start() -> None:
        await open_house(house)
        take_signals(house)

    async def stop() -> None:
        await close_house(house)

    return Litestar(
        route_handlers=[Router(BASE_PATH, route_handlers=[*CONTROLLERS]), *ROOT_CONTROLLERS],
        guards=[Guard(house.access if house.settings.auth.mode == "api_key" else None)],
        dependencies=dependencies(house),
        dto=JsonBody,
        return_dto=None,
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(version(), opt=OPEN),
        on_startup=[start],
        on_shutdown=[stop],
        path=house.settings.server.root_path or None,
        request_max_body_size=None,
        logging_config=None,
    )


def dependencies(house: House) -> dict[str, Provide]:
    """What handlers may ask for by name."""
    parts = {
        "assistants": house.assistants,
        "threads": house.threads,
        "runs": house.runs,
        "streams": house.streams,
        "system": house.system,
        "metrics_page": house.metrics_page,
    }
    given = {name: Provide(_giving(part), sync_to_thread=False) for name, part in parts.items()}
    return {**given, "principal": Provide(principal_of, sync_to_thread=False)}


def _giving(part: Any) -> Any:
    def give() -> Any:
        return part

    return give


def take_signals(house: House) -> None:
    """Drain at SIGTERM, then let Granian end the worker by the signal that it still handles."""
    loop = asyncio.get_running_loop()

    def on_term() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        house.background.start(drain(), name="drain")

    async def drain() -> None:
        await drain_house(house)
        os.kill(os.getpid(), signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, on_term)
