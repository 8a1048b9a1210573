"""States of threads that ran here lately, so that the next turn need not load and decode them again."""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from app.domain.state import State

MOST_BYTES = 64 * 1024 * 1024
"""JSON bytes of all kept states together."""


class Kept(NamedTuple):
    """The state at one checkpoint ``head``: its number, and the nodes that go on from it."""

    head: UUID
    step: int
    next: tuple[str, ...]
    state: State


class StateCache:
    """Least recently used states, each valid for exactly one checkpoint.

    A run *takes* a state out (it will change it) and puts it back when it has ended: a state is never shared.
    A thread that went on elsewhere has another head, so a stale entry is never found.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[UUID, UUID], Kept] = OrderedDict()
        self._bytes = 0

    def take(self, tenant_id: UUID, thread_id: UUID, head: UUID) -> Kept | None:
        """The state at checkpoint ``head``, no longer kept here; None when it is not."""
        found = self._states.pop((tenant_id, thread_id), None)
        if found is None:
            return None
        self._bytes -= found.state.size()
        return found if found.head == head else None

    def put(self, tenant_id: UUID, thread_id: UUID, kept: Kept) -> None:
        """Keep a state; its run must not change it any more."""
        self.take(tenant_id, thread_id, kept.head)
        self._states[tenant_id, thread_id] = kept
        self._bytes += kept.state.size()
        while self._bytes > MOST_BYTES and self._states:
            _, dropped = self._states.popitem(last=False)
            self._bytes -= dropped.state.size()

    def forget(self, tenants: Collection[UUID]) -> None:
        """Keep nothing of these tenants."""
        for tenant_id, thread_id in [place for place in self._states if place[0] in tenants]:
            self._bytes -= self._states.pop((tenant_id, thread_id)).state.size()
