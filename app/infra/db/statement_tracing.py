"""Spans of SQL statements: operation and table, never values."""

import re
from functools import lru_cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import ExceptionContext

from app.infra.telemetry.tracing import CLIENT, SpanTemplate, Tracer

_SPAN = "span"
_TABLE = re.compile(r"\b(?:from|into|update|join)\s+([a-z_]+)", re.IGNORECASE)
_VERB = re.compile(r"\b(select|insert|update|delete)\b", re.IGNORECASE)
_SETTING = "set_config("


def summary(statement: str) -> str:
    """Summarize a statement as ``INSERT runs``: its writing verb or SELECT, and a table; empty for session setup."""
    if _SETTING in statement:
        return ""
    verbs = [verb.upper() for verb in _VERB.findall(statement)]
    verb = next((one for one in verbs if one != "SELECT"), verbs[0] if verbs else "")
    pattern = re.compile(rf"\b{verb}\b.*?{_TABLE.pattern}", re.IGNORECASE | re.DOTALL) if verb else _TABLE
    table = (
        pattern.search(statement) if verb != "UPDATE" else re.search(r"\bupdate\s+([a-z_]+)", statement, re.IGNORECASE)
    )
    return " ".join(filter(None, (verb, table[1] if table else ""))) or "statement"


@lru_cache(1024)
def _template(statement: str) -> SpanTemplate | None:
    name = summary(statement)
    return query(name) if name else None


def query(name: str) -> SpanTemplate:
    """Return the span template of a database query."""
    return SpanTemplate(name, CLIENT, ("db.system.name", "postgresql"), ("db.query.summary", name))


def trace_statements(engine: Engine, tracer: Tracer) -> None:
    """Record a span of every statement on ``engine`` in a sampled trace."""

    def before(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if (kind := _template(statement)) is not None and (span := tracer.start(kind)) is not None:
            setattr(context, _SPAN, span)

    def after(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if (span := getattr(context, _SPAN, None)) is not None:
            span.end()

    def failed(context: ExceptionContext) -> None:
        if (span := getattr(context.execution_context, _SPAN, None)) is not None:
            span.end(getattr(context.original_exception, "sqlstate", "") or type(context.original_exception).__name__)

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)
