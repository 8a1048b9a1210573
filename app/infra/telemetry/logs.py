"""Structured logs: JSON in production, readable on a console in development."""

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, Protocol

import msgspec
import structlog

from app.base.containment import kind_of, location_of, tamed, text_of
from app.base.ttl_cache import TTLCache
from app.infra.settings.environment import coloured
from app.infra.telemetry.line_writer import LineWriter
from app.infra.telemetry.trace_context import current_span, request

HIDDEN = "[hidden]"
SECRET_FIELDS = frozenset(
    {"authorization", "api_key", "apikey", "x_api_key", "cookie", "password", "pepper", "secret"}
    | {"access_token", "refresh_token", "token", "database_url", "redis_url"}
)
"""Fields whose values are hidden; a second line of defence, since code must not log them."""
QUIET = ("asyncio", "sqlalchemy", "app.infra.db.sqlalchemy_internals", "alembic", "aiohttp", "urllib3", "_granian")
"""Library loggers that are limited to warnings, as they log SQL and other details. SQLAlchemy names a pool's logger
after its class, which is ours.
"""

EXPORTER = "opentelemetry"
EXPORTER_SECONDS = 60.0
"""Minimum interval of equal messages of the exporter: an unreachable collector would repeat them."""
EVENT_WIDTH = 30
MAX_MUTED = 1000
"""Different messages of the exporter that are remembered."""

Fields = MutableMapping[str, Any]
Render = Callable[["LogSink", str, Fields], str]


class LogOutput(Protocol):
    """A sink for log lines."""

    def write(self, text: str, /) -> object:
        """Write a line, which includes its line end."""
        ...


def set_up(
    level: str = "INFO",
    layout: Literal["console", "json"] = "console",
    stream: LogOutput | None = None,
    *,
    tracebacks: bool = False,
) -> LineWriter:
    """Send structlog events and standard library records to ``stream``, or to standard output without blocking.

    ``level`` is a standard level name. ``tracebacks``: of errors that agents and tools raised, too, which are logged as
    ``raised``; their text may hold a prompt or a secret. A console then gets short lines too.
    Call it once, before anything logs. Returns the writer of standard output: flush it at the end.
    """
    short = tracebacks and layout == "console"
    min_level = logging.getLevelNamesMapping()[level.upper()]
    lines = LineWriter(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1, _report)
    out = stream or lines
    structlog.configure(
        processors=[
            _add_request,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if short else "iso", utc=not short, key="time"),
            _hide_secrets,
            _show_raised if tracebacks else hide_raised,
            *([_shorten] if short else []),
            _never_failing(_rendering(layout, short=short)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min_level),
        logger_factory=lambda name="app": LogSink(out, name),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=min_level, handlers=[_Bridge()], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(min_level, logging.WARNING))
    return lines


def _report(dropped: int) -> None:
    structlog.get_logger(__name__).warning("log_lines_dropped", lines=dropped)


def _rendering(layout: str, *, short: bool) -> Render:
    if layout == "json":
        return _to_json
    return structlog.dev.ConsoleRenderer(
        colors=coloured(),
        exception_formatter=structlog.dev.plain_traceback,
        timestamp_key="time",
        sort_keys=not short,
        pad_event_to=0 if short else EVENT_WIDTH,
    )


def _never_failing(render: Render) -> Render:
    """Render a line whatever it holds: who logs the error of foreign code must not fail because of its class."""

    def rendered(logger: LogSink, method: str, fields: Fields) -> str:
        given = fields.pop("exc_info", None)
        error = sys.exc_info()[1] if given is True else given[1] if type(given) is tuple else given
        try:
            shown = dict(fields) if error is None else {**fields, "exc_info": tamed(error)}
            return render(logger, method, structlog.processors.format_exc_info(logger, method, shown))
        except BaseException:  # noqa: BLE001  code of a foreign class may raise anything
            plain = {name: text_of(value).encode(errors="replace").decode() for name, value in fields.items()}
            if error is not None:
                plain["exception"] = f"{kind_of(error)}: {location_of(error)}"
            return render(logger, method, plain)

    return rendered


class LogSink:
    """Writes rendered lines; ``name`` is the logging module."""

    def __init__(self, out: LogOutput, name: str) -> None:
        self._out = out
        self.name = name

    def msg(self, line: str) -> None:
        """Write ``line`` and its line end at once, so that lines of several processes do not interleave."""
        self._out.write(line + "\n")

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Forwards records of the standard library's logging."""

    def __init__(self) -> None:
        super().__init__()
        self._muted: TTLCache[tuple[str, str], bool] = TTLCache(MAX_MUTED, EXPORTER_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Log ``record``; equal messages of the telemetry exporter at most once per minute."""
        if record.name.startswith(EXPORTER):
            what = record.name, str(record.msg)
            if what in self._muted:
                return
            self._muted.put(what, True)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError):  # its arguments do not fit it
            message = text_of(record.msg)
        log = structlog.get_logger(record.name)
        log.log(max(record.levelno // 10 * 10, logging.DEBUG), message, exc_info=record.exc_info)


def _add_request(logger: LogSink, _method: str, fields: Fields) -> Fields:
    fields["logger"] = logger.name
    if request_id := request.get():
        fields.setdefault("request_id", request_id)
    if (context := current_span.get()) is not None:
        fields["trace_id"] = context.trace_id.hex()
        fields["span_id"] = context.span_id.hex()
    return fields


def _hide_secrets(_logger: LogSink, _method: str, fields: Fields) -> Fields:
    for name in fields.keys() & SECRET_FIELDS:
        fields[name] = HIDDEN
    return fields


def hide_raised(_logger: LogSink, _method: str, fields: Fields) -> Fields:
    """Drop ``raised``, an error of an agent or a tool, whose text may hold a prompt or a secret."""
    fields.pop("raised", None)
    return fields


def _show_raised(_logger: LogSink, _method: str, fields: Fields) -> Fields:
    if (error := fields.pop("raised", None)) is not None:
        fields["exc_info"] = error
        fields.pop("at", None)
    return fields


def _shorten(_logger: LogSink, _method: str, fields: Fields) -> Fields:
    """Leave one id in a line about a run, so that it fits a terminal, and the module out of lines that only inform."""
    if "run_id" in fields:
        for name in ("request_id", "trace_id", "span_id", *(["run_id"] if "thread_id" in fields else [])):
            fields.pop(name, None)
    if fields["level"] == "info":
        del fields["logger"]
    return fields


def _to_json(_logger: LogSink, _method: str, fields: Fields) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()
