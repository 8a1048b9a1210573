"""Log lines: one line an event, with the request's ids and without secrets."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.infra.db.sqlalchemy_internals import MeasuredPool
from app.infra.telemetry.logs import HIDDEN, set_up
from app.infra.telemetry.trace_context import SpanContext, current_span, parse_traceparent, request
from tests.hostile_errors import Blank, Closed, Leaving, Mute


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    request.set("")


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields() -> None:
    out = io.StringIO()
    set_up("INFO", "json", out)
    structlog.get_logger("app.features.runs").info("run_ended", status="success", values={"a": object})
    [line] = lines(out)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "run_ended",
        "level": "info",
        "logger": "app.features.runs",
        "status": "success",
        "values": {"a": "<class 'object'>"},
    }


def test_a_line_about_a_run_fits_the_terminal_of_who_works_on_an_agent() -> None:
    out = io.StringIO()
    set_up("INFO", "console", out, tracebacks=True)
    request.set("r1")
    ended = {"agent": "assistant", "status": "success", "seconds": 0.1, "tokens": 44}
    structlog.get_logger("app").info("run_ended", **ended, run_id="r", thread_id="t")
    structlog.get_logger("app").warning("tool_failed", tool="clock", run_id="r", raised=ValueError("late"))
    first, second, *traceback = out.getvalue().splitlines()
    line = "[info] run_ended agent=assistant status=success seconds=0.1 tokens=44 thread_id=t"
    assert re.sub(" +", " ", first[9:]).replace(" ]", "]") == line
    assert "request_id" not in second
    assert "run_id=r" in second
    assert traceback[-1] == "ValueError: late"


def test_a_line_names_its_request_and_trace() -> None:
    out = io.StringIO()
    set_up("INFO", "json", out)
    log = structlog.get_logger("app")
    request.set("r1")
    current_span.set(SpanContext(b"t" * 16, b"s" * 8, sampled=True))
    log.info("one")
    request.set("r2")
    current_span.set(None)
    log.info("two")
    one, two = lines(out)
    assert (one["request_id"], one["trace_id"], one["span_id"]) == ("r1", "74" * 16, "73" * 8)
    assert two["request_id"] == "r2"
    assert "trace_id" not in two


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    set_up("warning", "json", out)
    structlog.get_logger("app").info("no")
    logging.getLogger("other").info("no")
    structlog.get_logger("app").warning("yes")
    assert [line["event"] for line in lines(out)] == ["yes"]


@pytest.mark.parametrize("layout", ["json", "console"])
def test_secrets_are_hidden_by_the_name_of_their_field(layout: Any) -> None:
    out = io.StringIO()
    set_up("INFO", layout, out)
    structlog.get_logger("app").info("keys", api_key="canary-1", password="canary-2", authorization="canary-3")
    assert "canary" not in out.getvalue()
    assert HIDDEN in out.getvalue()


@pytest.mark.parametrize("layout", ["json", "console"])
def test_a_traceback_shows_no_local_variables(layout: Any) -> None:
    out = io.StringIO()
    set_up("INFO", layout, out)
    canary = "can" + "ary"
    try:
        raise ValueError(len(canary))
    except ValueError as error:
        structlog.get_logger("app").error("failed", exc_info=error)
    assert "ValueError: 6" in out.getvalue()
    assert "canary" not in out.getvalue().replace('canary = "can"', "").replace("len(canary)", "")


def test_what_agents_and_tools_raised_is_shown_to_their_developer_only() -> None:
    error = ValueError("a prompt")
    for tracebacks in (False, True):
        out = io.StringIO()
        set_up("INFO", "json", out, tracebacks=tracebacks)
        structlog.get_logger("app").warning("tool_failed", at="tools.py:3", raised=error)
        [line] = lines(out)
        assert ("ValueError: a prompt" in line.get("exception", "")) is tracebacks
        assert ("at" in line, "raised" in line) == (not tracebacks, False)


@pytest.mark.parametrize("layout", ["json", "console"])
@pytest.mark.parametrize("kind", [Mute, Leaving, Blank, Closed])
@pytest.mark.parametrize("where", ["itself", "its cause", "a field"])
def test_an_error_that_cannot_be_shown_can_be_logged(layout: Any, kind: type[Exception], where: str) -> None:
    out = io.StringIO()
    set_up("INFO", layout, out)
    logged: dict[str, Any] = {"exc_info": kind()} if where == "itself" else {"field": kind()}
    if where == "its cause":
        logged = {"exc_info": RuntimeError("outer")}
        logged["exc_info"].__cause__ = kind()
    structlog.get_logger("app").error("tool_failed", name="a\ud800b", **logged)
    logging.getLogger("library").warning("%d of %d", *[1])
    text = out.getvalue()
    assert "tool_failed" in text
    assert "%d of %d" in text
    if where == "itself":
        assert kind.__name__ in text


def test_records_of_libraries_become_lines_too() -> None:
    out = io.StringIO()
    set_up("INFO", "json", out)
    logging.getLogger("some.library").warning("disk %s", "full")
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("some.library").exception("broken")
    first, second = lines(out)
    assert (first["event"], first["level"], first["logger"]) == ("disk full", "warning", "some.library")
    assert (second["event"], second["level"]) == ("broken", "error")
    assert "KeyError: 'x'" in second["exception"]


def test_libraries_that_log_sql_are_quiet_at_every_level() -> None:
    out = io.StringIO()
    set_up("DEBUG", "json", out)
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT secret")
    MeasuredPool(lambda: None).dispose()  # type: ignore[arg-type]
    logging.getLogger("asyncio").debug("Using selector")
    assert lines(out) == []


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"00-{TRACE}-{SPAN}-01", (TRACE, SPAN)),
        (f"01-{TRACE}-{SPAN}-01-more", (TRACE, SPAN)),
        (f"00-{TRACE}-{SPAN}-01-more", ("", "")),
        (f"ff-{TRACE}-{SPAN}-01", ("", "")),
        (f"00-{'0' * 32}-{SPAN}-01", ("", "")),
        (f"00-{TRACE}-{'0' * 16}-01", ("", "")),
        (f"00-{TRACE.upper()}-{SPAN}-01", ("", "")),
        ("", ("", "")),
        ("rubbish", ("", "")),
    ],
)
def test_a_traceparent_counts_only_when_it_is_valid(text: str, expected: tuple[str, str]) -> None:
    assert parse_traceparent(text) == expected
