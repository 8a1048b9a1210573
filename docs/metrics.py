"""Writes docs/reference/metrics.md from the declarations in app/infra/telemetry/meters.py: `make docs-metrics`."""

import textwrap
from pathlib import Path

from app.infra.telemetry.instruments import Counter, Gauge, Histogram
from app.infra.telemetry.labels import EnumLabel
from app.infra.telemetry.meters import LATEST, OPT_IN, Meters
from app.infra.telemetry.prometheus_page import prometheus_name

MOST_VALUES = 15
PAGE = Path(__file__).parent / "reference" / "metrics.md"

_HEAD = """\
<!-- Generated from app/infra/telemetry/meters.py by `make docs-metrics`: change it there. -->
# Metrics

`GET /metrics` returns the totals of **all workers of one server**, whichever worker answers: as Prometheus text, or as
OpenMetrics if `Accept` asks for it. Workers count in memory shared with their parent, so nothing is lost when a worker
dies or is replaced: its successor continues with the same totals, and only its gauges are reset. Scrape each server
(replica) and sum over them. With `METRICS_PORT` the page is served on a separate port, and no longer on `PORT`.

Names and units follow the OpenTelemetry semantic conventions where one exists; the second column has their Prometheus
spelling (counters end in `_total` there, histograms in `_bucket`, `_count` and `_sum`). Labels are bounded: no ids,
nothing that a client chooses, and beyond 1,000 sets of labels an instrument counts under `overflow`.

Gauges are summed over the workers, except those marked *the greatest counts*, of which every worker reports the same
value.
"""

_EXEMPLARS = """\
Where a trace is sampled, each bucket of these histograms remembers one of the latest values measured in such a trace,
for at least a second, with its `trace_id` and `span_id`; so a dashboard leads from a slow bucket to a slow trace:
{names}. They are exported by OTLP; the page has none. Prometheus takes them from OTLP too (`--web.enable-otlp-receiver`
or a collector, and `--enable-feature=exemplar-storage`).
"""

_TAIL = f"""
## Names that change

The conventions for models are in development. If `OTEL_SEMCONV_STABILITY_OPT_IN` contains `{OPT_IN}`,
these names change:

| by default | then |
|---|---|
"""


def _row(part: Counter | Gauge | Histogram) -> str:
    name = prometheus_name(part) + ("_total" if part.kind == "counter" else "")
    labels = ", ".join(map(_label, part.labels)) or "–"
    more = " *The greatest counts.*" if isinstance(part, Gauge) and part.greatest else ""
    return f"| `{part.name}` | `{name}` | {part.kind} | `{part.unit}` | {labels} | {part.description}{more} |"


def _label(label: str) -> str:
    """With its values, where they are known and few."""
    if not isinstance(label, EnumLabel) or len(label.values) > MOST_VALUES:
        return f"`{label}`"
    return f"`{label}` ({', '.join(value or 'none' for value in label.values)})"


def _bounds(parts: list[Histogram]) -> list[str]:
    by_bounds: dict[tuple[float, ...], list[str]] = {}
    for part in parts:
        by_bounds.setdefault(part.bounds, []).append(f"`{part.name}`")
    lines = ["", "## Buckets", "", "| histogram | upper bounds |", "|---|---|"]
    return [*lines, *(f"| {', '.join(names)} | {', '.join(map(str, bounds))} |" for bounds, names in by_bounds.items())]


def render() -> str:
    """The page as it must be."""
    parts = Meters().instruments()
    lines = [_HEAD, "| name | Prometheus | kind | unit | labels | meaning |", "|---|---|---|---|---|---|"]
    lines += [_row(part) for part in sorted(parts, key=lambda part: part.name)]
    histograms = [part for part in parts if isinstance(part, Histogram)]
    lines += _bounds(histograms)
    examples = [f"`{part.name}`" for part in histograms if part.exemplar_count]
    text = _EXEMPLARS.format(names=", ".join(examples))
    lines += ["", "## Exemplars", "", textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)]
    names = [f"| `{before}` | `{after}` |" for before, after in LATEST.items()]
    return "\n".join(lines) + "\n" + _TAIL + "\n".join(names) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
