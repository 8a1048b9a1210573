"""Spans are created only with a sink, and encoded as OTLP."""

import subprocess
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Decoded

from app.infra.db.statement_tracing import summary
from app.infra.telemetry.otlp_encoding import OtlpEnvelope, encoded
from app.infra.telemetry.trace_context import SpanContext, current_span, parse_span_context
from app.infra.telemetry.tracing import CLIENT, NO_TRACER, SERVER, Sampler, Span, SpanTemplate, Tracer, Value
from tests.cli.commands import ROOT, environment
from tests.telemetry.collector import attributes_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = SpanContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled=True)
X = SpanTemplate("x", SERVER)
GIVEN: dict[str, Value] = {
    "text": "é\n", "empty": "", "yes": True, "no": False, "one": 1, "negative": -5, "big": 1 << 40, "half": 0.5,
    "many": ("a", "b"), "short": "x" * 95, "longer": "x" * 96, "long": "x" * 70_000, "not text": "\ud800",
}  # fmt: skip


def decoded(span: Span, longest: int = 0) -> Decoded:
    """``span`` as it arrives."""
    envelope = OtlpEnvelope({"service.name": "x", "n": 1}, "scope", "1.2", "https://schema")
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
    """With attributes of its template and its own."""
    made: list[Span] = []
    span = Tracer(made.append).receive(SpanTemplate("chat gpt", CLIENT, *GIVEN.items()), CALLER)
    assert span is not None
    span.attributes = {f"own {key}": value for key, value in GIVEN.items()}
    span.end("ModelRejected")
    span.end("only the first end counts")
    [ended] = made
    arrived = decoded(ended)
    assert arrived.name == "chat gpt"
    assert arrived.kind == Decoded.SpanKind.SPAN_KIND_CLIENT
    assert (arrived.trace_id.hex(), arrived.parent_span_id.hex()) == (TRACE, SPAN)
    assert arrived.span_id == ended.context.span_id
    assert arrived.flags == 1
    assert 0 < arrived.start_time_unix_nano <= arrived.end_time_unix_nano
    assert arrived.status.code == 2
    sent = {**GIVEN, "many": ["a", "b"], "not text": r"\ud800"}
    own = {f"own {key}": value for key, value in sent.items()}
    assert attributes_of(arrived.attributes) == {**sent, **own, "error.type": "ModelRejected"}


def test_texts_are_truncated_to_the_configured_length() -> None:
    span = Span(lambda _: None, SpanTemplate("cut", CLIENT, ("given", "é" * 500)), CALLER)
    span.attributes = {"own": "é" * 500}
    span.end()
    assert attributes_of(decoded(span, longest=100).attributes) == {"given": "é" * 100, "own": "é" * 100}


def test_a_span_that_says_nothing_of_its_own_and_has_no_parent_arrives_too() -> None:
    made: list[Span] = []
    span = Tracer(made.append).receive(X, None)
    assert span is not None
    span.end()
    arrived = decoded(made[0])
    assert (arrived.name, arrived.parent_span_id, list(arrived.attributes)) == ("x", b"", [])
    assert (len(arrived.trace_id), len(arrived.span_id), arrived.status.code) == (16, 8, 0)


def test_equal_values_of_other_kinds_are_not_mixed_up() -> None:
    for value in (True, 1, 1.0, False, 0, 0.0):
        span = Span(lambda _: None, SpanTemplate("x", SERVER, ("given", value)), CALLER)
        span.attributes = {"own": value}
        span.end()
        arrived = attributes_of(decoded(span).attributes)
        assert arrived == {"given": value, "own": value}
        assert [type(one) for one in arrived.values()] == [type(value)] * 2


def test_without_a_sink_there_are_no_spans() -> None:
    assert NO_TRACER.receive(X, CALLER) is None
    current_span.set(CALLER)
    assert NO_TRACER.start(X) is None


def test_parts_of_a_span_are_below_it_and_what_is_not_sampled_leaves_none() -> None:
    made: list[Span] = []
    tracer = Tracer(made.append)
    assert tracer.start(X) is None
    for sampled in (True, False):
        whole = tracer.receive(SpanTemplate("whole", SERVER), CALLER._replace(sampled=sampled))
        assert whole is not None
        leave = tracer.enter(whole)
        part = tracer.start(SpanTemplate("part"))
        if part is not None:
            part.end()
        leave()
        whole.end()
    part, whole = made
    assert (part.context.trace_id, part.parent) == (CALLER.trace_id, whole.context)
    assert whole.parent == CALLER


@pytest.mark.parametrize(
    "sampler, caller, taken",
    [
        (Sampler(), None, True),
        (Sampler(0.0), None, False),
        (Sampler(0.0), CALLER, True),
        (Sampler(1.0), CALLER._replace(sampled=False), False),
        (Sampler(0.0, parent_based=False), CALLER, False),
        (Sampler(1.0, parent_based=False), CALLER._replace(sampled=False), True),
    ],
)
def test_sampling_follows_the_caller_where_it_asks(sampler: Sampler, caller: SpanContext | None, taken: bool) -> None:
    span = Tracer(lambda _: None, sampler).receive(X, caller)
    assert span is not None
    assert span.context.sampled is taken


def test_a_ratio_takes_its_part_and_the_same_trace_everywhere() -> None:
    tracer = Tracer(lambda _: None, Sampler(0.25, parent_based=False))
    spans = [tracer.receive(X, None) for _ in range(2000)]
    taken = [span for span in spans if span is not None and span.context.sampled]
    assert 400 < len(taken) < 600
    for span in taken[:50]:
        again = tracer.receive(X, span.context._replace(sampled=False))
        assert again is not None
        assert again.context.sampled


def test_a_span_context_round_trips_through_its_header() -> None:
    assert parse_span_context(f"00-{TRACE}-{SPAN}-01") == CALLER
    assert parse_span_context(f"00-{TRACE}-{SPAN}-00") == CALLER._replace(sampled=False)
    assert parse_span_context("rubbish") is None
    assert parse_span_context(CALLER.traceparent) == CALLER


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
        "import sys; from app.infra.settings.environment import load; "
        "from app.server.composition.services import build; "
        "services = build(load({'DATABASE_URL': 'postgresql:///x', 'AGENT_AUTH': 'none', 'OTEL_SERVICE_NAME': 'x'})); "
        "print(services.telemetry.push, services.telemetry.tracer.active, "
        "[name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("None False []", "")
