"""The state cache takes no more memory than it reports, whatever its states, and returns it."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.base.ids import new_id
from app.domain.state import State
from app.engine.checkpoints import state_cache
from app.engine.checkpoints.state_cache import CachedState, StateCache
from tests.access.clock import Clock

FILL = """
import gc
from pathlib import Path
from uuid import UUID
from app.base.ids import new_id
from app.engine.checkpoints import state_cache
from app.engine.checkpoints.state_cache import CachedState, StateCache
from app.domain.state import State

messages, length, channels = {messages}, {length}, {channels}
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096
tenant, states = new_id(), StateCache()
head = new_id()

def made():
    state = State()
    for number in range(messages):
        state.merge_messages([b'{{"id":"%s","type":"human","content":"%s"}}' % (new_id().hex.encode(), b"x" * length)])
    for number in range(channels):
        state.set(f"channel {{number}}", {{"value": number}})
    state.take_items()
    return CachedState(new_id(), 1, ("agent",), state)

states.put(tenant, new_id(), made())
gc.collect()
before = resident()
turns = 0
while states.size < state_cache.MAX_BYTES * 0.98 or turns < 10:
    states.put(tenant, new_id(), made())
    turns += 1
full = resident() - before
states.forget([tenant])
gc.collect()
state_cache.trim_memory()
print(full, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux' /proc")
@pytest.mark.parametrize("messages, length, channels", [(2, 20, 0), (2, 20, 20), (200, 60, 2), (4, 20_000, 1)])
def test_a_full_cache_takes_the_memory_it_reports_and_returns_it(messages: int, length: int, channels: int) -> None:
    code = FILL.format(messages=messages, length=length, channels=channels)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    full, after = map(int, done.stdout.split())
    assert 0.6 * state_cache.MAX_BYTES < full < 1.15 * state_cache.MAX_BYTES
    assert after < 0.3 * full


def test_idle_states_are_evicted() -> None:
    clock = Clock()
    states, tenant, idle, used = StateCache(clock), new_id(), new_id(), new_id()
    kept = [CachedState(new_id(), 1, (), State()) for _ in range(2)]
    states.put(tenant, idle, kept[0])
    clock.seconds += state_cache.IDLE_SECONDS - 1.0
    assert states.release_idle() == 0
    states.put(tenant, used, kept[1])
    clock.seconds += 2.0
    assert states.release_idle() == 1
    assert states.take(tenant, idle, kept[0].head) is None
    assert states.take(tenant, used, kept[1].head) == kept[1]
    assert states.size == 0


async def test_memory_is_returned_to_the_system_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes long if the heap is large."""
    trimming, seen = threading.Event(), threading.Event()

    def trim() -> None:
        trimming.set()
        assert seen.wait(20), "the event loop waits for it"

    monkeypatch.setattr(state_cache, "trim_memory", trim)
    monkeypatch.setattr(state_cache, "IDLE_SECONDS", -1.0)
    monkeypatch.setattr(state_cache, "EVICTION_SECONDS", 0.01)
    states = StateCache()
    states.put(new_id(), new_id(), CachedState(new_id(), 1, (), State()))
    states.start()
    async with asyncio.timeout(30):
        while not trimming.is_set():  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0.01)
    assert not seen.is_set()
    seen.set()
    await states.aclose()
