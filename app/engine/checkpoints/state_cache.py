"""Cache of recent thread states, which saves the next run loading and decoding them."""

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
"""Memory limit of all cached states together."""

IDLE_SECONDS = 300.0
"""A state unused for so long is evicted, and its memory returned to the system."""
EVICTION_SECONDS = 30.0

_ENTRY_BYTES = 600
"""Memory of an entry in addition to its state: ids, tuples, its slot in the dictionary."""


class CachedState(NamedTuple):
    """The state at checkpoint ``head``, its step number, and the nodes that follow."""

    head: UUID
    step: int
    next: tuple[str, ...]
    state: State


class _CacheEntry(NamedTuple):
    cached_state: CachedState
    size: int
    put_at: float


class StateCache:
    """LRU cache of states, each valid for exactly one checkpoint.

    A run *takes* a state out, as it will change it, and puts it back when it ends: states are never shared. A thread
    that continued in another process has another head, so a stale entry is never returned.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[UUID, UUID], _CacheEntry] = OrderedDict()
        self._tasks = Tasks("state-cache")
        self.size = 0
        """Memory of all entries, in bytes."""

    def start(self) -> None:
        """Start evicting idle states."""
        self._tasks.repeat(self._evict, EVICTION_SECONDS, name="evict")

    async def aclose(self) -> None:
        """Stop evicting."""
        await self._tasks.aclose()

    def take(self, tenant_id: UUID, thread_id: UUID, head: UUID) -> CachedState | None:
        """Remove and return the state at checkpoint ``head``; None if it is not cached."""
        cached_state = self._drop((tenant_id, thread_id))
        return cached_state if cached_state is not None and cached_state.head == head else None

    def put(self, tenant_id: UUID, thread_id: UUID, cached_state: CachedState) -> None:
        """Add a state, which its run must not change any more."""
        key = (tenant_id, thread_id)
        self._drop(key)
        size = _ENTRY_BYTES + cached_state.state.memory()
        self._entries[key] = _CacheEntry(cached_state, size, time.monotonic())
        self.size += size
        while self.size > MAX_BYTES and self._entries:
            self._drop(next(iter(self._entries)))

    def forget(self, tenants: Collection[UUID]) -> None:
        """Remove all states of these tenants."""
        for key in [key for key in self._entries if key[0] in tenants]:
            self._drop(key)

    def release_idle(self, now: float) -> int:
        """Evict states put here more than ``IDLE_SECONDS`` before ``now``; return how many."""
        idle = [key for key, entry in self._entries.items() if now - entry.put_at > IDLE_SECONDS]
        for key in idle:
            self._drop(key)
        return len(idle)

    async def _evict(self) -> None:
        if self.release_idle(time.monotonic()):
            await asyncio.to_thread(trim_memory)  # walks the whole heap, which takes long if it is large

    def _drop(self, key: tuple[UUID, UUID]) -> CachedState | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.size -= entry.size
        return entry.cached_state
