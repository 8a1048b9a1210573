"""The numbers of all workers as the text that Prometheus scrapes, in its own format or as OpenMetrics.

Naming: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

import asyncio
import threading
from collections.abc import Iterable
from itertools import accumulate, zip_longest

from app.infra.telemetry.instruments import EXEMPLAR_CELLS, Counter, Gauge, Histogram, TraceExemplar, exemplar
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import Labels, SeriesRow, SharedMetricsBuffer

UNITS = {"s": "seconds", "By": "bytes"}
"""Units that are part of a Prometheus name; counts such as ``{run}`` are not."""

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class MetricsPage:
    """The response of ``GET /metrics``: totals over the ``buffers`` of all workers."""

    def __init__(self, meters: Meters, buffers: Iterable[SharedMetricsBuffer], version: str) -> None:
        self._instruments = {part.name: part for part in meters.instruments()}
        self._buffers = list(buffers)
        self._seen = [0] * len(self._buffers)
        self._series: dict[str, dict[Labels, _Series]] = {name: {} for name in self._instruments}
        self._version = version
        self._lock = threading.Lock()

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return body and content type in the format that the ``Accept`` header prefers; rendered in a thread."""
        self._refresh()
        openmetrics = _prefers_openmetrics(accept)
        body = await asyncio.to_thread(self._render, openmetrics)
        return body, OPENMETRICS if openmetrics else PLAIN

    def _refresh(self) -> None:
        """Find series that are new since the last scrape."""
        for index, buffer in enumerate(self._buffers):
            rows = buffer.refresh()
            for row in rows[self._seen[index] :]:
                self._add(buffer, row)
            self._seen[index] = len(rows)

    def _add(self, buffer: SharedMetricsBuffer, row: SeriesRow) -> None:
        instrument = self._instruments.get(row.name)
        # a worker of another version may have left other declarations
        if instrument is not None and row.width == instrument.width and len(row.labels) == len(instrument.labels):
            series = self._series[row.name].get(row.labels)
            if series is None:
                series = self._series[row.name][row.labels] = _Series(instrument, row.labels)
            series.parts.append((buffer, row.at))

    def _render(self, openmetrics: bool) -> bytes:
        with self._lock:
            parts = [_target(self._version, openmetrics)]
            for instrument in self._instruments.values():
                parts.append(_head(instrument, openmetrics))
                parts += [series.text(openmetrics) for series in list(self._series[instrument.name].values())]
            if openmetrics:
                parts.append("# EOF\n")
            return "".join(parts).encode()


class _Series:
    """One series of an instrument, over all buffers that have it."""

    def __init__(self, instrument: Counter | Gauge | Histogram, values: Labels) -> None:
        self.parts: list[tuple[SharedMetricsBuffer, int]] = []
        """Its first cell in each buffer."""
        self._of = instrument
        pairs = [
            f'{plain_name(name)}="{_escaped(value)}"' for name, value in zip(instrument.labels, values, strict=True)
        ]
        first, *rest = samples(instrument)
        if isinstance(instrument, Histogram):
            self._lines = [_line(first, [*pairs, f'le="{end}"']) for end in ends(instrument)]
            self._lines += [_line(name, pairs) for name in rest]
        else:
            self._lines = [_line(first, pairs)]

    def text(self, openmetrics: bool) -> str:
        """Return its lines; empty for a gauge without a running worker."""
        of = self._of
        gauge = of if isinstance(of, Gauge) else None
        parts = [(buffer, at) for buffer, at in self.parts if gauge is None or buffer.is_alive]
        if not parts:
            return ""
        found = [buffer.cells[at : at + of.counted].tolist() for buffer, at in parts]
        merge = max if gauge is not None and gauge.greatest else sum
        merged = found[0] if len(found) == 1 else [merge(numbers) for numbers in zip(*found, strict=True)]
        lines = self._lines
        if isinstance(of, Histogram):
            *counts, total = merged
            counts = list(accumulate(counts))
            merged = [*counts, counts[-1], total]
            if openmetrics and of.exemplar_count:
                return _with_exemplars(
                    lines, merged, [_latest(parts, of, bucket) for bucket in range(of.exemplar_count)]
                )
        return "".join([f"{line}{number!r}\n" for line, number in zip(lines, merged, strict=True)])


def _latest(parts: Iterable[tuple[SharedMetricsBuffer, int]], of: Histogram, bucket: int) -> TraceExemplar | None:
    """Return the most recent exemplar of a bucket over all workers."""
    found = (exemplar(buffer, at + of.counted + EXEMPLAR_CELLS * bucket) for buffer, at in parts)
    return max((one for one in found if one is not None), key=lambda one: one.at, default=None)


def _with_exemplars(lines: Iterable[str], numbers: Iterable[float], exemplars: Iterable[TraceExemplar | None]) -> str:
    """Return the lines of a histogram, buckets with their exemplars."""
    return "".join(
        f"{line}{number!r}{'' if one is None else _exemplar(one)}\n"
        for line, number, one in zip_longest(lines, numbers, exemplars)
    )


def _exemplar(one: TraceExemplar) -> str:
    labels = f'trace_id="{one.trace_id.hex()}",span_id="{one.span_id.hex()}"'
    return f" # {{{labels}}} {one.value!r} {one.at:.3f}"


def prometheus_name(instrument: Counter | Gauge | Histogram) -> str:
    """Return the Prometheus name of ``instrument``, without a counter's suffix ``_total``."""
    unit = UNITS.get(instrument.unit, "")
    return plain_name(instrument.name) + (f"_{unit}" if unit else "")


def _head(instrument: Counter | Gauge | Histogram, openmetrics: bool) -> str:
    name = prometheus_name(instrument)
    unit = f"# UNIT {name} {UNITS[instrument.unit]}\n" if openmetrics and instrument.unit in UNITS else ""
    family = name if openmetrics or instrument.kind != "counter" else f"{name}_total"
    return f"# HELP {family} {_escaped(instrument.description)}\n# TYPE {family} {instrument.kind}\n{unit}"


def _target(version: str, openmetrics: bool) -> str:
    kind, family = ("info", "target") if openmetrics else ("gauge", "target_info")
    labels = f'service_name="agent-service",service_version="{_escaped(version)}"'
    number = "1" if openmetrics else "1.0"
    return f"# HELP {family} Target metadata.\n# TYPE {family} {kind}\ntarget_info{{{labels}}} {number}\n"


def _line(name: str, pairs: list[str]) -> str:
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def plain_name(name: str) -> str:
    """Return a metric's or label's name in Prometheus spelling."""
    return name.replace(".", "_")


def samples(instrument: Counter | Gauge | Histogram) -> list[str]:
    """Return the names of its samples."""
    name = prometheus_name(instrument)
    if isinstance(instrument, Histogram):
        return [name + ending for ending in ("_bucket", "_count", "_sum")]
    return [f"{name}_total" if instrument.kind == "counter" else name]


def ends(histogram: Histogram) -> list[str]:
    """Return the values of ``le``: the upper bounds of its buckets."""
    return [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _prefers_openmetrics(accept: str) -> bool:
    """Whether ``Accept`` weighs OpenMetrics at least as much as plain text; formats it does not name weigh nothing."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind not in weights:
            continue
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        weights[kind] = max(weights[kind], weight)
    openmetrics = weights["application/openmetrics-text"]
    return openmetrics > 0 and openmetrics >= weights["text/plain"]
