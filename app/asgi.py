"""The application of one worker: the routes of a House. Builds nothing at import."""

import functools
from typing import Any

from litestar import Litestar, Router
from litestar.di import Provide

from app.access.guard import OPEN, Guard, principal_of
from app.routes import BASE_PATH, CONTROLLERS, ROOT_CONTROLLERS
from app.system.service import version
from app.web.decoding import JsonBody
from app.web.openapi import openapi_config
from app.web.problems import exception_handlers
from app.wiring import House


def litestar(house: House) -> Litestar:
    """The routes of ``house``; who serves them opens and closes it (``app.cli.application``)."""
    return Litestar(
        route_handlers=[Router(BASE_PATH, route_handlers=[*CONTROLLERS]), *ROOT_CONTROLLERS],
        middleware=[functools.partial(Guard, access=house.access if house.settings.auth.mode == "api_key" else None)],
        dependencies=dependencies(house),
        dto=JsonBody,
        return_dto=None,
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(version(), opt=OPEN),
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
