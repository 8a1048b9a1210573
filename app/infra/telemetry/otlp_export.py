"""Export spans and metrics by OTLP/HTTP, over the transport of the OpenTelemetry SDK, whose variables apply.

Import it only if an endpoint is set: the SDK takes 16 MB and 0.15 s.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid5

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app.infra.settings import TelemetrySettings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.opentelemetry_api import attach, install
from app.infra.telemetry.opentelemetry_internals import EncodedSpanExporter, suppress_instrumentation
from app.infra.telemetry.otlp_encoding import OtlpEnvelope, encoded
from app.infra.telemetry.snapshot import MetricsSnapshots
from app.infra.telemetry.tracing import Span

log = structlog.get_logger(__name__)

Queued = TypeVar("Queued")

SCOPE = "agent-service"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
LAST_SECONDS = 2.0
"""Timeout of the final export."""

ENCODE_BATCH = 64
"""Spans that the event loop encodes at once, in 0.1 ms: in a batch each takes half the time, and no other thread has to
wait for the interpreter lock.
"""

_INSTANCES = UUID("5f7f2f3c-53c2-4c8e-9f0a-0d6c1b7e9a11")


def resource_of(meters: Meters, version: str) -> Resource:
    """Return the resource: ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME``, completed by our defaults.

    The instance id belongs to a worker's slot: the successor of a dead worker continues its counts.
    """
    given = Resource.create()
    buffer = meters.buffer
    ours = {
        "service.name": SCOPE,
        "service.version": version,
        "service.instance.id": str(uuid5(_INSTANCES, f"{socket.gethostname()} {buffer.created_at} {buffer.number}")),
    }
    configured = {key: value for key, value in given.attributes.items() if not str(value).startswith("unknown_service")}
    return Resource({**ours, **configured})


class _Pusher:
    """A thread that exports every ``seconds``, when woken, and on shutdown."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failures = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        suppress_instrumentation()
        ends = False
        while not ends:
            woken = self._wake.wait(self._seconds)
            self._wake.clear()
            ends = self._stopping
            self.push(everything=ends or not woken)

    def push(self, *, everything: bool) -> None:
        """Export what is queued: everything, or only full batches."""
        raise NotImplementedError

    def shut_down(self, deadline: float) -> None:
        """Export what is left, until ``deadline``."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))


class SpanPusher(_Pusher):
    """Queues spans, encodes them and sends them in batches. Spans beyond the queue are dropped and counted.

    Spans of the OpenTelemetry API have a queue of their own, and are encoded by the exporter.
    """

    def __init__(self, settings: TelemetrySettings, resource: Resource, version: str) -> None:
        super().__init__("spans", settings.span_delay / 1000)
        self._max_queued = settings.span_queue
        self._batch = min(settings.span_batch, self._max_queued)
        self._max_length = settings.max_attribute_length
        self._envelope = OtlpEnvelope(_plain(resource), SCOPE, version, SCHEMA_URL)
        self._ended: deque[Span] = deque()
        self._encoded: deque[bytes] = deque()
        self._api_spans: deque[ReadableSpan] = deque()
        self._exporter = EncodedSpanExporter()
        self.dropped = 0

    def take(self, span: Span) -> None:
        """Queue an ended span (``app.infra.telemetry.tracing.SpanSink``)."""
        ended = self._ended
        ended.append(span)
        if len(ended) >= ENCODE_BATCH:
            self._encode()
            if len(self._encoded) >= self._batch:
                self._wake.set()

    def take_api(self, span: ReadableSpan) -> None:
        """Queue an ended span of the OpenTelemetry API. Thread-safe."""
        if len(self._api_spans) >= self._max_queued:
            self.dropped += 1
            return
        self._api_spans.append(span)
        if len(self._api_spans) >= self._batch:
            self._wake.set()

    def _encode(self) -> None:
        """Encode ended spans while the queue has space. Called from both threads; each span is taken by one."""
        with contextlib.suppress(IndexError):
            while len(self._encoded) < self._max_queued:
                self._encoded.append(encoded(self._ended.popleft(), self._max_length))
            self.dropped += len(self._ended)
            self._ended.clear()

    def push(self, *, everything: bool) -> None:
        """Send queued spans in batches; a partial batch waits for more, unless ``everything`` is set."""
        if everything:
            self._encode()
        self._send(self._encoded, lambda spans: self._exporter.send(self._envelope.around(spans)), everything)
        self._send(self._api_spans, lambda spans: self._exporter.export(spans) is SpanExportResult.SUCCESS, everything)

    def _send(self, queue: deque[Queued], export: Callable[[list[Queued]], bool], everything: bool) -> None:
        while len(queue) >= (1 if everything else self._batch):
            batch = [queue.popleft() for _ in range(min(self._batch, len(queue)))]
            if not export(batch):
                self.failures += 1
                self.dropped += len(batch)

    def shut_down(self, deadline: float) -> None:
        """Send the remaining spans."""
        super().shut_down(deadline)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class MetricPusher(_Pusher):
    """Exports the metrics of this worker."""

    def __init__(self, settings: TelemetrySettings, meters: Meters, resource: Resource, version: str) -> None:
        super().__init__("metrics", settings.metric_interval / 1000)
        delta = settings.temporality.lower() == "delta"
        scope = InstrumentationScope(SCOPE, version, SCHEMA_URL)
        self._snapshots = MetricsSnapshots(meters, [meters.buffer], resource, scope, delta=delta)
        self._exporter = OTLPMetricExporter()

    def push(self, *, everything: bool) -> None:
        """Export a snapshot."""
        if self._exporter.export(self._snapshots.take()) is not MetricExportResult.SUCCESS:
            self.failures += 1

    def shut_down(self, deadline: float) -> None:
        """Export the last snapshot."""
        super().shut_down(deadline)
        self._exporter.shutdown()


class OtlpPush:
    """The exporters of this process; ``take`` is the sink for spans, if spans are exported, and ``attach_api`` makes
    those of the OpenTelemetry API their children.
    """

    def __init__(self, settings: TelemetrySettings, meters: Meters, version: str) -> None:
        resource = resource_of(meters, version)
        self._meters = meters
        self._pushers: dict[str, _Pusher] = {}
        self._reported: dict[tuple[str, str], int] = {}
        self.take: Callable[[Span], None] | None = None
        self.attach_api = attach
        if settings.pushes_spans:
            self._pushers["traces"] = spans = SpanPusher(settings, resource, version)
            self.take = spans.take
            install(resource, spans.take_api)
        if settings.pushes_metrics:
            self._pushers["metrics"] = MetricPusher(settings, meters, resource, version)

    def start(self) -> None:
        """Start the exporters."""
        for pusher in self._pushers.values():
            pusher.start()

    def sample(self) -> None:
        """Record failures as metrics."""
        for signal, pusher in self._pushers.items():
            self._count(self._meters.push_failures, signal, "failures", pusher)
            if isinstance(pusher, SpanPusher):
                self._count(self._meters.spans_dropped, signal, "dropped", pusher)

    def _count(self, meter: Any, signal: str, name: str, pusher: _Pusher) -> None:
        now, before = getattr(pusher, name), self._reported.get((signal, name), 0)
        if now > before:
            meter.add(now - before, *([signal] if meter.labels else []))
            self._reported[signal, name] = now

    def shut_down(self) -> None:
        """Export what is left; blocks for a few seconds at most."""
        deadline = time.monotonic() + LAST_SECONDS
        for pusher in self._pushers.values():
            pusher.shut_down(deadline)


def _plain(resource: Resource) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value

    return {key: plain(value) for key, value in resource.attributes.items()}
