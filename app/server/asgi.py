"""The application of one worker: the routes of a House. Builds nothing at import."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from litestar import Litestar, Router
from litestar.di import NamedDependency, Provide

from app.base.hide_modules import hide_modules
from app.features.access.guard import OPEN, Guard, RefusalThrottle, principal_of
from app.features.access.idempotency import DuplicateRequests
from app.features.access.rate_limits import RateLimitMiddleware
from app.features.system.service import version
from app.infra.http.host_and_cors import HostAndCorsMiddleware
from app.infra.http.json_decoding import JsonBody
from app.infra.http.large_answers import LargeAnswers
from app.infra.http.litestar_internals import FastResponse, ReadyRequest
from app.infra.http.openapi import openapi_config
from app.infra.http.problems import exception_handlers
from app.infra.http.request_bodies import RequestBodyMiddleware
from app.infra.http.request_context import RequestContextMiddleware
from app.infra.http.response_deadline import ResponseDeadlineMiddleware
from app.infra.settings import ServerSettings
from app.server.composition.services import AppServices
from app.server.routes import BASE_PATH, controllers_of, root_controllers_of

AFTER = {"streams": "runs", "document_most": "documents", "quota": "threads"}
"""Parts that a handler asks for beside another one."""


def litestar(house: AppServices) -> Litestar:
    """The routes of ``house``; who serves them opens and closes it (``app.server.application``)."""
    server = house.settings.server
    with hide_modules("pydantic", "opentelemetry", "starlette"):  # plugins that nothing here uses: 15 MB and 0.3 s
        return _routed(house, server)


def _routed(house: AppServices, server: ServerSettings) -> Litestar:
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
                slowdown=RefusalThrottle(house.proxies),
            ),
            functools.partial(
                RateLimitMiddleware,
                limiter=house.limiter,
                proxies=house.proxies,
                meters=house.meters,
                quota=house.quota,
            ),
            DuplicateRequests,
        ],
        dependencies=dependencies(house),
        dto=JsonBody,
        return_dto=None,
        request_class=ReadyRequest,
        response_class=FastResponse,
        exception_handlers=exception_handlers,
        openapi_config=openapi_config(version(), opt=OPEN),
        path=server.root_path or None,
        request_max_body_size=None,
        logging_config=None,
    )


def layers(house: AppServices) -> RequestContextMiddleware:
    """All that a request passes: envelope, names and origins, time, bodies, large answers, routes."""
    prefix = house.settings.server.root_path
    runs = house.settings.runs
    answering = LargeAnswers(litestar(house))
    timed = ResponseDeadlineMiddleware(
        RequestBodyMiddleware(answering, max_large_bytes=runs.request_bytes), runs.request_seconds
    )
    inner = behind_names(timed, house)
    return RequestContextMiddleware(inner, house.meters, tracer=house.tracer, prefix=prefix)


def behind_names(app: Any, house: AppServices) -> HostAndCorsMiddleware:
    """``app``, served to the hosts and origins that the settings allow."""
    server, entrance = house.settings.server, house.entrance
    return HostAndCorsMiddleware(
        app,
        server.allowed_hosts,
        server.cors_origins,
        server.root_path,
        authenticated=entrance.authenticator is not None or entrance.people is not None,
    )


def dependencies(house: AppServices) -> dict[str, Provide]:
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
