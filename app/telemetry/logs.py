"""Log lines: events with fields, as JSON in production and readable on a console in development."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import IO, Any, Literal

import msgspec
import structlog

from app.telemetry.context import current

HIDDEN = "[hidden]"
SECRET_FIELDS = frozenset(
    {"authorization", "api_key", "apikey", "x_api_key", "cookie", "password", "pepper", "secret"}
    | {"access_token", "refresh_token", "token", "database_url", "redis_url"}
)
"""Fields that are never shown. Nobody should log them; this is the second wall."""
QUIET = ("asyncio", "sqlalchemy", "alembic", "aiohttp", "urllib3", "_granian")
"""Loggers of libraries that say too much below a warning, SQL texts among it."""

Fields = MutableMapping[str, Any]


def set_up(level: str = "INFO", layout: Literal["console", "json"] = "console", stream: IO[str] | None = None) -> None:
    """Send structlog's events and the standard library's records to ``stream`` (standard output unless given).

    ``level`` is one of the standard names. Call it once, before anything logs.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    out = stream or sys.stdout
    structlog.configure(
        processors=[
            _add_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _hide_secrets,
            *_rendering(layout, out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda name="app": Sink(out, name),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=least, handlers=[_Bridge()], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))


def _rendering(layout: str, out: IO[str]) -> list[Callable[..., Any]]:
    if layout == "json":
        return [structlog.processors.format_exc_info, _to_json]
    return [
        structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key="time"
        )
    ]


class Sink:
    """Writes rendered lines; ``name`` is the module that logs."""

    def __init__(self, out: IO[str], name: str) -> None:
        self._out = out
        self.name = name

    def msg(self, line: str) -> None:
        """Write ``line`` and its end in one go, so that lines of several processes don't mix."""
        self._out.write(line + "\n")
        self._out.flush()

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Takes the standard library's records over."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(max(record.levelno // 10 * 10, logging.DEBUG), record.getMessage(), exc_info=record.exc_info)


def _add_request(logger: Sink, _method: str, fields: Fields) -> Fields:
    fields["logger"] = logger.name
    request = current.get()
    if request.request_id:
        fields.setdefault("request_id", request.request_id)
    if request.trace_id:
        fields["trace_id"] = request.trace_id
        fields["parent_span_id"] = request.parent_span_id
    return fields


def _hide_secrets(_logger: Sink, _method: str, fields: Fields) -> Fields:
    for name in fields.keys() & SECRET_FIELDS:
        fields[name] = HIDDEN
    return fields


def _to_json(_logger: Sink, _method: str, fields: Fields) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()
