"""The application of one worker: the routes of a House. Builds nothing at import."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Router
from litestar.di import NamedDependency, Provide

from app.access.guard import OPEN, Guard, principal_of
from app.access.rates import Rates
from app.access.slowdown import Slowdown
from app.base.lean import without
from app.idempotency.duplicates import DuplicateRequests
from app.options import ServerSettings
from app.routes import BASE_PATH, controllers_of, root_controllers_of
from app.system.service import version
from app.web.answers import Answer, ReadyRequest
from app.web.bodies import Bodies
from app.web.browsers import Browsers
from app.web.deadline import Deadline
from app.web.decoding import JsonBody
from app.web.headers import Envelope
from app.web.large_answers import LargeAnswers
from app.web.openapi import openapi_config
from app.web.problems import exception_handlers
from app.wiring import House

AFTER = {"streams": "runs", "document_most": "documents", "quota": "threads"}
"""Parts that a handler asks for beside another one."""


def litestar(house: House) -> Litestar:
    """The routes of ``house``; who serves them opens and closes it (``app.cli.application``)."""
    server = house.settings.server
    with without("pydantic", "opentelemetry", "starlette"):  # plugins that nothing here uses: 15 MB and 0.3 s
        return _routed(house, server)


def _routed(house: House, server: ServerSettings) -> Litestar:
    return Litestar(
        route_handlers=[
            Router(BASE_PATH, route_handlers=[*controllers_of(server.role)]),
            *root_controllers_of(server.metrics_port in {0, server.port}),
        ],
        middleware=[
            functools.partial(
                Guard,
                access=house.entrance.authenticator,
                records=house.entrance.audit,
                entry=house.entrance.people,
                slowdown=Slowdown(house.proxies),
            ),
            functools.partial(
                Rates, limiter=house.limiter, proxies=house.proxies, meters=house.meters, quota=house.quota
            ),
            DuplicateRequests,
        ],
        dependencies=dependencies(house),
        dto=JsonBody,
        return_dto=None,
        request_class=ReadyRequest,
        response_class=Answer,
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(version(), opt=OPEN),
        path=server.root_path or None,
        request_max_body_size=None,
        logging_config=None,
    )


def layers(house: House) -> Envelope:
    """All that a request passes: envelope, names and origins, time, bodies, large answers, routes."""
    prefix = house.settings.server.root_path
    runs = house.settings.runs
    answering = LargeAnswers(litestar(house))
    timed = Deadline(Bodies(answering, most_large=runs.request_bytes), runs.request_seconds)
    inner = behind_names(timed, house)
    return Envelope(inner, house.meters, tracer=house.tracer, prefix=prefix)


def behind_names(app: Any, house: House) -> Browsers:
    """``app``, served to the hosts and origins that the settings allow."""
    server, entrance = house.settings.server, house.entrance
    return Browsers(
        app,
        server.allowed_hosts,
        server.cors_origins,
        server.root_path,
        authenticated=entrance.authenticator is not None or entrance.people is not None,
    )


def dependencies(house: House) -> dict[str, Provide]:
    """What handlers may ask for by name.

    Dependencies that stand side by side are resolved in a task group (20 µs each), those in a line one after the other
    (2 µs each). So each part comes after the principal, or after the part that its handlers ask for too (``AFTER``).
    Open routes have no principal, so theirs stand alone.
    """
    provided = {
        "system": Provide(lambda: house.system, sync_to_thread=False),
        "metrics_page": Provide(lambda: house.metrics_page, sync_to_thread=False),
        "principal": Provide(principal_of, sync_to_thread=False),
    }
    parts = {
        "assistants": house.assistants,
        "threads": house.threads,
        "runs": house.runs,
        "crons": house.crons,
        "store": house.store,
        "documents": house.documents,
        "document_most": house.settings.documents.most,
        "webhooks": house.webhooks,
        "audit": house.entrance.audit,
        "vault": house.vault,
        "streams": house.streams,
        "quota": house.quota,
    }
    for name, part in parts.items():
        provided[name] = Provide(_giving(part, after=AFTER.get(name, "principal")), sync_to_thread=False)
    return provided


def _giving(part: Any, after: str) -> Callable[..., Any]:
    def give(**_: Any) -> Any:
        return part

    kind: Any = NamedDependency[Any]  # type: ignore[misc]
    one_before = inspect.Parameter(after, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    give.__signature__ = inspect.Signature([one_before])  # type: ignore[attr-defined]
    give.__annotations__ = {after: kind, "return": Any}
    return give
