"""The doctor reads a page of metrics to the letter, in both formats."""

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from app.cli.doctor.metrics_format import ParsedMetrics

PAGE = '# TYPE a counter\na{b="c\\"d,e"} 1.0\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_count 1\nh_sum 0.5\n'


@pytest.mark.parametrize(
    "more, fault",
    [
        ("", ""),
        ('a{b="x"} NaN\n', ""),
        ('a{b="c\\"d,e"} 2.0\n', "a series twice"),
        ("unknown 1\n", "has no type"),
        ("a one\n", "no number"),
        ("a{b=c} 1\n", "labels of no known form"),
        ('a{b="1",b="2"} 1\n', "labels of no known form"),
        ("# TYPE a gauge\n", "two types"),
        ("a 1", "the last line has no end"),
        ("!\n", "no sample"),
    ],
)
def test_a_page_of_metrics_is_read_to_the_letter(more: str, fault: str) -> None:
    page = ParsedMetrics(PAGE + more, openmetrics=False)
    assert [one for one in page.faults if fault in one] if fault else not page.faults
    if not fault:
        assert page.series == sum(len(family.samples) for family in parse_text(PAGE + more))


def test_openmetrics_ends_with_its_mark() -> None:
    assert ParsedMetrics(PAGE, openmetrics=True).faults == ["# EOF is missing"]
    assert ParsedMetrics(PAGE + "# EOF\n", openmetrics=True).faults == []


@pytest.mark.parametrize(
    "line, openmetrics, fault",
    [
        ('h_bucket{le="5"} 1 # {trace_id="ab"} 0.2 1.5', True, ""),
        ('h_bucket{le="}"} 1 # {trace_id="a}b",span_id="c"} 0.2', True, ""),
        ("a_total 1 # {} 1", True, ""),
        ('h_bucket{le="5"} 1 # {trace_id=ab} 0.2', True, "labels of no known form"),
        ('h_bucket{le="5"} 1 # {trace_id="ab"} much', True, "no number: much"),
        ('h_bucket{le="5"} 1 # {trace_id="ab"} 0.2', False, "an exemplar where none may be"),
        ('h_count{le="5"} 1 # {trace_id="ab"} 0.2', True, "an exemplar where none may be"),
    ],
)
def test_exemplars_are_read_too(line: str, openmetrics: bool, fault: str) -> None:
    """Where OpenMetrics has them: behind buckets and counters."""
    page = ParsedMetrics(f"{PAGE}{line}\n# EOF\n", openmetrics=openmetrics)
    assert [one for one in page.faults if fault in one] if fault else not page.faults
