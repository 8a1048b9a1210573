"""Every instrument of this program, declared once.

Instruments count in plain Python numbers (under 1 µs a call; the OpenTelemetry SDK takes 6) and are read when somebody
scrapes. Names and units follow the OpenTelemetry semantic conventions; labels are bounded: never an id, never what a
client sent. Not for threads: call them on the event loop.
"""

from bisect import bisect_left
from collections.abc import Sequence

MOST_SERIES = 1000
"""Label sets an instrument keeps; what comes after is counted under ``OVERFLOW``."""
OVERFLOW = "overflow"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
RUN_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
MODEL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)

Labels = tuple[str, ...]


class Instrument:
    """A named quantity. ``labels`` are the names of the values that every call gives, in this order."""

    def __init__(self, name: str, unit: str, description: str, labels: Labels = ()) -> None:
        self.name = name
        self.unit = unit
        self.description = description
        self.labels = labels
        self.overflow: Labels = (OVERFLOW,) * len(labels)


class Counter(Instrument):
    """A sum that only grows."""

    def __init__(self, name: str, unit: str, description: str, labels: Labels = ()) -> None:
        super().__init__(name, unit, description, labels)
        self.series: dict[Labels, float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add ``amount`` to the series of these label values."""
        if values not in self.series:
            values = values if len(self.series) < MOST_SERIES else self.overflow
            self.series.setdefault(values, 0)
        self.series[values] += amount


class Gauge(Counter):
    """A number that goes up and down: ``add`` also takes negative amounts."""


class Distribution:
    """What one series of a histogram has seen: ``counts`` per bucket (the last one without a bound) and the sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Histogram(Instrument):
    """How values are distributed over ``bounds``, each the inclusive upper end of its bucket."""

    def __init__(
        self, name: str, unit: str, description: str, labels: Labels = (), bounds: Sequence[float] = SECONDS
    ) -> None:
        super().__init__(name, unit, description, labels)
        self.bounds = tuple(bounds)
        self.series: dict[Labels, Distribution] = {}

    def record(self, value: float, *values: str) -> None:
        """Count ``value`` in the series of these label values."""
        seen = self.series.get(values) or self._new(values)
        seen.counts[bisect_left(self.bounds, value)] += 1
        seen.total += value

    def _new(self, values: Labels) -> Distribution:
        if len(self.series) >= MOST_SERIES:
            values = self.overflow
        return self.series.setdefault(values, Distribution(len(self.bounds) + 1))


class Meters:
    """The instruments of one process. Built by the wiring and passed to who counts."""

    def __init__(self) -> None:
        self.http_server_request_duration = Histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests, streams until their end.",
            ("http.request.method", "http.route", "http.response.status_code"),
        )
        self.runs = Counter("agent.runs", "{run}", "Runs that ended.", ("status", "assistant"))
        self.run_duration = Histogram(
            "agent.run.duration", "s", "Start to end of a run.", ("status", "assistant"), RUN_SECONDS
        )
        self.leases_lost = Counter("agent.lease.lost", "{run}", "Runs stopped here because their lease was lost.")
        self.webhooks = Counter("agent.webhooks", "{attempt}", "Webhook calls, by outcome.", ("outcome",))
        self.runs_active = Gauge("agent.runs.active", "{run}", "Runs that this process works on now.")
        self.streams_open = Gauge(
            "agent.streams.open", "{stream}", "Answers that are being streamed or waited for now."
        )
        self.tool_calls = Counter("agent.tool.calls", "{call}", "Tool calls that ended.", ("tool", "outcome"))
        self.ratelimit_rejected = Counter(
            "agent.ratelimit.rejected", "{request}", "Requests that a limit refused.", ("limit",)
        )
        self.secret_rotations = Counter(
            "agent.secret.rotations",
            "{rotation}",
            "Secrets that were read anew, and new ones that were refused.",
            ("name", "outcome"),
        )
        self.model_duration = Histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Duration of calls to a model.",
            ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "error.type"),
            MODEL_SECONDS,
        )
        self.model_tokens = Histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens read and written by a model.",
            ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.token.type"),
            TOKENS,
        )
        self.loop_lag = Histogram(
            "agent.event_loop.lag", "s", "How late the event loop runs a timer.", bounds=LAG_SECONDS
        )

    def instruments(self) -> list[Counter | Gauge | Histogram]:
        """All of them, in the order of their declaration."""
        return [part for part in vars(self).values() if isinstance(part, Counter | Histogram)]
