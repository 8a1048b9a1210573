"""Spans that the code of agents makes through the OpenTelemetry API are part of the run's trace."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.database import clone, drop
from tests.journeys.conftest import Served
from tests.llm.fake_provider import FakeProvider
from tests.llm.wires import Say
from tests.telemetry.collector import Collector, Seen
from tests.waiting import until

TRACE, UNSAMPLED, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
AGENTS = """\
[agents.helper]
model = "openai:tiny-chat"
tools = ["./code.py:look_up", "./code.py:compute"]
[agents.walker]
function = "./code.py:walk"
"""
CODE = """\
import asyncio
import httpx
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

from app.agents.function import Context

HTTPXClientInstrumentor().instrument()
tracer = trace.get_tracer("shop", "1.0")


async def look_up() -> str:
    "Look something up with a library that is instrumented."
    async with httpx.AsyncClient() as http:
        return (await http.get("{url}/stock")).text


def compute() -> str:
    "Compute in a thread."
    with tracer.start_as_current_span("computed") as span:
        span.set_attribute("shop.items", 3)
        with tracer.start_as_current_span("part"):
            return "3"


async def pack() -> str:
    with tracer.start_as_current_span("packed"):
        return await asyncio.to_thread(seal)


def seal() -> str:
    with tracer.start_as_current_span("sealed"):
        return "done"


async def walk(context: Context) -> str:
    with tracer.start_as_current_span("planned"):
        pass
    await context.step("pack", pack)
    with tracer.start_as_current_span("arrived"):
        return "There."
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def server(
    server_url: str, tmp_path: Path, collector: Collector, provider: FakeProvider
) -> AsyncIterator[Served]:
    """A server with these agents that pushes to ``collector``."""
    url = await clone(server_url)
    (tmp_path / "agents.toml").write_text(AGENTS)
    (tmp_path / "code.py").write_text(CODE.replace("{url}", collector.url))
    served = Served(
        url,
        tmp_path,
        AGENT_CONFIG=str(tmp_path / "agents.toml"),
        OPENAI_API_KEY="sk-x",
        OPENAI_BASE_URL=f"{provider.url}/v1",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="50",
        OTEL_METRICS_EXPORTER="none",
    )
    try:
        await asyncio.to_thread(served.wait_until_ready)
        yield served
    finally:
        await asyncio.to_thread(served.stop)
        await drop(server_url, url)


async def run(server: Served, agent: str, traceparent: str) -> None:
    """Run ``agent`` in the caller's trace."""
    async with httpx.AsyncClient(base_url=server.base, timeout=30) as http:
        body = {"assistant_id": agent, "input": {"messages": "Go."}}
        answer = await http.post("/runs/wait", json=body, headers={"traceparent": traceparent})
        assert "__error__" not in answer.raise_for_status().text, answer.text


@pytest.mark.timeout(120)
async def test_spans_of_tools_functions_and_their_libraries_join_the_trace_of_the_run(
    server: Served, collector: Collector, provider: FakeProvider
) -> None:
    calls = Say(text="", calls=[("look_up", "{}"), ("compute", "{}")])
    provider.plan(calls, Say(text="Done."), calls, Say(text="Done."))
    await run(server, "helper", f"00-{UNSAMPLED}-{CALLER}-00")
    await run(server, "helper", f"00-{TRACE}-{CALLER}-01")
    await run(server, "walker", f"00-{TRACE}-{CALLER}-01")
    names = ("GET", "computed", "part", "planned", "packed", "sealed", "arrived", "invoke_agent walker", "execute_tool")
    await asyncio.to_thread(until, lambda: all(collector.named(name) for name in names))
    await asyncio.to_thread(server.stop)
    spans = {span.id: span for span in collector.spans}
    assert {span.trace for span in spans.values()} == {TRACE}

    def only(name: str) -> Seen:
        [span] = collector.named(name)
        return span

    def parent(name: str) -> str:
        return spans[only(name).parent].name

    assert parent("GET") == "execute_tool look_up"
    assert parent("computed") == "execute_tool compute"
    assert parent("part") == "computed"
    assert parent("planned") == parent("packed") == "step pack"
    assert parent("sealed") == "packed"
    assert parent("arrived") == "step walk"
    assert only("computed").attributes == {"shop.items": 3}
    assert only("computed").resource["service.name"] == "agent-service"
    unsampled, sampled = (headers["traceparent"] for headers in collector.asked_for)
    assert (unsampled[:36], unsampled[-3:]) == (f"00-{UNSAMPLED}-", "-00")
    assert sampled == f"00-{TRACE}-{only('GET').id}-01"
