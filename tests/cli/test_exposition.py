"""The doctor validates metrics pages strictly, in both formats."""

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.cli.doctor.metrics_format import ParsedMetrics

PAGE = '# TYPE a counter\na{b="c\\"d,e"} 1.0\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_count 1\nh_sum 0.5\n'


@pytest.mark.parametrize(
    "more, fault",
    [
        ("", ""),
        ('a{b="x"} NaN\n', ""),
        ('a{b="c\\"d,e"} 2.0\n', "duplicate series"),
        ("unknown 1\n", "has no type"),
        ("a one\n", "not a number"),
        ("a{b=c} 1\n", "malformed labels"),
        ('a{b="1",b="2"} 1\n', "malformed labels"),
        ("# TYPE a gauge\n", "two types"),
        ("a 1", "the last line is not terminated"),
        ("!\n", "malformed sample"),
    ],
)
def test_a_metrics_page_is_validated(more: str, fault: str) -> None:
    page = ParsedMetrics(PAGE + more, openmetrics=False)
    assert [one for one in page.faults if fault in one] if fault else not page.faults
    if not fault:
        assert page.series == sum(len(family.samples) for family in parse_text(PAGE + more))


def test_openmetrics_must_end_with_eof() -> None:
    assert ParsedMetrics(PAGE, openmetrics=True).faults == ["# EOF is missing"]
    assert ParsedMetrics(PAGE + "# EOF\n", openmetrics=True).faults == []


@pytest.mark.parametrize(
    "line, openmetrics, fault",
    [
        ('h_bucket{le="5"} 1 # {trace_id="ab"} 0.2 1.5', True, ""),
        ('h_bucket{le="}"} 1 # {trace_id="a}b",span_id="c"} 0.2', True, ""),
        ("a_total 1 # {} 1", True, ""),
        ('h_bucket{le="5"} 1 # {trace_id=ab} 0.2', True, "malformed labels"),
        ('h_bucket{le="5"} 1 # {trace_id="ab"} much', True, "not a number: much"),
        ('h_bucket{le="5"} 1 # {trace_id="ab"} 0.2', False, "exemplar not allowed here"),
        ('h_count{le="5"} 1 # {trace_id="ab"} 0.2', True, "exemplar not allowed here"),
    ],
)
def test_exemplars_are_validated(line: str, openmetrics: bool, fault: str) -> None:
    """OpenMetrics allows them after buckets and counters."""
    page = ParsedMetrics(f"{PAGE}{line}\n# EOF\n", openmetrics=openmetrics)
    assert [one for one in page.faults if fault in one] if fault else not page.faults
