"""Pushes spans and metrics by OTLP/HTTP, with the transport of the OpenTelemetry SDK: its variables just work.

Imported where an endpoint is set: the SDK takes 16 MB and 0.15 s.
"""

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid5

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource

from app.infra.settings import TelemetrySettings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.otlp_encoding import OtlpEnvelope, encoded
from app.infra.telemetry.snapshot import MetricsSnapshots
from app.infra.telemetry.tracing import Span

log = structlog.get_logger(__name__)

SCOPE = "agent-service"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"
LAST_SECONDS = 2.0
"""How long what is left may take at the end."""

PIECE = 64
"""Spans that are encoded in a row, by the event loop, in a tenth of a millisecond: each takes half of what it takes
among other work, and no other thread has to ask for the interpreter."""

_PLACES = UUID("5f7f2f3c-53c2-4c8e-9f0a-0d6c1b7e9a11")


def resource_of(meters: Meters, version: str) -> Resource:
    """Who tells: what ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` say, and what we know where they do not.

    The id of an instance belongs to a worker's place: who comes after one that died goes on with its counts.
    """
    given = Resource.create()
    board = meters.board
    ours = {
        "service.name": SCOPE,
        "service.version": version,
        "service.instance.id": str(uuid5(_PLACES, f"{socket.gethostname()} {board.began} {board.number}")),
    }
    said = {key: value for key, value in given.attributes.items() if not str(value).startswith("unknown_service")}
    return Resource({**ours, **said})


class _SpanExporter(OTLPSpanExporter):
    """The SDK's exporter for spans that are encoded already."""

    def send(self, request: bytes) -> bool:
        """Whether a collector took ``request``."""
        return bool(self._client.export(request).success)


class _Pusher:
    """A thread that pushes every ``seconds``, when it is woken, and at the end."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._wake = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        ends = False
        while not ends:
            woken = self._wake.wait(self._seconds)
            self._wake.clear()
            ends = self._ends
            self.push(all_of_it=ends or not woken)

    def push(self, *, all_of_it: bool) -> None:
        """Send what there is; unless it shall be ``all_of_it``, what is worth a request."""
        raise NotImplementedError

    def end(self, deadline: float) -> None:
        """Push what is left, until ``deadline``."""
        self._ends = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))


class SpanPusher(_Pusher):
    """Gathers spans, encodes them, sends them in batches. A queue that is full drops, and counts."""

    def __init__(self, settings: TelemetrySettings, resource: Resource, version: str) -> None:
        super().__init__("spans", settings.span_delay / 1000)
        self._max_queued = settings.span_queue
        self._batch = min(settings.span_batch, self._max_queued)
        self._longest = settings.max_attribute_length
        self._envelope = OtlpEnvelope(_plain(resource), SCOPE, version, SCHEMA_URL)
        self._ended: deque[Span] = deque()
        self._encoded: deque[bytes] = deque()
        self._exporter = _SpanExporter()
        self.dropped = 0

    def take(self, span: Span) -> None:
        """``span`` has ended (``app.infra.telemetry.tracing.SpanSink``)."""
        ended = self._ended
        ended.append(span)
        if len(ended) >= PIECE:
            self._encode()
            if len(self._encoded) >= self._batch:
                self._wake.set()

    def _encode(self) -> None:
        """Encode what has ended, if it finds room. Both threads may, and each span is taken by one."""
        with contextlib.suppress(IndexError):
            while len(self._encoded) < self._max_queued:
                self._encoded.append(encoded(self._ended.popleft(), self._longest))
            self.dropped += len(self._ended)
            self._ended.clear()

    def push(self, *, all_of_it: bool) -> None:
        """Send what waits, in batches: the last one, which is not full, waits for more unless it shall go too."""
        if all_of_it:
            self._encode()
        while len(self._encoded) >= (1 if all_of_it else self._batch):
            batch = [self._encoded.popleft() for _ in range(min(self._batch, len(self._encoded)))]
            if not self._exporter.send(self._envelope.around(batch)):
                self.failures += 1
                self.dropped += len(batch)

    def end(self, deadline: float) -> None:
        """Send the last."""
        super().end(deadline)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class MetricPusher(_Pusher):
    """Sends what this worker has counted."""

    def __init__(self, settings: TelemetrySettings, meters: Meters, resource: Resource, version: str) -> None:
        super().__init__("metrics", settings.metric_interval / 1000)
        delta = settings.temporality.lower() == "delta"
        self._snapshots = MetricsSnapshots(meters, resource, (SCOPE, version, SCHEMA_URL), delta=delta)
        self._exporter = OTLPMetricExporter()

    def push(self, *, all_of_it: bool) -> None:
        """Send a snapshot."""
        if self._exporter.export(self._snapshots.take()) is not MetricExportResult.SUCCESS:
            self.failures += 1

    def end(self, deadline: float) -> None:
        """Send the last."""
        super().end(deadline)
        self._exporter.shutdown()


class OtlpPush:
    """What is pushed from this process; ``take`` is where spans go, if any."""

    def __init__(self, settings: TelemetrySettings, meters: Meters, version: str) -> None:
        resource = resource_of(meters, version)
        self._meters = meters
        self._pushers: dict[str, _Pusher] = {}
        self._reported: dict[tuple[str, str], int] = {}
        self.take: Callable[[Span], None] | None = None
        if settings.pushes_spans:
            self._pushers["traces"] = spans = SpanPusher(settings, resource, version)
            self.take = spans.take
        if settings.pushes_metrics:
            self._pushers["metrics"] = MetricPusher(settings, meters, resource, version)

    def start(self) -> None:
        """Begin to push."""
        for pusher in self._pushers.values():
            pusher.start()

    def sample(self) -> None:
        """Count what could not be sent."""
        for signal, pusher in self._pushers.items():
            self._count(self._meters.push_failures, signal, "failures", pusher)
            if isinstance(pusher, SpanPusher):
                self._count(self._meters.spans_dropped, signal, "dropped", pusher)

    def _count(self, meter: Any, signal: str, name: str, pusher: _Pusher) -> None:
        now, before = getattr(pusher, name), self._reported.get((signal, name), 0)
        if now > before:
            meter.add(now - before, *([signal] if meter.labels else []))
            self._reported[signal, name] = now

    def end(self) -> None:
        """Push what is left; blocks for a few seconds at most."""
        deadline = time.monotonic() + LAST_SECONDS
        for pusher in self._pushers.values():
            pusher.end(deadline)


def _plain(resource: Resource) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value

    return {key: plain(value) for key, value in resource.attributes.items()}
