"""With a collector, a trace spans the request and the SQL of its run, and metrics are pushed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.wires import Say
from tests.telemetry.collector import Collector, Seen
from tests.waiting import until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
CANARY = "canary-2718281828"
QUESTION = {"assistant_id": "assistant", "input": {"messages": CANARY}}
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}

Start = Callable[..., Any]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
async def start(server_url: str, tmp_path: Path, collector: Collector) -> AsyncIterator[Start]:
    """Start servers on one database that push to ``collector``."""
    url = await clone(server_url)
    servers: list[Served] = []

    async def start(**settings: str) -> Served:
        servers.append(Served(url, tmp_path, **{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **FAST, **settings}))
        await asyncio.to_thread(servers[-1].wait_until_ready)
        return servers[-1]

    yield start
    for server in servers:
        await asyncio.to_thread(server.stop)
    await drop(server_url, url)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        provider.plan(Say(text="", calls=[("calculator", '{"expression":"6*7"}')]), Say(text=f"It is 42, {CANARY}."))
        yield provider


def using(provider: FakeProvider) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": "sk-x",
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "AGENT_DEFAULT_MODEL": "openai:tiny-chat",
    }


async def asked(server: Served, path: str = "/runs/wait", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.base, timeout=20) as http:
        return (await http.post(path, json=QUESTION, headers=headers)).raise_for_status()


async def arrived(collector: Collector, *names: str) -> list[Seen]:
    """Wait for spans of each name and return all spans."""
    await asyncio.to_thread(until, lambda: all(collector.named(name) for name in names))
    return collector.spans


def line(spans: list[Seen], span: Seen) -> list[str]:
    """Return the names of ``span`` and its ancestors up to the caller's span."""
    by_id = {one.id: one for one in spans}
    names = [span.name]
    while (parent := by_id.get(span.parent)) is not None:
        span = parent
        names.append(span.name)
    assert span.parent == SPAN, names
    return names


async def test_one_trace_spans_request_run_step_model_tool_and_sql(
    start: Start, collector: Collector, provider: FakeProvider
) -> None:
    server = await start(**using(provider))
    await asked(server, **TRACEPARENT)
    await arrived(collector, "POST", "invoke_agent", "chat", "execute_tool", "commit")
    await asyncio.to_thread(server.stop)
    spans = [span for span in collector.spans if span.trace == TRACE]
    [request], [run], [tool] = (
        [span for span in spans if span.name.startswith(name)] for name in ("POST", "invoke_agent", "execute_tool")
    )
    assert (request.name, request.kind) == ("POST /api/v1/runs/wait", 2)
    assert request.attributes["http.response.status_code"] == 200
    assert (run.name, run.kind) == ("invoke_agent assistant", 1)
    assert run.attributes["gen_ai.agent.name"] == "assistant"
    assert run.attributes["agent.run.status"] == "success"
    assert tool.name == "execute_tool calculator"
    above = ["invoke_agent assistant", "POST /api/v1/runs/wait"]
    assert line(spans, tool) == ["execute_tool calculator", "step tools", *above]
    chats = [span for span in spans if span.name == "chat tiny-chat"]
    assert [line(spans, chat) for chat in chats] == [["chat tiny-chat", "step agent", *above]] * 2
    assert {chat.kind for chat in chats} == {3}
    attributes = chats[0].attributes
    assert attributes["gen_ai.provider.name"] == "openai"
    assert attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert attributes["gen_ai.usage.output_tokens"] > 0
    commits = [line(spans, span) for span in spans if span.name == "commit runs"]
    assert ["commit runs", "step agent", *above] in commits
    assert ["commit runs", "step tools", *above] in commits
    assert ["accept runs", "POST /api/v1/runs/wait"] in [line(spans, span) for span in spans]
    assert all(
        span.attributes["db.system.name"] == "postgresql" for span in spans if "db.query.summary" in span.attributes
    )
    assert not [span for span in spans if CANARY in str(span.attributes)]
    assert request.resource["service.name"] == "agent-service"
    assert len(request.resource["service.instance.id"]) == 36


