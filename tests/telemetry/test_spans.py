"""Spans: made only where somebody gets them, and encoded as OTLP says."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Decoded

from app.db.tracing import summary
from app.telemetry.encoding import Envelope, encoded
from app.telemetry.tracing import CLIENT, INTERNAL, NO_TRACER, SERVER, Place, Sampler, Span, Tracer, here, place_of
from tests.cli.commands import ROOT, environment
from tests.telemetry.collector import attributes_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = Place(TRACE, SPAN, sampled=True)


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    yield
    here.set(None)


def decoded(span: Span, longest: int = 0) -> Decoded:
    """``span`` as it arrives."""
    envelope = Envelope({"service.name": "x", "n": 1}, "scope", "1.2", "https://schema")
    request = ExportTraceServiceRequest.FromString(envelope.around([encoded(span, longest), encoded(span, longest)]))
    [of_resource] = request.resource_spans
    [of_scope] = of_resource.scope_spans
    assert attributes_of(of_resource.resource.attributes) == {"service.name": "x", "n": 1}
    assert (of_scope.scope.name, of_scope.scope.version, of_scope.schema_url) == ("scope", "1.2", "https://schema")
    first: Decoded
    first, second = of_scope.spans
    assert first == second
    return first


def test_a_span_arrives_as_it_was_made() -> None:
    made: list[Span] = []
    span = Tracer(made.append).receive("chat gpt", CLIENT, CALLER)
    assert span is not None
    given = {
        "text": "é\n", "empty": "", "yes": True, "no": False, "one": 1, "negative": -5, "big": 1 << 40, "half": 0.5,
        "many": ("a", "b"), "long": "x" * 70_000,
    }  # fmt: skip
    span.attributes = dict(given)  # type: ignore[arg-type]
    span.end("ModelRejected")
    span.end("only the first end counts")
    [ended] = made
    arrived = decoded(ended)
    assert arrived.name == "chat gpt"
    assert arrived.kind == Decoded.SpanKind.SPAN_KIND_CLIENT
    assert (arrived.trace_id.hex(), arrived.parent_span_id.hex()) == (TRACE, SPAN)
    assert arrived.span_id.hex() == ended.place.span_id
    assert 0 < arrived.start_time_unix_nano <= arrived.end_time_unix_nano
    assert arrived.status.code == 2
    assert attributes_of(arrived.attributes) == {**given, "many": ["a", "b"], "error.type": "ModelRejected"}
    assert len(attributes_of(decoded(ended, longest=100).attributes)["long"]) == 100


def test_equal_values_of_other_kinds_are_not_mixed_up() -> None:
    for value in (True, 1, 1.0, False, 0, 0.0):
        span = Span(lambda _: None, "x", INTERNAL, CALLER, "")
        span.attributes = {"value": value}
        arrived = attributes_of(decoded(span).attributes)["value"]
        assert (arrived, type(arrived)) == (value, type(value))


def test_without_anybody_to_send_to_there_are_no_spans() -> None:
    assert NO_TRACER.receive("x", SERVER, CALLER) is None
    here.set(CALLER)
    assert NO_TRACER.start("x") is None


def test_parts_of_a_span_are_below_it_and_what_is_not_sampled_leaves_none() -> None:
    made: list[Span] = []
    tracer = Tracer(made.append)
    assert tracer.start("nobody asked") is None
    for sampled in (True, False):
        whole = tracer.receive("whole", SERVER, Place(TRACE, SPAN, sampled))
        assert whole is not None
        whole.enter()
        part = tracer.start("part")
        if part is not None:
            part.end()
        whole.leave()
        whole.end()
    part, whole = made
    assert (part.place.trace_id, part.parent_id) == (TRACE, whole.place.span_id)
    assert whole.parent_id == SPAN


@pytest.mark.parametrize(
    "sampler, caller, taken",
    [
        (Sampler(), None, True),
        (Sampler(0.0), None, False),
        (Sampler(0.0), CALLER, True),
        (Sampler(1.0), CALLER._replace(sampled=False), False),
        (Sampler(0.0, asks=False), CALLER, False),
        (Sampler(1.0, asks=False), CALLER._replace(sampled=False), True),
    ],
)
def test_sampling_follows_the_caller_where_it_asks(sampler: Sampler, caller: Place | None, taken: bool) -> None:
    span = Tracer(lambda _: None, sampler).receive("x", SERVER, caller)
    assert span is not None
    assert span.place.sampled is taken


def test_a_ratio_takes_its_part_and_the_same_trace_everywhere() -> None:
    tracer = Tracer(lambda _: None, Sampler(0.25, asks=False))
    spans = [tracer.receive("x", SERVER, None) for _ in range(2000)]
    taken = [span for span in spans if span is not None and span.place.sampled]
    assert 400 < len(taken) < 600
    for span in taken[:50]:
        again = tracer.receive("x", SERVER, span.place._replace(sampled=False))
        assert again is not None
        assert again.place.sampled


def test_a_place_is_read_from_its_header_and_written_to_it() -> None:
    assert place_of(f"00-{TRACE}-{SPAN}-01") == CALLER
    assert place_of(f"00-{TRACE}-{SPAN}-00") == CALLER._replace(sampled=False)
    assert place_of("rubbish") is None
    assert place_of(CALLER.traceparent) == CALLER


@pytest.mark.parametrize(
    "statement, name",
    [
        ("SELECT threads.a FROM threads WHERE x", "SELECT threads"),
        ("select set_config('app.tenant', $1, true)", ""),
        ("insert into runs (a) values (1) returning (select 1 from threads)", "INSERT runs"),
        ("with a as (select 1 from b) update threads set x = 1", "UPDATE threads"),
        ("delete from crons where 1=1", "DELETE crons"),
        ("listen x", "statement"),
    ],
)
def test_a_statement_is_named_by_what_it_does_to_which_table(statement: str, name: str) -> None:
    assert summary(statement) == name


def test_the_sdk_is_not_loaded_where_nothing_is_pushed() -> None:
    script = (
        "import sys; from app.settings import load; from app.wiring import build; "
        "house = build(load({'DATABASE_URL': 'postgresql:///x', 'AGENT_AUTH': 'none', 'OTEL_SERVICE_NAME': 'x'})); "
        "print(house.push, house.tracer.active, [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("None False []", "")
