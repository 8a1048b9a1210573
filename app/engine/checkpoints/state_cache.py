"""Cache of recent thread states, which saves the next run loading and decoding them."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import NamedTuple
from uuid import UUID

from app.base.memory import trim_memory
from app.base.tasks import Tasks
from app.base.ttl_cache import TTLCache
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


class StateCache:
    """LRU cache of states, each valid for exactly one checkpoint.

    A run *takes* a state out, as it will change it, and puts it back when it ends: states are never shared. A thread
    that continued in another process has another head, so a stale entry is never returned.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: TTLCache[tuple[UUID, UUID], CachedState] = TTLCache(
            MAX_BYTES, IDLE_SECONDS, size_of=_memory, clock=clock
        )
        self._tasks = Tasks("state-cache")

    @property
    def size(self) -> int:
        """Memory of all entries, in bytes."""
        return self._entries.size

    def start(self) -> None:
        """Start evicting idle states."""
        self._tasks.repeat(self._evict, EVICTION_SECONDS, name="evict")

    async def aclose(self) -> None:
        """Stop evicting."""
        await self._tasks.aclose()

    def take(self, tenant_id: UUID, thread_id: UUID, head: UUID) -> CachedState | None:
        """Remove and return the state at checkpoint ``head``; None if it is not cached."""
        cached_state = self._entries.pop((tenant_id, thread_id))
        return cached_state if cached_state is not None and cached_state.head == head else None

    def put(self, tenant_id: UUID, thread_id: UUID, cached_state: CachedState) -> None:
        """Add a state, which its run must not change any more."""
        self._entries.put((tenant_id, thread_id), cached_state)

    def forget(self, tenants: Collection[UUID]) -> None:
        """Remove all states of these tenants."""
        self._entries.remove_if(lambda key: key[0] in tenants)

    def release_idle(self) -> int:
        """Evict states put here more than ``IDLE_SECONDS`` ago; return how many."""
        return self._entries.remove_expired()

    async def _evict(self) -> None:
        if self.release_idle():
            await asyncio.to_thread(trim_memory)  # walks the whole heap, which takes long if it is large


def _memory(_: tuple[UUID, UUID], cached_state: CachedState) -> int:
    return _ENTRY_BYTES + cached_state.state.memory()
