"""Floods of bad credentials from one address are delayed, valid credentials are not."""

import time
from typing import Any

import pytest

from app.features.access import guard
from app.features.access.guard import RefusalThrottle
from app.infra.http.client_address import TrustedProxies
from tests.access.clock import Clock
from tests.system.services import Service


def asked(address: str) -> Any:
    return {"client": (address, 1), "headers": []}


async def test_many_refusals_of_one_address_are_delayed(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(guard, "DELAY_SECONDS", 0.05)
    monkeypatch.setattr(guard, "MAX_ADDRESSES", 3)
    slow = RefusalThrottle(TrustedProxies(), clock)

    async def seconds(address: str) -> float:
        began = time.monotonic()
        await slow.wait(asked(address))
        return time.monotonic() - began

    for _ in range(guard.MAX_UNDELAYED):
        await slow.wait(asked("192.0.2.1"))
    assert await seconds("192.0.2.1") >= 0.045  # the loop's clock is coarser than ours
    await slow.wait(asked("192.0.2.2"))
    assert slow._count("192.0.2.2") == 2, "another address is counted separately"
    clock.seconds += guard.WINDOW_SECONDS
    assert slow._count("192.0.2.1") == 1, "a new window begins"
    for number in range(10):
        await slow.wait(asked(f"198.51.100.{number}"))
    assert len(slow._refusals) == 3


async def test_valid_keys_of_the_same_address_are_not_held_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_UNDELAYED", 1)
    monkeypatch.setattr(guard, "DELAY_SECONDS", 0.5)
    key = await service.key("steady")
    await service.get("/threads/x/state", "as_0123456789abcdef_" + "x" * 43)
    began = time.monotonic()
    answer = await service.get("/threads/x/state", "as_0123456789abcdef_" + "y" * 43)
    assert (answer.status_code, time.monotonic() - began >= 0.5) == (401, True)
    monkeypatch.setattr(guard, "DELAY_SECONDS", 3600.0)
    assert (await service.get("/threads/x/state", key)).status_code == 422
