"""The journal of a function's completed operations, stored in the thread's state while the work is unfinished.

After a crash, or when a person has answered, the function restarts from its beginning, and each recorded operation
returns its result from the journal.
"""

from typing import Any
from uuid import UUID

import msgspec

from app.base.errors import JournalFull, PathChanged
from app.domain.state import State

JOURNAL = "__journal"
"""The hidden channel: the start of the work, then an entry for each completed operation."""

MAX_RESULT_BYTES = 1024 * 1024
"""Largest result of one step, in bytes of JSON."""
MAX_JOURNAL_BYTES = 8 * 1024 * 1024
"""Largest journal of a run, in bytes of JSON."""

encode = msgspec.json.Encoder().encode


class FunctionStart(msgspec.Struct, frozen=True, kw_only=True):
    """The start of the work: the ``run`` and ``agent``, and the ``input`` if the function takes one."""

    agent: str
    run: str
    input: Any = msgspec.UNSET


class RecordedFailure(msgspec.Struct, frozen=True):
    """A recorded exception: the name of its type and its message."""

    kind: str
    words: str


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A completed operation at position ``at``; ``of`` is the digest of its arguments if they must not change.

    ``update`` is its update of the thread's values. ``before`` are the values that channels had before the function
    first changed them, ``said`` the ids of messages it added: both as of this entry's commit.
    """

    at: str
    kind: str
    name: str = ""
    of: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: RecordedFailure | None = None
    update: dict[str, Any] = {}
    before: dict[str, msgspec.Raw] = {}
    said: list[str] = []


_begun = msgspec.json.Decoder(FunctionStart).decode
_entry = msgspec.json.Decoder(StepRecord).decode


class StepJournal:
    """The recorded operations. ``unread`` are the entries that the replay has not reached yet.

    ``before`` and ``said`` are merged over all entries. ``saved``: the stored state holds the journal's start.
    """

    def __init__(self, begun: FunctionStart) -> None:
        self.begun = begun
        self.saved = False
        self.unread: dict[str, StepRecord] = {}
        self.before: dict[str, msgspec.Raw] = {}
        self.said: set[str] = set()
        self._elements = [encode(begun)]
        self._pending: list[StepRecord] = []
        self._size = len(self._elements[0])

    @classmethod
    def load(cls, state: State, agent: str, run: str) -> "StepJournal":
        """Load the journal of ``agent`` from ``state``, or create one that starts in ``run``."""
        elements = state.elements(JOURNAL)
        begun = _begun(elements[0]) if elements else None
        if begun is None or begun.agent != agent:
            return cls(FunctionStart(agent=agent, run=run))
        journal = cls(begun)
        journal.saved = True
        for element in elements[1:]:
            entry = _entry(element)
            journal._append(entry, element)
            if entry.at:
                journal.unread[entry.at] = entry
        return journal

    @property
    def has_pending(self) -> bool:
        """Whether entries wait for the next commit."""
        return bool(self._pending) or not self.saved

    def take(self, at: str, kind: str, name: str, of: str = "") -> StepRecord | None:
        """Return the entry recorded at ``at``, or None. Raises ``PathChanged`` if it is a different operation."""
        found = self.unread.pop(at, None)
        if found is None:
            return None
        if (found.kind, found.name) != (kind, name):
            raise PathChanged(
                f"The function took another path: at position {at} it did {found.kind} {found.name!r} before, and now "
                f"does {kind} {name!r}. It must repeat the same operations when it restarts: put clocks, random "
                "numbers and requests into steps. A new input starts over."
            )
        if found.of != of:
            raise PathChanged(
                f"The function took another path: at position {at} it did {kind} {name!r} with other arguments before. "
                "It must pass the same arguments when it restarts. A new input starts over."
            )
        for inner in [position for position in self.unread if position.startswith(f"{at}/")]:
            del self.unread[inner]  # covered by this entry
        return found

    def is_replaying(self, path: str) -> bool:
        """Whether recorded operations at or below ``path`` are still to be replayed."""
        return any(position.startswith(path) for position in self.unread)

    def defer(self, entry: StepRecord) -> None:
        """Add ``entry`` with the next commit."""
        self._pending.append(entry)

    def add(self, *entries: StepRecord) -> dict[str, Any]:
        """Add ``entries`` and pending ones; return the update of the state that stores them. Raises ``JournalFull``."""
        fresh = [*self._pending, *entries]
        self._pending = []
        for entry in fresh:
            if len(bytes(entry.result)) > MAX_RESULT_BYTES:
                raise JournalFull(
                    f"{entry.kind} {entry.name!r} returned {len(bytes(entry.result))} bytes of JSON, more than "
                    f"{MAX_RESULT_BYTES}: store large values elsewhere and return a reference."
                )
            self._append(entry, encode(entry))
        if self._size > MAX_JOURNAL_BYTES:
            raise JournalFull(
                f"The steps of this run returned {self._size} bytes of JSON together, more than {MAX_JOURNAL_BYTES}: "
                "store large values elsewhere and return references."
            )
        self.saved = True
        return {JOURNAL: [msgspec.Raw(element) for element in self._elements]}

    def _append(self, entry: StepRecord, element: bytes) -> None:
        self._elements.append(element)
        self._size += len(element)
        self.said.update(entry.said)
        for name, value in entry.before.items():
            self.before.setdefault(name, value)


def begin(agent: str, run: str, given: Any = msgspec.UNSET) -> dict[str, Any]:
    """Return the update of the state that starts the work over."""
    return {JOURNAL: [msgspec.Raw(encode(FunctionStart(agent=agent, run=run, input=given)))]}


def started_by(state: State) -> UUID | None:
    """Return the run that started the unfinished work in ``state``, or None."""
    elements = state.elements(JOURNAL)
    return UUID(_begun(elements[0]).run) if elements else None


def unfinished(state: State) -> bool:
    """Whether ``state`` holds a function's unfinished work."""
    return bool(state.elements(JOURNAL))
