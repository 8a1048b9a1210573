"""The values that the worker has of a thread, so that a run sends those alone which the worker does not have.

The difference is taken between what the worker was sent or has reported, byte by byte, and the thread's state as the
run has loaded it. So a state that was changed elsewhere (by another process, a client, a fork, an owner that lost the
run) makes the difference larger, never wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.agents.langgraph.wire import Changes

MAX_BYTES = 64 * 1024 * 1024
"""Memory of all values that the worker keeps. The JSON of the same is kept here, mostly shared with cached states."""
IDLE_SECONDS = 300.0
"""How long it keeps those of a thread that has no run."""
EVICTION_SECONDS = 30.0

Values = Mapping[str, bytes | list[bytes]]
"""Values by name: JSON, or a list of JSON."""


class KeptValues:
    """The values that the worker has. ``run``: the number of the run that left them (0: none), in ``size`` bytes."""

    def __init__(self) -> None:
        self.run = 0
        self.size = 0
        self._values: dict[str, Any] = {}

    def update(self, values: Values) -> Changes:
        """Take ``values`` in place of those before; return the changes that the worker makes for it."""
        before = self._values
        changes: Changes = {name: None for name in before if name not in values}
        for name, value in values.items():
            known = before.get(name)
            if not isinstance(value, list):
                if value != known:
                    changes[name] = ["v", value]
                continue
            keep = _shared(known, value) if isinstance(known, list) else 0
            if not isinstance(known, list) or keep < max(len(known), len(value)):
                changes[name] = ["s", keep, value[keep:]]
        self._values = {name: list(value) if isinstance(value, list) else value for name, value in values.items()}
        return changes

    def apply(self, changes: Changes) -> None:
        """Make the ``changes`` that the worker has reported."""
        for name, change in changes.items():
            if change is None:
                self._values.pop(name, None)
            elif change[0] == "v":
                self._values[name] = change[1]
            else:
                before = self._values.get(name)
                kept = before if isinstance(before, list) else []
                del kept[change[1] :]
                kept += change[2]
                self._values[name] = kept


def _shared(known: Sequence[bytes], value: Sequence[bytes]) -> int:
    """Return how many leading elements are the same."""
    count = min(len(known), len(value))
    if known[:count] == value[:count]:
        return count
    return next(at for at in range(count) if known[at] != value[at])
