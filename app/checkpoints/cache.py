"""States of threads that ran here lately, so that the next turn need not load and decode them again."""

from collections import OrderedDict
from uuid import UUID

from app.domain.state import State

MOST_BYTES = 64 * 1024 * 1024
"""JSON bytes of all kept states together."""


class StateCache:
    """Least recently used states, each valid for exactly one checkpoint.

    A run *takes* a state out (it will change it) and puts it back when it has ended: a state is never shared.
    A thread that went on elsewhere has another head, so a stale entry is never found.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[tuple[UUID, UUID], tuple[UUID, int, State]] = OrderedDict()
        self._bytes = 0

    def take(self, tenant_id: UUID, thread_id: UUID, head: UUID) -> tuple[int, State] | None:
        """The step and state at checkpoint ``head``, no longer kept here; None when it is not."""
        found = self._states.pop((tenant_id, thread_id), None)
        if found is None:
            return None
        kept_head, step, state = found
        self._bytes -= state.size()
        return (step, state) if kept_head == head else None

    def put(self, tenant_id: UUID, thread_id: UUID, head: UUID, step: int, state: State) -> None:
        """Keep ``state`` as that of checkpoint ``head`` with number ``step``."""
        self.take(tenant_id, thread_id, head)
        self._states[tenant_id, thread_id] = (head, step, state)
        self._bytes += state.size()
        while self._bytes > MOST_BYTES and self._states:
            _, (_, _, dropped) = self._states.popitem(last=False)
            self._bytes -= dropped.size()
