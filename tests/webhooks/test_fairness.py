"""Calls of webhooks are shared fairly between tenants, and receivers say when they want to be called again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self
from uuid import UUID

import pytest

from app.cli.dev import DEFAULTS
from app.features.webhooks.dispatcher import AT_ONCE, AT_ONCE_A_TENANT_AND_HOST, AT_ONCE_SLOW, HostLoad
from app.infra.egress.addresses import AddressAllowlist
from app.infra.egress.client import seconds_of
from tests.system.services import API, Service, serving
from tests.webhooks.receiver import comes_true, receiving

HERE: dict[str, Any] = {"AGENT_AUTH": "api_key", "AGENT_RATE_PER_MINUTE": "0", "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}
HOSTILE, INNOCENT = UUID(int=1), UUID(int=2)


class Silence:
    """A receiver that takes calls and never answers. ``open`` is how many."""

    def __init__(self) -> None:
        self.open = 0
        self._over = asyncio.Event()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        await self._over.wait()
        writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()


@pytest.fixture
async def silence() -> AsyncIterator[Silence]:
    async with Silence() as silence:
        yield silence


async def runs_with(service: Service, key: str, *webhooks: str) -> None:
    body = [{"assistant_id": "echo", "input": {"messages": "hi"}, "webhook": webhook} for webhook in webhooks]
    answer = await service.client.post(f"{API}/runs/batch", json=body, headers={"x-api-key": key}, timeout=60)
    assert answer.status_code == 200, answer.text


async def test_silent_receivers_of_one_tenant_keep_no_other_s_webhook_waiting(
    fresh_database_url: str, silence: Silence
) -> None:
    """Also where the other's receiver has the same host."""
    async with receiving() as receiver, serving(fresh_database_url, **HERE) as service:
        service.services.engine.dispatcher._egress._seconds = 600
        hostile, innocent = await service.key("hostile"), await service.key("innocent")
        await runs_with(service, hostile, *[f"http://127.0.0.1:{silence.port}/hook"] * (AT_ONCE * 2))
        async with asyncio.timeout(40):
            while silence.open < AT_ONCE_A_TENANT_AND_HOST:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await runs_with(service, innocent, receiver.url)
        await receiver.until(1)
        assert silence.open == AT_ONCE_A_TENANT_AND_HOST, "all of its calls are still open"


def test_a_tenant_alone_has_half_of_the_calls_and_each_more_tenant_less() -> None:
    busy = HostLoad()
    for number in range(AT_ONCE // 2):
        assert HOSTILE not in busy.full()[1]
        busy.begin(HOSTILE, f"host {number}")
    assert busy.full()[1] == [HOSTILE]
    busy.begin(INNOCENT, "host")
    assert busy.full()[1] == [HOSTILE]


def test_no_tenant_fills_the_share_of_a_receiver_that_others_call_too() -> None:
    busy = HostLoad()
    for _ in range(AT_ONCE_A_TENANT_AND_HOST):
        busy.begin(HOSTILE, "shared")
    hosts, _, tenants, of = busy.full()
    assert (hosts, tenants, of) == ([], [HOSTILE], ["shared"])


def test_hosts_that_did_not_answer_in_time_share_a_part_of_their_own() -> None:
    now = [0.0]
    busy = HostLoad(lambda: now[0])
    for number in range(AT_ONCE_SLOW + 1):
        busy.begin(UUID(int=number), f"slow {number}")
        busy.end(UUID(int=number), f"slow {number}", late=True)
    for number in range(AT_ONCE_SLOW):
        assert busy.full()[0] == []
        busy.begin(UUID(int=number), f"slow {number}")
    assert len(busy.full()[0]) == AT_ONCE_SLOW + 1
    busy.end(UUID(int=0), "slow 0", late=False)
    assert "slow 0" not in busy._slow, "it has answered"
    now[0] += 1000
    assert busy.full()[0] == []


async def test_retry_after_of_a_receiver_is_honoured(fresh_database_url: str) -> None:
    async with receiving(429) as receiver, serving(fresh_database_url, **HERE) as service:
        receiver.headers = {"Retry-After": "3600"}
        key = await service.key("patient")
        await runs_with(service, key, receiver.url)
        await receiver.until(1)

        async def tried() -> Any:
            (one,) = (await service.get("/webhooks/deliveries", key)).json()
            return one["answer"] and one

        delivery = await comes_true(tried)
        wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
        assert (delivery["status"], delivery["answer"]) == ("pending", 429)
        assert timedelta(minutes=58) < wait <= timedelta(hours=1)


@pytest.mark.parametrize("text", ["", "soon", "-5", "1e9", "9" * 20, "٣"])
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
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
    with pytest.raises(OSError, match="no public address"):
        allowed.check("10.0.0.1")
