"""Breakers open per tenant and provider key, and for all tenants only in an outage."""

import asyncio

import pytest

from app.base.errors import ModelUnavailable
from app.infra.secrets.rotating_secret import RotatingSecret
from app.providers.llm.adapters.http_client import HttpClient
from app.providers.llm.failover import FailoverModel, ModelLink, RetryRules
from app.providers.llm.vendor_health import MAX_CIRCUITS, OUTAGE, BreakerRules, FailureScope, Vendor
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.recording import HTTP_VENDORS, Recording, adapter, ask, endpoint, record_events
from tests.llm.wires import OPENAI

TRIES = BreakerRules().consecutive
PROVOKED = [
    Fault.MANY_CALLS,
    Fault.NAMELESS_CALL,
    Fault.WRONG_SHAPE,
    Fault.BROKEN_ARGUMENTS,
    Fault.LONG_LINE,
    Fault.HUGE_TOTAL,
    Fault.DRIP_TOKENS,
    Fault.BAD_REQUEST,
]
"""Faults that a prompt can provoke."""


HANGING = {Fault.DRIP_TOKENS, Fault.HANG_BEFORE_HEADERS}
"""Faults that end by a timeout; others must not meet one, however busy the machine is."""


class Desk:
    """One vendor, called by tenants without retries."""

    def __init__(self, http: HttpClient, provider: FakeProvider, vendor: str = OPENAI) -> None:
        self.vendor = Vendor(vendor)
        self.model = adapter(vendor, http, endpoint(provider, vendor))
        self._chain = FailoverModel([ModelLink(self.model, self.vendor)], RetryRules(tries=1))

    async def ask(self, tenant: str) -> Recording:
        return await record_events(self._chain, ask(tenant=tenant))


def is_refused(recording: Recording) -> bool:
    return isinstance(recording.error, ModelUnavailable) and "is not asked for the next" in str(recording.error)


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
async def test_a_breaker_opens_for_the_tenant_that_saw_the_failures_and_no_other(
    provider: FakeProvider, http: HttpClient, vendor: str
) -> None:
    desk = Desk(http, provider, vendor)
    provider.plan(*[Fault.SERVER_ERROR] * TRIES)
    for _ in range(TRIES):
        await desk.ask("hostile")
    assert is_refused(await desk.ask("hostile"))
    assert (await desk.ask("innocent")).text == "Hello there"
    assert desk.vendor.open


@pytest.mark.parametrize("vendor", HTTP_VENDORS)
@pytest.mark.parametrize("fault", PROVOKED)
async def test_what_a_prompt_can_provoke_opens_no_breaker(
    provider: FakeProvider, http: HttpClient, hasty_http: HttpClient, vendor: str, fault: Fault
) -> None:
    desk = Desk(hasty_http if fault in HANGING else http, provider, vendor)
    provider.plan(*[fault] * TRIES)
    await asyncio.gather(*(desk.ask("hostile") for _ in range(TRIES)))
    assert not desk.vendor.open
    assert desk.vendor.observation.status == "healthy", "nothing is said of the provider"
    assert (await desk.ask("hostile")).text == "Hello there"


@pytest.mark.parametrize("code", ["content_filter", "context_length_exceeded", "tool_use_failed"])
async def test_a_refusal_inside_a_stream_opens_no_breaker(provider: FakeProvider, http: HttpClient, code: str) -> None:
    desk = Desk(http, provider)
    body = b'data: {"error":{"message":"no","type":"x","code":"%s"}}\n\n' % code.encode()
    provider.plan(*[Replay(data=body)] * TRIES)
    for _ in range(TRIES):
        await desk.ask("hostile")
    assert not desk.vendor.open


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.HANG_BEFORE_HEADERS, Fault.HTML])
async def test_consecutive_failures_of_several_tenants_are_an_outage(
    provider: FakeProvider, http: HttpClient, hasty_http: HttpClient, fault: Fault
) -> None:
    desk = Desk(hasty_http if fault in HANGING else http, provider)
    provider.plan(*[fault] * OUTAGE.consecutive)
    tenants = [f"tenant {number % OUTAGE.sources}" for number in range(OUTAGE.consecutive)]
    assert not any(map(is_refused, await asyncio.gather(*map(desk.ask, tenants))))
    asked = len(provider.requests)
    assert is_refused(await desk.ask("a tenant that has not asked before"))
    assert len(provider.requests) == asked


async def test_failures_of_one_tenant_alone_are_never_an_outage(provider: FakeProvider, http: HttpClient) -> None:
    desk = Desk(http, provider)
    failure = ModelUnavailable("down", vendor=OPENAI)
    for number in range(100):  # with other keys, whose breakers are closed
        desk.vendor.begin(FailureScope("hostile", str(number))).failed(failure)
    assert (await desk.ask("innocent")).text == "Hello there"


async def test_one_success_resets_the_outage_count() -> None:
    vendor = Vendor(OPENAI)
    failure = ModelUnavailable("down", vendor=OPENAI)
    for _ in range(3):
        for number in range(OUTAGE.consecutive - 1):
            vendor.begin(FailureScope(f"tenant {number % OUTAGE.sources}", str(number))).failed(failure)
        assert not vendor.outage.open
        vendor.begin(FailureScope("healthy")).succeeded()


async def test_breakers_are_bounded_in_number() -> None:
    vendor = Vendor(OPENAI)
    for number in range(MAX_CIRCUITS * 2):
        vendor.begin(FailureScope(f"tenant {number}")).abandoned()
    assert len(vendor._circuits) == MAX_CIRCUITS


async def test_another_provider_key_has_a_breaker_of_its_own(provider: FakeProvider, http: HttpClient) -> None:
    desk = Desk(http, provider)
    provider.plan(*[Fault.SERVER_ERROR] * TRIES)
    for _ in range(TRIES):
        await desk.ask("ours")
    assert is_refused(await desk.ask("ours"))
    desk.model._keys = RotatingSecret()
    desk.model._version = desk.model._keys.version + 1
    assert (await desk.ask("ours")).text == "Hello there"


async def test_retries_of_one_tenant_do_not_use_the_budget_of_another(provider: FakeProvider) -> None:
    vendor = Vendor(OPENAI)
    greedy, other = vendor.circuit(FailureScope("greedy")).budget, vendor.circuit(FailureScope("other")).budget
    while greedy.take():
        pass
    assert other.take()
