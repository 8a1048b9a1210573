"""Retries with a budget, fallback models, and a breaker for each vendor."""

import asyncio
from contextlib import aclosing
from typing import Any, cast

import pytest

from app.base.errors import (
    ModelCredentials,
    ModelError,
    ModelProtocol,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
)
from app.providers.llm.failover import FailoverModel, ModelLink, RetryRules
from app.providers.llm.vendor_health import BreakerRules, Vendor
from tests.llm.recording import ask, record_events
from tests.llm.scripted_model import ScriptedModel, ScriptTurn

RETRYABLE = [ModelUnavailable, ModelTimeout, ModelProtocol, ModelRateLimited]


class Time:
    """A clock that only advances by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def fail(kind: type[ModelError] = ModelUnavailable, times: int = 1, **rest: Any) -> list[ScriptTurn]:
    return [[kind("it failed", vendor="first", **rest)] for _ in range(times)]


def chain(time: Time, *models: ScriptedModel, rules: RetryRules = RetryRules()) -> FailoverModel:
    """Chain ``models`` of different vendors; the backoff is always the maximum."""
    links = [ModelLink(model, Vendor(model.vendor, time)) for model in models]
    return FailoverModel(links, rules, clock=time, sleep=time.sleep, draw=lambda: 1.0)


def first(*turns: ScriptTurn) -> ScriptedModel:
    return ScriptedModel(turns, name="one", vendor="first")


def second(*turns: ScriptTurn) -> ScriptedModel:
    return ScriptedModel(turns, name="two", vendor="second")


@pytest.mark.parametrize("kind", RETRYABLE)
async def test_retryable_errors_are_retried(time: Time, kind: type[ModelError]) -> None:
    model = first(*fail(kind, 2), "Hello")
    recording = await record_events(chain(time, model))
    assert recording.text == "Hello"
    assert len(model.requests) == 3
    assert (recording.finished.retries, recording.finished.instead) == (2, False)
    assert time.pauses == [0.5, 1.0]


async def test_after_three_tries_the_error_is_raised(time: Time) -> None:
    model = first(*fail(times=5))
    recording = await record_events(chain(time, model))
    assert type(recording.error) is ModelUnavailable
    assert str(recording.error) == "it failed"
    assert len(model.requests) == 3


async def test_backoff_has_full_jitter() -> None:
    clock = Time()
    rules = RetryRules(tries=6, max_delay=2.0)
    links = [ModelLink(first(*fail(times=5), "Hello"), Vendor("first", clock, BreakerRules(consecutive=9)))]
    await record_events(FailoverModel(links, rules, clock=clock, sleep=clock.sleep, draw=lambda: 0.5))
    assert clock.pauses == [0.25, 0.5, 1.0, 1.0, 1.0]


async def test_retry_after_is_honoured(time: Time) -> None:
    recording = await record_events(chain(time, first(*fail(ModelRateLimited, retry_after=7.0), "Hello")))
    assert recording.text == "Hello"
    assert time.pauses == [7.5]


async def test_a_retry_after_above_the_limit_is_not_honoured(time: Time) -> None:
    model = first(*fail(ModelRateLimited, retry_after=3600.0))
    recording = await record_events(chain(time, model))
    assert isinstance(recording.error, ModelRateLimited)
    assert recording.error.retry_after == 3600.0
    assert time.pauses == []


async def test_no_try_starts_after_max_wait(time: Time) -> None:
    class Slow(ScriptedModel):
        def stream(self, request: Any) -> Any:
            time.now += 60.0
            return super().stream(request)

    model = Slow(fail(ModelTimeout, 5), vendor="first")
    recording = await record_events(chain(time, model))
    assert type(recording.error) is ModelTimeout
    assert len(model.requests) == 2


@pytest.mark.parametrize("kind", [ModelRejected, ModelCredentials])
async def test_an_invalid_request_or_key_is_not_retried(time: Time, kind: type[ModelError]) -> None:
    model = first(*fail(kind), "Hello")
    recording = await record_events(chain(time, model))
    assert type(recording.error) is kind
    assert len(model.requests) == 1


@pytest.mark.parametrize("kind", [*RETRYABLE, ModelCredentials])
async def test_the_next_model_answers_if_one_fails(time: Time, kind: type[ModelError]) -> None:
    primary = first(*fail(kind, 3))
    model = chain(time, primary, second("Hello"))
    recording = await record_events(model)
    assert recording.text == "Hello"
    assert (recording.finished.vendor, recording.finished.model) == ("second", "two")
    assert (recording.finished.retries, recording.finished.instead) == (len(primary.requests), True)
    assert (model.vendor, model.name) == ("first", "one")


async def test_a_rejected_request_is_not_passed_to_the_fallback(time: Time) -> None:
    other = second("Hello")
    recording = await record_events(chain(time, first(*fail(ModelRejected)), other))
    assert type(recording.error) is ModelRejected
    assert other.requests == []


async def test_if_all_fail_the_primary_error_includes_the_others(time: Time) -> None:
    recording = await record_events(
        chain(time, first(*fail(times=3)), second([ModelCredentials("the key is refused")]))
    )
    assert type(recording.error) is ModelUnavailable
    assert str(recording.error) == "it failed; fallback second:two: the key is refused"


@pytest.mark.parametrize("kind", RETRYABLE)
async def test_a_failure_after_the_first_event_is_raised_unchanged(time: Time, kind: type[ModelError]) -> None:
    model, other = first(["Hel", kind("it failed")], "Hello"), second("Hello")
    recording = await record_events(chain(time, model, other))
    assert recording.text == "Hel"
    assert type(recording.error) is kind
    assert (len(model.requests), other.requests) == (1, [])


async def test_retries_are_at_most_a_fifth_of_the_traffic_during_an_outage(time: Time) -> None:
    calls = 1000
    model = first(*fail(ModelRateLimited, calls * 3))
    failing = chain(time, model, rules=RetryRules(base=0.0))
    for _ in range(calls):
        await record_events(failing)
    retries = len(model.requests) - calls
    assert calls * 0.15 < retries <= calls * 0.2 + 10


async def test_time_refills_the_budget_of_an_idle_server(time: Time) -> None:
    model = first(*fail(ModelRateLimited, 3000))
    failing = chain(time, model, rules=RetryRules(base=0.0))
    for _ in range(20):
        await record_events(failing)
    asked = len(model.requests)
    time.now += 100
    await record_events(failing)
    assert len(model.requests) == asked + 3


async def test_the_breaker_opens_after_consecutive_failures_and_blocks_calls(time: Time) -> None:
    model = first(*fail(times=5), "Hello")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(5):
        await record_events(failing)
    recording = await record_events(failing)
    assert len(model.requests) == 5
    assert isinstance(recording.error, ModelUnavailable)
    assert str(recording.error) == (
        "first is not asked for the next 15 s, because it failed repeatedly (ModelUnavailable)"
    )
    assert recording.error.retry_after == 15.0


async def test_while_the_breaker_is_open_the_next_model_answers_immediately(time: Time) -> None:
    model, other = first(*fail(times=5)), second(*["Hello"] * 6)
    failing = chain(time, model, other, rules=RetryRules(tries=1))
    for _ in range(6):
        assert (await record_events(failing)).text == "Hello"
    assert len(model.requests) == 5


async def test_after_the_open_time_one_probe_closes_the_breaker(time: Time) -> None:
    gate = asyncio.Event()
    model = first(*fail(times=5), [gate, "Hello"], "again")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(5):
        await record_events(failing)
    time.now += 15
    probe = asyncio.ensure_future(record_events(failing))
    await asyncio.sleep(0)
    assert type((await record_events(failing)).error) is ModelUnavailable
    gate.set()
    assert (await probe).text == "Hello"
    assert (await record_events(failing)).text == "again"


async def test_a_failed_probe_opens_the_breaker_again(time: Time) -> None:
    model = first(*fail(times=6), "Hello")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(5):
        await record_events(failing)
    time.now += 15
    await record_events(failing)
    time.now += 14
    await record_events(failing)
    assert len(model.requests) == 6
    time.now += 1
    assert (await record_events(failing)).text == "Hello"


async def test_an_abandoned_probe_allows_the_next_one(time: Time) -> None:
    model = first(*fail(times=5), ["Hel", "lo"], "Hello")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(5):
        await record_events(failing)
    time.now += 15
    await record_events(failing, limit=1)
    assert (await record_events(failing)).text == "Hello"


async def test_the_breaker_also_opens_when_half_of_the_calls_fail(time: Time) -> None:
    model = first(*[turn for _ in range(20) for turn in ("Hello", *fail())])
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(30):
        await record_events(failing)
    assert len(model.requests) == 20


@pytest.mark.parametrize("kind", [ModelRateLimited, ModelCredentials, ModelRejected])
async def test_rate_limits_keys_and_bad_requests_do_not_open_the_breaker(time: Time, kind: type[ModelError]) -> None:
    model = first(*fail(kind, 30), "Hello")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(30):
        await record_events(failing)
    assert (await record_events(failing)).text == "Hello"


async def test_a_failure_inside_an_answer_counts_for_the_breaker(time: Time) -> None:
    broken: ScriptTurn = ["Hel", ModelTimeout("it failed")]
    model = first(*[broken] * 5, "Hello")
    failing = chain(time, model, rules=RetryRules(tries=1))
    for _ in range(6):
        await record_events(failing)
    assert len(model.requests) == 5


async def test_leaving_early_closes_the_models_stream(time: Time) -> None:
    closed = asyncio.Event()

    class Watched(ScriptedModel):
        async def stream(self, request: Any) -> Any:
            try:
                yield "one"
                yield "two"
            finally:
                closed.set()

    async with aclosing(cast("Any", chain(time, Watched([])).stream(ask()))) as events:
        await anext(events)
    assert closed.is_set()


async def test_an_observation_reports_the_vendors_last_call(time: Time) -> None:
    vendor = Vendor("first", time)
    model = FailoverModel([ModelLink(first("Hello", *fail(ModelTimeout)), vendor)], RetryRules(tries=1), clock=time)
    assert vendor.observation.status == "unknown"
    await record_events(model)
    good = vendor.observation
    assert (good.status, good.error, good.latency_ms) == ("healthy", None, 0.0)
    await record_events(model)
    bad = vendor.observation
    assert (bad.status, bad.error, bad.latency_ms) == ("degraded", "ModelTimeout", 0.0)
    assert good.observed_at is not None
    assert bad.observed_at is not None
    assert bad.observed_at >= good.observed_at
