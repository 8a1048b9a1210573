"""States of threads that ran here lately, so that the next turn need not load and decode them again."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from app.base.memory import trim_memory
from app.base.tasks import Tasks
from app.domain.state import State

MAX_BYTES = 64 * 1024 * 1024
"""Memory of all kept states together."""

IDLE_SECONDS = 300.0
"""A state that was not used for so long is given up, and its memory goes back to the system."""
LOOK_SECONDS = 30.0

_ENTRY_BYTES = 600
"""What an entry takes beside its state: ids, tuples, its place among the others."""


class CachedState(NamedTuple):
    """The state at one checkpoint ``head``: its number, and the nodes that go on from it."""

    head: UUID
    step: int
    next: tuple[str, ...]
    state: State


class _CacheEntry(NamedTuple):
    cached_state: CachedState
    size: int
    put_at: float


class StateCache:
    """Least recently used states, each valid for exactly one checkpoint.

    A run *takes* a state out (it will change it) and puts it back when it has ended: a state is never shared.
    A thread that went on elsewhere has another head, so a stale entry is never found.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[UUID, UUID], _CacheEntry] = OrderedDict()
        self._tasks = Tasks("state-cache")
        self.size = 0
        """Bytes of memory that the entries take."""

    def start(self) -> None:
        """Begin to give up what is idle."""
        self._tasks.repeat(self._look, LOOK_SECONDS, name="idle")

    async def aclose(self) -> None:
        """Give up no more."""
        await self._tasks.aclose()

    def take(self, tenant_id: UUID, thread_id: UUID, head: UUID) -> CachedState | None:
        """The state at checkpoint ``head``, no longer kept here; None when it is not."""
        cached_state = self._drop((tenant_id, thread_id))
        return cached_state if cached_state is not None and cached_state.head == head else None

    def put(self, tenant_id: UUID, thread_id: UUID, cached_state: CachedState) -> None:
        """Keep a state; its run must not change it any more."""
        key = (tenant_id, thread_id)
        self._drop(key)
        size = _ENTRY_BYTES + cached_state.state.memory()
        self._entries[key] = _CacheEntry(cached_state, size, time.monotonic())
        self.size += size
        while self.size > MAX_BYTES and self._entries:
            self._drop(next(iter(self._entries)))

    def forget(self, tenants: Collection[UUID]) -> None:
        """Keep nothing of these tenants."""
        for key in [key for key in self._entries if key[0] in tenants]:
            self._drop(key)

    def release_idle(self, now: float) -> int:
        """Give up what was put here ``IDLE_SECONDS`` before ``now`` and not used since; how many states."""
        idle = [key for key, entry in self._entries.items() if now - entry.put_at > IDLE_SECONDS]
        for key in idle:
            self._drop(key)
        return len(idle)

    async def _look(self) -> None:
        if self.release_idle(time.monotonic()):
            await asyncio.to_thread(trim_memory)  # walks the whole heap, which takes long where it is large

    def _drop(self, key: tuple[UUID, UUID]) -> CachedState | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.size -= entry.size
        return entry.cached_state
