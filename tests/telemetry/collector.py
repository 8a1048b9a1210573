"""A collector on this machine: accepts OTLP/HTTP over a real socket and keeps the decoded requests.

It answers GET too, as the service that a tool calls.
"""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Seen:
    """The tested parts of a span."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name: str = span.name
        self.kind: int = span.kind
        self.trace = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.attributes = attributes_of(span.attributes)
        self.failed = span.status.code == 2
        self.resource = resource

    def __repr__(self) -> str:
        return f"{self.name} {self.attributes}"


class Collector:
    """``url`` is for ``OTEL_EXPORTER_OTLP_ENDPOINT``. Responds with ``status``."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.metrics: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked_for: list[dict[str, str]] = []
        """Headers of each GET."""
        self.status = 200
        self.asked = 0
        self.metrics_seen = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = collector.take(self.path, dict(self.headers.items()), body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                collector.asked_for.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        self.asked += 1
        if self.status != 200:
            return self.status
        self.headers.append({name.lower(): value for name, value in headers.items()})
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if path == "/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            self.spans += [
                Seen(span, attributes_of(one.resource.attributes))
                for one in request.resource_spans
                for scope in one.scope_spans
                for span in scope.spans
            ]
        else:
            for one in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                snapshot = {"resource": attributes_of(one.resource.attributes)}
                for scope in one.scope_metrics:
                    snapshot |= {metric.name: metric for metric in scope.metrics}
                self.metrics.append(snapshot)
        return 200

    def named(self, name: str) -> list[Seen]:
        """The spans with this name prefix."""
        return [span for span in self.spans if span.name.startswith(name)]


def attributes_of(pairs: Any) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(one) for one in value.array_value.values]
    return getattr(value, kind)
