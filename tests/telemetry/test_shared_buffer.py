"""Counts of all workers in shared memory are summed by each of them, and never decrease."""

import asyncio
import os
import threading
import time

import pytest
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.parser import text_string_to_metric_families as parse

from app.infra.telemetry import instruments
from app.infra.telemetry import shared_buffer as boards_module
from app.infra.telemetry.instruments import MAX_LABEL_LENGTH, OVERFLOW, Counter, Gauge, Histogram, TracedHistogram
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.prometheus_page import MetricsPage, Render, plain_name
from app.infra.telemetry.prometheus_page import samples as names_of
from app.infra.telemetry.shared_buffer import SCRATCH, MetricsBuffers, SharedMetricsBuffer
from app.infra.telemetry.snapshot import MetricsSnapshots
from app.infra.telemetry.trace_context import SpanContext, current_span

LABELS = {
    name: [*map(plain_name, part.labels), *(["le"] if name.endswith("_bucket") else [])]
    for part in Meters().instruments()
    for name in names_of(part)
}


async def samples(page: MetricsPage) -> dict[tuple[str, ...], float]:
    """What is on ``page``, by name and label values in the order of their declaration."""
    body, _ = await page.render()
    return {
        (sample.name, *(sample.labels[label] for label in LABELS.get(sample.name, sample.labels))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


async def test_every_worker_serves_the_totals_of_all_workers() -> None:
    buffers = MetricsBuffers(2)
    first, second = (Meters(buffer) for buffer in buffers)
    pages = [MetricsPage(meters, buffers, "1") for meters in (first, second)]
    first.runs.add(2, "success", "a")
    second.runs.add(3, "success", "a")
    second.runs.add(1, "error", "a")
    first.run_duration.record(0.2, "success", "a")
    second.run_duration.record(20, "success", "a")
    first.runs_active.add(4)
    second.runs_active.add(1)
    for page in pages:
        found = await samples(page)
        assert found["agent_runs_total", "success", "a"] == 5
        assert found["agent_runs_total", "error", "a"] == 1
        assert found["agent_run_duration_seconds_count", "success", "a"] == 2
        assert found["agent_run_duration_seconds_sum", "success", "a"] == 20.2
        assert found["agent_run_duration_seconds_bucket", "success", "a", "0.5"] == 1
        assert found["agent_runs_active",] == 5


async def test_series_that_come_after_a_scrape_are_on_the_next() -> None:
    buffers = MetricsBuffers(2)
    first, second = (Meters(buffer) for buffer in buffers)
    page = MetricsPage(first, buffers, "1")
    await page.render()
    second.runs.add(1, "success", "a")
    assert (await samples(page))["agent_runs_total", "success", "a"] == 1
    first.runs.add(1, "success", "a")
    assert (await samples(page))["agent_runs_total", "success", "a"] == 2


async def test_what_a_process_counts_is_seen_by_another_and_outlives_it() -> None:
    buffers = MetricsBuffers(2)
    page = MetricsPage(Meters(buffers.of(1)), buffers, "1")
    pid = os.fork()
    if pid == 0:
        meters = Meters(buffers.of(2))
        meters.runs.add(7, "success", "a")
        meters.streams_open.add(5)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, pid, 0)
    found = await samples(page)
    assert (found["agent_runs_total", "success", "a"], found["agent_streams_open",]) == (7, 5)
    buffers.on_worker_exit(2)
    found = await samples(page)
    assert (found["agent_runs_total", "success", "a"], found["agent_streams_open",]) == (7, 0)


async def test_a_successor_continues_counts_but_not_gauges() -> None:
    buffers = MetricsBuffers()
    before = Meters(buffers.of(1))
    before.runs.add(3, "success", "a")
    before.run_duration.record(1, "success", "a")
    before.streams_open.add(9)
    buffers.on_worker_exit(1)
    after = Meters(buffers.of(1))
    assert after.streams_open.series == {(): 0}
    after.runs.add(1, "success", "a")
    found = await samples(MetricsPage(after, buffers, "1"))
    assert found["agent_runs_total", "success", "a"] == 4
    assert found["agent_run_duration_seconds_count", "success", "a"] == 1
    assert found["agent_streams_open",] == 0


async def test_a_scrape_waits_for_the_thread_of_one_that_was_cancelled() -> None:
    """Two threads that read the rows of other workers at once would mix them up."""
    begun, go, loads = asyncio.Event(), threading.Event(), 0

    class SlowPage(MetricsPage):
        def _load(self) -> Render:
            nonlocal loads
            loads += 1
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(10)
            return super()._load()

    loop = asyncio.get_running_loop()
    buffers = MetricsBuffers(2)
    Meters(buffers.of(2)).runs.add(1, "success", "a")
    page = SlowPage(Meters(buffers.of(1)), buffers, "1")
    first = asyncio.create_task(page.render())
    await begun.wait()
    first.cancel()
    second = asyncio.create_task(samples(page))
    await asyncio.sleep(0.05)
    go.set()
    assert (await second)["agent_runs_total", "success", "a"] == 1
    assert loads == 1


async def test_exemplars_are_pushed_once_and_not_on_the_page() -> None:
    """An exemplar stays for at least a second, then a newer value replaces it."""
    meters = Meters()
    page = MetricsPage(meters, [meters.buffer], "1")
    snapshots = MetricsSnapshots(meters, [meters.buffer], Resource({}), InstrumentationScope("x"))
    current_span.set(SpanContext(b"\2" * 16, b"\2" * 8, sampled=True))
    meters.run_duration.record(0.2, "success", "a")
    meters.run_duration.record(0.3, "success", "a")
    current_span.set(SpanContext(b"x" * 16, b"x" * 8, sampled=False))
    meters.run_duration.record(700, "success", "a")
    for accept in ("", "application/openmetrics-text"):
        assert b"trace_id" not in (await page.render(accept))[0]

    def pushed() -> list[Exemplar]:
        [point] = [
            point
            for metric in snapshots.take().resource_metrics[0].scope_metrics[0].metrics
            for point in metric.data.data_points
            if metric.name == "agent.run.duration"
        ]
        assert isinstance(point, HistogramDataPoint)
        assert point.bucket_counts[point.explicit_bounds.index(0.5)] == 2
        return [*point.exemplars]

    [one] = pushed()
    assert (one.value, one.trace_id, one.span_id) == (0.2, int("02" * 16, 16), int("02" * 8, 16))
    assert abs(one.time_unix_nano / 1e9 - time.time()) < 60
    assert pushed() == []


def test_an_exemplar_that_is_being_written_is_none() -> None:
    buffer = SharedMetricsBuffer()
    histogram = TracedHistogram(buffer, "h", "s", "")
    current_span.set(SpanContext(b"x" * 16, b"x" * 8, sampled=True))
    histogram.record(1)
    at = buffer.refresh()[0].at
    [there] = histogram.exemplars(buffer, at)
    assert (there.value, there.trace_id, there.span_id) == (1, b"x" * 16, b"x" * 8)
    first = next(cell for cell in range(at, SCRATCH) if buffer.cells[cell] == there.at)
    buffer.cells[first] = 0
    assert not histogram.exemplars(buffer, at)


async def test_rows_of_other_declarations_are_left_alone() -> None:
    """A worker of ``dev --reload`` may have been another program."""
    buffer = SharedMetricsBuffer()
    buffer.add("agent.runs", ("success",), 1)
    buffer.add("agent.run.duration", ("success", "a"), 3)
    buffer.add("agent.gone", (), 1)
    meters = Meters(buffer)
    meters.runs.add(1, "success", "a")
    assert meters.runs.series == {("success", "a"): 1}
    assert meters.run_duration.series == {}
    assert (await samples(MetricsPage(meters, [buffer], "1")))["agent_runs_total", "success", "a"] == 1


async def test_a_gauge_that_all_workers_report_is_their_maximum() -> None:
    buffers = MetricsBuffers(2)
    gauges = [Gauge(buffer, "agent.x", "{run}", "", greatest=True) for buffer in buffers]
    for buffer, gauge, number in zip(buffers, gauges, (5, 3), strict=True):
        buffer.attach()
        gauge.set(number)

    class Two(Meters):
        def instruments(self) -> list[Counter | Gauge | Histogram]:
            return [gauges[0]]

    page = MetricsPage(Two(SharedMetricsBuffer()), buffers, "1")
    assert (await samples(page))["agent_x",] == 5
    buffers.on_worker_exit(1)
    assert (await samples(page))["agent_x",] == 3


async def test_a_label_is_cut_and_what_it_holds_cannot_break_the_page() -> None:
    buffer = SharedMetricsBuffer()
    meters = Meters(buffer)
    nasty = 'a"b\\c\nd,}{ ' + "é" * 300
    for _ in range(2):
        meters.runs.add(1, "success", nasty)
    assert meters.runs.series == {("success", nasty[:MAX_LABEL_LENGTH]): 2}
    assert (await samples(MetricsPage(meters, [buffer], "1")))[
        "agent_runs_total", "success", nasty[:MAX_LABEL_LENGTH]
    ] == 2


def test_a_full_buffer_counts_in_the_overflow_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "MAX_SERIES", 10**6)
    buffer = SharedMetricsBuffer()
    buffer.attach()
    counter = Counter(buffer, "a" * 1000, "", "", ("id",))
    number = 0
    while (OVERFLOW,) not in counter.series:
        counter.add(1, f"{number}")
        number += 1
    before = sum(counter.series.values())
    assert before == number
    histograms = [Histogram(buffer, f"h{number}", "s", "", ("id",)) for number in range(20_000)]
    for histogram in histograms:
        histogram.record(1, "x")
        histogram.record(1, "y")
    assert SCRATCH in histograms[-1]._at.values()
    assert sum(counter.series.values()) == before
    assert buffer.is_alive
    assert len(buffer.refresh()) == len({row.at for row in Reread(buffer).rows()})


class Reread:
    """``buffer`` as a process sees it that reads it for the first time."""

    def __init__(self, buffer: SharedMetricsBuffer) -> None:
        self._buffer = SharedMetricsBuffer()
        self._buffer._memory, self._buffer.cells = buffer._memory, buffer.cells

    def rows(self) -> list[boards_module.SeriesRow]:
        return self._buffer.refresh()


@pytest.mark.parametrize("garbage", [b"null\n", b"{\n", b'["a"]\n', b'["a", "b"]\n', b'["a", 99999]\n', b"[" * 9000])
def test_rows_that_another_worker_corrupted_are_left_out(garbage: bytes) -> None:
    buffer = SharedMetricsBuffer()
    buffer.add("good", ("x",), 1)
    used = int(buffer.cells[0])
    buffer.bytes[64 + used : 64 + used + len(garbage)] = garbage
    buffer.cells[0] = used + len(garbage)
    reader = SharedMetricsBuffer()
    reader.bytes[:] = buffer.bytes
    assert [row.name for row in reader.refresh()] == ["good"]
    assert [row.name for row in reader.refresh()] == ["good"]
    for size in (-1.0, 1e300, float("nan")):
        reader.cells[0] = size
        assert [row.name for row in reader.refresh()] == ["good"]
