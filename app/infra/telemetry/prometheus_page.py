"""The numbers of all workers as the text that Prometheus scrapes, in its own format or as OpenMetrics.

Naming: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

import asyncio
import threading
from collections.abc import Iterable
from itertools import accumulate, zip_longest

from app.infra.telemetry.instruments import EXAMPLE, Counter, Gauge, Histogram, TraceExemplar, exemplar
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import Labels, SeriesRow, SharedMetricsBuffer

UNITS = {"s": "seconds", "By": "bytes"}
"""Units that are part of a Prometheus name; counts such as ``{run}`` are not."""

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class MetricsPage:
    """What ``GET /metrics`` answers: the sums of the ``boards`` of all workers, whichever of them is asked."""

    def __init__(self, meters: Meters, boards: Iterable[SharedMetricsBuffer], version: str) -> None:
        self._instruments = {part.name: part for part in meters.instruments()}
        self._boards = list(boards)
        self._seen = [0] * len(self._boards)
        self._series: dict[str, dict[Labels, _Series]] = {name: {} for name in self._instruments}
        self._version = version
        self._one_at_a_time = threading.Lock()

    async def render(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that the ``AcceptEntry`` header prefers; a thread writes it."""
        self._look()
        openmetrics = _prefers_openmetrics(accept)
        body = await asyncio.to_thread(self._render, openmetrics)
        return body, OPENMETRICS if openmetrics else PLAIN

    def _look(self) -> None:
        """Find the series that are new since the last scrape."""
        for place, board in enumerate(self._boards):
            rows = board.refresh()
            for row in rows[self._seen[place] :]:
                self._add(board, row)
            self._seen[place] = len(rows)

    def _add(self, board: SharedMetricsBuffer, row: SeriesRow) -> None:
        instrument = self._instruments.get(row.name)
        # a worker that was replaced after a change of the sources may have left other declarations
        if instrument is not None and row.width == instrument.width and len(row.labels) == len(instrument.labels):
            series = self._series[row.name].get(row.labels)
            if series is None:
                series = self._series[row.name][row.labels] = _Series(instrument, row.labels)
            series.parts.append((board, row.at))

    def _render(self, openmetrics: bool) -> bytes:
        with self._one_at_a_time:
            parts = [_target(self._version, openmetrics)]
            for instrument in self._instruments.values():
                parts.append(_head(instrument, openmetrics))
                parts += [series.text(openmetrics) for series in list(self._series[instrument.name].values())]
            if openmetrics:
                parts.append("# EOF\n")
            return "".join(parts).encode()


class _Series:
    """One series of an instrument, on all boards that have it."""

    def __init__(self, instrument: Counter | Gauge | Histogram, values: Labels) -> None:
        self.parts: list[tuple[SharedMetricsBuffer, int]] = []
        """Its first cell on each."""
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
        """Its lines; none for a gauge that no living worker has."""
        of = self._of
        gauge = of if isinstance(of, Gauge) else None
        parts = [(board, at) for board, at in self.parts if gauge is None or board.lives]
        if not parts:
            return ""
        found = [board.cells[at : at + of.counted].tolist() for board, at in parts]
        merge = max if gauge is not None and gauge.greatest else sum
        merged = found[0] if len(found) == 1 else [merge(numbers) for numbers in zip(*found, strict=True)]
        lines = self._lines
        if isinstance(of, Histogram):
            *counts, total = merged
            counts = list(accumulate(counts))
            merged = [*counts, counts[-1], total]
            if openmetrics and of.examples:
                return _with_examples(lines, merged, [_latest(parts, of, bucket) for bucket in range(of.examples)])
        return "".join([f"{line}{number!r}\n" for line, number in zip(lines, merged, strict=True)])


def _latest(parts: Iterable[tuple[SharedMetricsBuffer, int]], of: Histogram, bucket: int) -> TraceExemplar | None:
    """What any of the workers remembers last."""
    found = (exemplar(board, at + of.counted + EXAMPLE * bucket) for board, at in parts)
    return max((one for one in found if one is not None), key=lambda one: one.at, default=None)


def _with_examples(lines: Iterable[str], numbers: Iterable[float], examples: Iterable[TraceExemplar | None]) -> str:
    """The lines of a histogram, those of buckets with their exemplars."""
    return "".join(
        f"{line}{number!r}{'' if one is None else _exemplar(one)}\n"
        for line, number, one in zip_longest(lines, numbers, examples)
    )


def _exemplar(one: TraceExemplar) -> str:
    labels = f'trace_id="{one.trace_id.hex()}",span_id="{one.span_id.hex()}"'
    return f" # {{{labels}}} {one.value!r} {one.at:.3f}"


def prometheus_name(instrument: Counter | Gauge | Histogram) -> str:
    """The name under which Prometheus knows ``instrument``, without the ending ``_total`` of counters."""
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
    return f"# HELP {family} What is measured.\n# TYPE {family} {kind}\ntarget_info{{{labels}}} {number}\n"


def _line(name: str, pairs: list[str]) -> str:
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def plain_name(name: str) -> str:
    """The name of a metric or a label as Prometheus spells it."""
    return name.replace(".", "_")


def samples(instrument: Counter | Gauge | Histogram) -> list[str]:
    """The names of its samples."""
    name = prometheus_name(instrument)
    if isinstance(instrument, Histogram):
        return [name + ending for ending in ("_bucket", "_count", "_sum")]
    return [f"{name}_total" if instrument.kind == "counter" else name]


def ends(histogram: Histogram) -> list[str]:
    """The values of ``le``: the upper ends of its buckets."""
    return [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _prefers_openmetrics(accept: str) -> bool:
    """Whether ``AcceptEntry`` gives OpenMetrics at least the weight of plain text; what it does not name weighs
    nothing.
    """
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
