"""The thread's values as a function agent sees them: a snapshot from its start, with its own changes."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, overload

import msgspec

from app.agents.functions.conversion import convert, to_json
from app.agents.functions.step_journal import StepJournal
from app.domain.state import HIDDEN, MESSAGES, State

T = TypeVar("T")

MEMORY = "memory"


class ThreadValues:
    """``context.state``: the thread's values. Changes are committed with the next step.

    A replayed function reads each value as it was originally, not as its own later steps left it.
    """

    def __init__(self, state: State, journal: StepJournal) -> None:
        self._state = state
        self._journal = journal
        self._own: dict[str, bytes] = {}
        self._dirty: set[str] = set()

    @overload
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, kind: type[T]) -> T | None: ...
    @overload
    def get(self, name: str, kind: type[T], default: T) -> T: ...

    def get(self, name: str, kind: Any = Any, default: Any = None) -> Any:
        """Return the value ``name`` converted to ``kind``; ``default`` if missing.

        Raises ``ValueError`` if the value does not match ``kind``.
        """
        if name in self._own:
            value = msgspec.json.decode(self._own[name])
        elif name in self._journal.before:
            value = msgspec.json.decode(self._journal.before[name])
        else:
            value = self._state.get(name)
        if value is None:
            return copy.copy(default)
        try:
            return convert(value, kind)
        except ValueError as error:
            raise ValueError(f"the value {name!r} does not match the requested type: {error}") from error

    def set(self, name: str, value: Any) -> None:
        """Set the value ``name`` to any JSON (or struct, dataclass, model).

        Raises ``ValueError`` for a reserved name, ``TypeError`` if the value has no JSON form.
        """
        check_name(name)
        self._own[name] = to_json(value)
        self._dirty.add(name)

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def apply(self, update: Mapping[str, Any]) -> None:
        """Set every value of ``update``."""
        for name, value in update.items():
            self.set(name, value)

    def take_changes(self) -> tuple[dict[str, Any], dict[str, msgspec.Raw]]:
        """Return changes not yet in the thread's state, and the values before the function first changed them."""
        update: dict[str, Any] = {}
        before: dict[str, msgspec.Raw] = {}
        for name in sorted(self._dirty):
            channel = self._state.channels.get(name)
            stored = b"null" if channel is None else channel.json()
            if stored == self._own[name]:
                continue
            update[name] = msgspec.json.decode(self._own[name])
            if name not in self._journal.before:
                before[name] = msgspec.Raw(stored)
        self._dirty.clear()
        return update, before


class NamedMemory:
    """``context.memory``: named values of this thread.

    Stored in the thread's values under ``memory``, for the lifetime of the thread and invisible to other threads.
    """

    def __init__(self, values: ThreadValues) -> None:
        self._values = values

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, kind: type[T]) -> T | None: ...
    @overload
    async def get(self, key: str, kind: type[T], default: T) -> T: ...

    async def get(self, key: str, kind: Any = Any, default: Any = None) -> Any:
        """Return the value ``key`` converted to ``kind``; ``default`` if missing. Raises ``ValueError``."""
        value = self._all().get(key)
        return copy.copy(default) if value is None else convert(value, kind)

    async def set(self, key: str, value: Any) -> None:
        """Store ``value`` as ``key``; None deletes it."""
        others = {name: one for name, one in self._all().items() if name != key}
        self._values.set(MEMORY, others if value is None else {**others, key: value})

    def _all(self) -> dict[str, Any]:
        found = self._values.get(MEMORY)
        return found if isinstance(found, dict) else {}


def check_name(name: str) -> None:
    """Raise ``ValueError`` if a function cannot set the value ``name``."""
    if name == MESSAGES:
        raise ValueError("messages are added with context.say, or returned")
    if not name or name.startswith(HIDDEN):
        raise ValueError(f"the name {name!r} is reserved")
