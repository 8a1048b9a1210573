"""Fair sharing of webhook calls between tenants, and Retry-After of receivers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self
from uuid import UUID

import pytest

from app.cli.dev import DEFAULTS
from app.features.webhooks.dispatcher import MAX_CALLS, MAX_CALLS_PER_TENANT_AND_HOST, MAX_SLOW_CALLS, HostLoad
from app.infra.egress.addresses import AddressAllowlist
from app.infra.egress.client import seconds_of
from tests.system.services import API, Service, serving
from tests.waiting import eventually
from tests.webhooks.receiver import receiving

HERE: dict[str, Any] = {"AGENT_AUTH": "api_key", "AGENT_RATE_PER_MINUTE": "0", "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}
HOSTILE, INNOCENT = UUID(int=1), UUID(int=2)


class Silence:
    """A receiver that accepts connections and never answers; ``open`` counts them."""

    def __init__(self) -> None:
        self.open = 0
        self._released = asyncio.Event()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        await self._released.wait()
        writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        self._server.close()


@pytest.fixture
async def silence() -> AsyncIterator[Silence]:
    async with Silence() as silence:
        yield silence


async def runs_with(service: Service, key: str, *webhooks: str) -> None:
    body = [{"assistant_id": "echo", "input": {"messages": "hi"}, "webhook": webhook} for webhook in webhooks]
    answer = await service.client.post(f"{API}/runs/batch", json=body, headers={"x-api-key": key}, timeout=60)
    assert answer.status_code == 200, answer.text


async def test_silent_receivers_of_one_tenant_do_not_delay_webhooks_of_others(
    fresh_database_url: str, silence: Silence
) -> None:
    """Also if both receivers have the same host."""
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        service.services.engine.dispatcher._egress._seconds = 600
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        await runs_with(service, hostile, *[f"http://127.0.0.1:{silence.port}/hook"] * (MAX_CALLS * 2))
        async with asyncio.timeout(40):
            while silence.open < MAX_CALLS_PER_TENANT_AND_HOST:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await runs_with(service, innocent, receiver.url)
        await receiver.until(1)
        assert silence.open == MAX_CALLS_PER_TENANT_AND_HOST, "all of its calls are still open"


def test_a_single_tenant_may_use_half_of_the_calls_and_more_tenants_less_each() -> None:
    load = HostLoad()
    for number in range(MAX_CALLS // 2):
        assert HOSTILE not in load.full()[1]
        load.begin(HOSTILE, f"host {number}")
    assert load.full()[1] == [HOSTILE]
    load.begin(INNOCENT, "host")
    assert load.full()[1] == [HOSTILE]


def test_no_tenant_uses_up_the_calls_to_a_shared_receiver() -> None:
    load = HostLoad()
    for _ in range(MAX_CALLS_PER_TENANT_AND_HOST):
        load.begin(HOSTILE, "shared")
    hosts, _, tenants, of = load.full()
    assert (hosts, tenants, of) == ([], [HOSTILE], ["shared"])


def test_slow_hosts_share_a_limit_of_their_own() -> None:
    now = [0.0]
    load = HostLoad(lambda: now[0])
    for number in range(MAX_SLOW_CALLS + 1):
        load.begin(UUID(int=number), f"slow {number}")
        load.end(UUID(int=number), f"slow {number}", timed_out=True)
    for number in range(MAX_SLOW_CALLS):
        assert load.full()[0] == []
        load.begin(UUID(int=number), f"slow {number}")
    assert len(load.full()[0]) == MAX_SLOW_CALLS + 1
    load.end(UUID(int=0), "slow 0", timed_out=False)
    assert "slow 0" not in load._slow, "it has answered"
    now[0] += 1000
    assert load.full()[0] == []


async def test_retry_after_of_a_receiver_is_honoured(fresh_database_url: str) -> None:
    async with receiving(429) as receiver, serving(fresh_database_url, **HERE) as service:
        receiver.headers = {"Retry-After": "3600"}
        key = await service.key("patient")
        await runs_with(service, key, receiver.url)
        await receiver.until(1)

        async def tried() -> Any:
            (one,) = (await service.get("/webhooks/deliveries", key)).json()
            return one["answer"] and one

        delivery = await eventually(tried)
        wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
        assert (delivery["status"], delivery["answer"]) == ("pending", 429)
        assert timedelta(minutes=58) < wait <= timedelta(hours=1)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "9" * 20, "٣"])
def test_an_invalid_retry_after_is_ignored(text: str) -> None:
    assert seconds_of(text) is None


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert seconds_of(" 120 ") == 120
    there = seconds_of(format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))
    assert there is not None
    assert 290 < there <= 300
    assert seconds_of("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_developer_receives_webhooks_on_the_same_machine() -> None:
    allowed = AddressAllowlist(DEFAULTS["AGENT_EGRESS_ALLOW"].split(","))
    allowed.check("127.0.0.1")
    allowed.check("::1")
    assert allowed.host("localhost")
    with pytest.raises(OSError, match="not a public address"):
        allowed.check("10.0.0.1")
