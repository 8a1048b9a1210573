"""Rendering of results: verdicts, tables, the page and the picture."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from bench import figures
from bench.drawing import FAR_APART, HEAD, WIDTH, axis_for, draw
from bench.figures import ECHO, Load, Result
from bench.report import BEGIN, END, PAGE, number, page, tables
from bench.targets import TARGETS, verdicts

RESULT = Path(__file__).with_name("result.json")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def result() -> Result:
    """A stored full run."""
    return figures.read(RESULT)


def verdict_on(result: Result, work: str) -> bool:
    (found,) = [one.met for one in verdicts(result) if one.target.work == work]
    return found


def with_load(result: Result, changed: Load) -> Result:
    loads = [
        changed if (one.scenario, one.clients) == (changed.scenario, changed.clients) else one for one in result.loads
    ]
    return msgspec.structs.replace(result, loads=loads)


@pytest.mark.parametrize("rate, met", [(499.9, False), (500.0, True)])
def test_a_target_is_met_at_its_bound(result: Result, rate: float, met: bool) -> None:
    changed = msgspec.structs.replace(result.load(ECHO, 64), per_second=rate)
    assert verdict_on(with_load(result, changed), "the same, 64 clients") is met


def test_every_target_has_a_row_with_its_verdict(result: Result) -> None:
    rows = tables(result).split("### Against peers")[0]
    for target, verdict in zip(TARGETS, verdicts(result), strict=True):
        (row,) = [line for line in rows.splitlines() if line.startswith(f"| {target.work} |")]
        assert f"| {'yes' if verdict.met else '**no**'} |" in row


def test_ratios_are_to_the_floor_of_the_same_run_and_to_the_best_peer(result: Result) -> None:
    changed = msgspec.structs.replace(result.load(ECHO, 64), per_second=830.0)
    verdict = verdicts(with_load(result, changed))[1]
    assert verdict.floor_ratio == pytest.approx(830 / result.load("floor: group commit", 64).per_second)
    assert verdict.peers_ratio == pytest.approx(10)
    assert verdicts(result)[0].peers_ratio == pytest.approx(54 / result.load(ECHO, 1).p50_ms)


def test_all_rows_of_a_table_have_the_same_length(result: Result) -> None:
    for block in re.findall(r"(?:^\|.*\n?)+", tables(result), re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_failed_request_is_reported_with_its_scenario(result: Result) -> None:
    assert result.failures() == []
    failed = msgspec.structs.replace(result.load(ECHO, 64), errors=["500 b'no'", "502 b'no'"])
    assert with_load(result, failed).failures() == ["echo wait: 2 failed, first: 500 b'no'"]


def test_the_median_round_is_reported_with_the_errors_of_all(result: Result) -> None:
    one = result.load(ECHO, 64)
    rates = {300.0: ["slow"], 100.0: [], 200.0: []}
    rounds = [msgspec.structs.replace(one, per_second=rate, errors=errors) for rate, errors in rates.items()]
    middle = figures.median_round(rounds)
    assert (middle.per_second, middle.rates, middle.errors) == (200.0, [300.0, 100.0, 200.0], ["slow"])


def test_the_page_changes_only_between_its_comments(result: Result) -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    written = page(text, result)
    assert written == f"before\n{BEGIN}\n\n{tables(result)}\n\n{END}\nafter\n"
    assert page(written, result) == written


def test_a_page_without_its_comments_is_refused(result: Result) -> None:
    with pytest.raises(SystemExit, match="has lost the comments"):
        page("nothing", result)


def test_the_page_in_the_docs_has_tables(result: Result) -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    for target in TARGETS:
        assert f"| {target.work} |" in shown


@pytest.mark.parametrize(
    "value, shown",
    [(0, "0"), (0.0234, "0.0234"), (4.929, "4.93"), (110.4, "110.4"), (2031, "2,031"), (1_784_321, "1,780,000")],
)
def test_numbers_have_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_stored_result_round_trips(result: Result, tmp_path: Path) -> None:
    assert figures.read(figures.write(result, tmp_path / "results")) == result


def test_the_picture_is_complete_and_within_bounds(result: Result) -> None:
    root = ET.fromstring(draw(result))
    height = float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {WIDTH} {height:g}"
    for one in root.iter():
        for name, limit in {"x": WIDTH, "x1": WIDTH, "x2": WIDTH, "cx": WIDTH, "y": height, "y1": height}.items():
            assert 0 <= float(one.attrib.get(name, 0)) <= limit
    words = [one.text for one in root.iter(f"{SVG}text")]
    for target in TARGETS:
        assert not target.drawn or target.drawn in words
    assert words.count("this server") == len([target for target in TARGETS if target.drawn])
    assert min(float(one.attrib["cy"]) for one in root.iter(f"{SVG}circle")) > HEAD


def test_the_picture_has_light_and_dark_colours(result: Result) -> None:
    light, dark = draw(result).split("@media (prefers-color-scheme: dark)")
    for kind in ("text", ".ground", ".grid", ".own-dot", ".dot", ".floor"):
        assert f"{kind} {{" in light
        assert f"{kind} {{" in dark or f"{kind}, " in dark


@pytest.mark.parametrize("values", [[0.3, 5.0, 2031.0], [1.0, 1.2, 3.1], [90.0, 111.0, 158.0], [0.06, 44.0], [7, 7]])
def test_every_value_is_on_the_axis(values: list[float]) -> None:
    axis = axis_for(values)
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 1
    assert axis.logarithmic == (max(values) > FAR_APART * min(values))
    assert all(0 <= axis.place(tick) <= 1 for tick in axis.ticks())