async def test_message_content_is_in_spans_only_on_request(
    start: Start, collector: Collector, provider: FakeProvider
) -> None:
    server = await start(**using(provider), OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true")
    await asked(server)
    await arrived(collector, "invoke_agent")
    first, second = (span.attributes for span in collector.named("chat"))
    assert CANARY in first["gen_ai.input.messages"]
    assert CANARY in second["gen_ai.output.messages"]
    [tool] = collector.named("execute_tool")
    assert "6*7" in tool.attributes["gen_ai.tool.call.arguments"]
    assert "42" in tool.attributes["gen_ai.tool.call.result"]


async def test_durations_have_an_exemplar_span(start: Start, collector: Collector, provider: FakeProvider) -> None:
    """As exemplars of pushed metrics; the page has none."""
    server = await start(**using(provider))
    await asked(server, **TRACEPARENT)
    await arrived(collector, "POST", "invoke_agent", "execute_tool")

    def exemplars() -> dict[str, str]:
        names = {span.id: span.name for span in collector.spans if span.trace == TRACE}
        return {
            name: names[one.span_id.hex()]
            for export in collector.metrics
            for name, metric in export.items()
            if name != "resource"
            for point in metric.histogram.data_points
            for one in point.exemplars
            if one.trace_id.hex() == TRACE
        }

    await asyncio.to_thread(until, lambda: len(exemplars()) == 5)
    assert exemplars() == {
        "http.server.request.duration": "POST /api/v1/runs/wait",
        "agent.run.duration": "invoke_agent assistant",
        "gen_ai.client.operation.duration": "step agent",
        "gen_ai.server.time_to_first_token": "step agent",
        "gen_ai.execute_tool.duration": "execute_tool calculator",
    }
    async with httpx.AsyncClient(base_url=server.base.removesuffix("/api/v1")) as http:
        page = (await http.get("/metrics", headers={"Accept": "application/openmetrics-text"})).text
    assert TRACE not in page


async def test_the_executing_process_continues_the_trace_of_the_accepting_one(
    start: Start, collector: Collector
) -> None:
    accepting = await start(AGENT_ROLE="api")
    await asked(accepting, "/runs", **TRACEPARENT)
    executing = await start(AGENT_ROLE="worker")
    spans = [span for span in await arrived(collector, "invoke_agent", "POST") if span.trace == TRACE]
    run = next(span for span in spans if span.name.startswith("invoke_agent"))
    assert line(spans, run) == ["invoke_agent assistant", "POST /api/v1/runs"]
    assert executing.process.pid != accepting.process.pid
    assert len({span.resource["service.instance.id"] for span in spans}) == 2


@pytest.mark.parametrize(
    "settings, headers, taken",
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, TRACEPARENT, False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, TRACEPARENT, True),
        ({}, {"traceparent": f"00-{TRACE}-{SPAN}-00"}, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, {}, False),
    ],
)
async def test_traces_are_sampled_by_the_standard_variables(
    start: Start, collector: Collector, settings: dict[str, str], headers: dict[str, str], taken: bool
) -> None:
    server = await start(**settings)
    await asked(server, **headers)
    await asyncio.to_thread(server.stop)
    assert bool(collector.spans) is taken
    assert collector.metrics


async def test_metrics_are_pushed_and_the_sdks_own_variables_count(start: Start, collector: Collector) -> None:
    server = await start(
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.version=7",
        OTEL_SERVICE_NAME="mine",
        OTEL_EXPORTER_OTLP_HEADERS="x-token=secret",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_TRACES_EXPORTER="none",
    )
    for _ in range(3):
        await asked(server)

    def runs() -> int:
        export = collector.metrics[-1] if collector.metrics else {}
        return int(export["agent.runs"].sum.data_points[0].as_double) if "agent.runs" in export else 0

    await asyncio.to_thread(until, lambda: runs() == 3)
    export = collector.metrics[-1]
    assert export["resource"]["service.name"] == "mine"
    assert export["resource"]["service.version"] == "7"
    assert export["resource"]["deployment.environment.name"] == "test"
    assert {headers["x-token"] for headers in collector.headers} == {"secret"}
    runs_sum = export["agent.runs"].sum
    assert (runs_sum.is_monotonic, runs_sum.aggregation_temporality) == (True, 2)
    durations = export["http.server.request.duration"].histogram.data_points
    waits = next(point for point in durations if "/api/v1/runs/wait" in str(point.attributes))
    assert (waits.count, sum(waits.bucket_counts), len(waits.bucket_counts)) == (3, 3, len(waits.explicit_bounds) + 1)
    assert waits.sum > 0
    assert export["agent.workers"].sum.data_points[0].as_double == 1


async def test_sums_may_be_exported_as_deltas(start: Start, collector: Collector) -> None:
    server = await start(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")
    for _ in range(2):
        await asked(server)
        collector.metrics_seen = len(collector.metrics)
        await asyncio.to_thread(until, lambda: len(collector.metrics) > collector.metrics_seen + 1)
    await asyncio.to_thread(server.stop)
    sums = [one["agent.runs"].sum for one in collector.metrics if "agent.runs" in one]
    assert {one.aggregation_temporality for one in sums} == {1}
    assert sum(one.data_points[0].as_double for one in sums) == 2


async def test_an_unavailable_collector_costs_nothing_but_an_occasional_log_line(
    start: Start, collector: Collector
) -> None:
    collector.status = 400
    server = await start(LOG_FORMAT="json")
    for _ in range(5):
        await asked(server)
    await asyncio.to_thread(until, lambda: collector.asked > 10)
    lines = [line for line in server.log.read_text().splitlines() if "opentelemetry" in line]
    assert 1 <= len(lines) <= 2  # one per exporter
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"http://127.0.0.1:{server.port}/metrics")).text
    failures = [line for line in page.splitlines() if line.startswith("agent_otlp_failures_total")]
    assert len(failures) == 2 or await _later(server)
    await asyncio.to_thread(server.stop)
    assert server.process.returncode == 0


async def _later(server: Served) -> bool:
    """The counters of the exporter are sampled every few seconds."""

    def there() -> bool:
        page = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
        return page.count("agent_otlp_failures_total{") == 2

    await asyncio.to_thread(until, there)
    return True


async def test_without_a_collector_nothing_is_logged_about_one(start: Start) -> None:
    server = await start(OTEL_EXPORTER_OTLP_ENDPOINT="", OTEL_SERVICE_NAME="x", LOG_LEVEL="debug")
    await asked(server, **TRACEPARENT)
    await asyncio.to_thread(server.stop)
    assert "otel" not in server.log.read_text().lower()
    assert "opentelemetry" not in server.log.read_text().lower()
