"""Telemetry settings: OpenTelemetry's own names, as far as this program reads them itself."""

from typing import Annotated, Any, Literal

import msgspec

from app.infra.settings.declaration import HTTP, is_

FRACTION: dict[str, Any] = {"ge": 0.5, "le": 0.99999}


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Telemetry (OpenTelemetry's own names; its SDK reads others too, such as headers, timeouts and certificates)"""

    endpoint: Annotated[
        str,
        is_(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "The OTLP/HTTP endpoint for spans and metrics. Unset: nothing is exported.",
            examples=["http://localhost:4318"],
            **HTTP,
        ),
    ] = ""
    traces_endpoint: Annotated[
        str,
        is_(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "The endpoint for spans, with its path.",
            examples=["http://localhost:4318/v1/traces"],
            **HTTP,
        ),
    ] = ""
    metrics_endpoint: Annotated[
        str,
        is_(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "The endpoint for metrics, with its path.",
            examples=["http://localhost:4318/v1/metrics"],
            **HTTP,
        ),
    ] = ""
    disabled: Annotated[bool, is_("OTEL_SDK_DISABLED", "Export nothing, whatever else is set.")] = False
    traces_exporter: Annotated[
        str, is_("OTEL_TRACES_EXPORTER", "`none`: no spans are created.", examples=["otlp", "none"])
    ] = "otlp"
    metrics_exporter: Annotated[
        str,
        is_("OTEL_METRICS_EXPORTER", "`none`: metrics are only scraped.", examples=["otlp", "none"]),
    ] = "otlp"
    sampler: Annotated[
        Literal[
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ],
        is_("OTEL_TRACES_SAMPLER", "Which traces are sampled."),
    ] = "parentbased_always_on"
    sampler_ratio: Annotated[
        float, is_("OTEL_TRACES_SAMPLER_ARG", "The sampling ratio of a `traceidratio` sampler.", ge=0, le=1)
    ] = 1.0
    span_delay: Annotated[
        float, is_("OTEL_BSP_SCHEDULE_DELAY", "Maximum milliseconds that spans are buffered.", ge=1, le=3_600_000)
    ] = 5000
    span_queue: Annotated[
        int, is_("OTEL_BSP_MAX_QUEUE_SIZE", "Spans in the queue; more are dropped.", ge=1, le=1_000_000)
    ] = 8192
    span_batch: Annotated[int, is_("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "Spans per request.", ge=1, le=100_000)] = 2048
    max_attribute_length: Annotated[
        int,
        is_(
            "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "Maximum characters of a span attribute (0: no limit).",
            ge=0,
            le=100_000_000,
        ),
    ] = 0
    metric_interval: Annotated[
        float, is_("OTEL_METRIC_EXPORT_INTERVAL", "Milliseconds between two exports.", ge=100, le=86_400_000)
    ] = 60_000
    temporality: Annotated[
        str,
        is_(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "`delta`: sums count since the previous export.",
            examples=["cumulative", "delta"],
        ),
    ] = "cumulative"
    content: Annotated[
        str,
        is_(
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "`true`: spans contain the content of messages and tool calls.",
            examples=["true", "span_only"],
        ),
    ] = ""
    opt_in: Annotated[
        str,
        is_(
            "OTEL_SEMCONV_STABILITY_OPT_IN",
            "Newer names, see `docs/reference/metrics.md`.",
            examples=["gen_ai_latest_experimental"],
        ),
    ] = ""

    @property
    def pushes_spans(self) -> bool:
        """Whether spans are exported."""
        wanted = "otlp" in _words(self.traces_exporter)
        return not self.disabled and wanted and bool(self.endpoint or self.traces_endpoint)

    @property
    def pushes_metrics(self) -> bool:
        """Whether metrics are exported by OTLP."""
        wanted = "otlp" in _words(self.metrics_exporter)
        return not self.disabled and wanted and bool(self.endpoint or self.metrics_endpoint)

    @property
    def sampling(self) -> tuple[float, bool]:
        """The sampling ratio, and whether a caller's decision takes precedence."""
        kind = self.sampler.removeprefix("parentbased_")
        ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind, self.sampler_ratio)
        return ratio, self.sampler.startswith("parentbased_")

    @property
    def captures_content(self) -> bool:
        """Whether spans may contain message content."""
        return self.content.lower() in {"true", "span_only", "span_and_event"}

    def opts_in(self, name: str) -> bool:
        """Whether ``OTEL_SEMCONV_STABILITY_OPT_IN`` names ``name``."""
        return name in _words(self.opt_in)


class ObjectiveSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Objectives (what the alerts in `deploy/prometheus` are measured against; exported as gauges)"""

    availability: Annotated[
        float, is_("AGENT_SLO_AVAILABILITY", "Objective: the fraction of API requests that succeed.", **FRACTION)
    ] = 0.999
    first_token: Annotated[
        float,
        is_("AGENT_SLO_FIRST_TOKEN", "Objective: the fraction of model responses that begin within 2.5 s.", **FRACTION),
    ] = 0.95
    runs: Annotated[
        float,
        is_("AGENT_SLO_RUNS", "Objective: the fraction of runs that succeed, cancelled ones excluded.", **FRACTION),
    ] = 0.99
    checkpoints: Annotated[
        float, is_("AGENT_SLO_CHECKPOINTS", "Objective: the fraction of steps whose checkpoint is durable.", **FRACTION)
    ] = 0.9999
    disk_gb: Annotated[
        float,
        is_(
            "AGENT_DATABASE_DISK_GB",
            "Gigabytes that the database may grow to, for the alert that forecasts a full disk (0: unknown).",
            ge=0,
            le=10_000_000,
        ),
    ] = 0


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",")}
