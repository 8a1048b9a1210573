"""The journal of a run: what the function has done so far, kept in the thread's state while the run is unfinished.

The function has no memory of its own. After a crash, or when a person has answered, it starts from its beginning, and
at each place where it did something before it gets the result from here.
"""

from typing import Any
from uuid import UUID

import msgspec

from app.base.errors import JournalFull, PathChanged
from app.domain.state import State

JOURNAL = "__journal"
"""The hidden channel: what the run began with, then an entry for each thing that was done."""

MAX_RESULT_BYTES = 1024 * 1024
"""Bytes of JSON that one step may give back."""
MAX_JOURNAL_BYTES = 8 * 1024 * 1024
"""Bytes of JSON that a run may keep while it is unfinished."""

encode = msgspec.json.Encoder().encode


class FunctionStart(msgspec.Struct, frozen=True, kw_only=True):
    """How the work began: in which ``run`` of which ``agent``, with which ``input``, if the function takes one."""

    agent: str
    run: str
    input: Any = msgspec.UNSET


class RecordedFailure(msgspec.Struct, frozen=True):
    """What was raised: the name of its type and its message."""

    kind: str
    words: str


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was done at the place ``at``; ``of`` tells what it was asked with, where that must be the same.

    ``update`` is what it changed in the thread's values. ``before`` are the values that channels had before the
    function first changed them, ``said`` the ids of messages it added: both as of this entry's commit.
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
    """What is done. ``unread`` are the entries that the function has not come by yet since it began again.

    ``before`` and ``said`` are those of all entries together.
    """

    def __init__(self, begun: FunctionStart) -> None:
        self.begun = begun
        self.kept = False
        self.unread: dict[str, StepRecord] = {}
        self.before: dict[str, msgspec.Raw] = {}
        self.said: set[str] = set()
        self._elements = [encode(begun)]
        self._waiting: list[StepRecord] = []
        self._size = len(self._elements[0])

    @classmethod
    def load(cls, state: State, agent: str, run: str) -> "StepJournal":
        """The journal in ``state``; a new one that begins in ``run`` where there is none of ``agent``."""
        elements = state.elements(JOURNAL)
        begun = _begun(elements[0]) if elements else None
        if begun is None or begun.agent != agent:
            return cls(FunctionStart(agent=agent, run=run))
        journal = cls(begun)
        journal.kept = True
        for element in elements[1:]:
            entry = _entry(element)
            journal._take_in(entry, element)
            if entry.at:
                journal.unread[entry.at] = entry
        return journal

    @property
    def waits(self) -> bool:
        """Whether there is something that the next commit must take along."""
        return bool(self._waiting) or not self.kept

    def take(self, at: str, kind: str, name: str, of: str = "") -> StepRecord | None:
        """What was done at ``at``, if anything was. Raises ``PathChanged`` when it was something else."""
        found = self.unread.pop(at, None)
        if found is None:
            return None
        if (found.kind, found.name) != (kind, name):
            raise PathChanged(
                f"The function took another path: at place {at} it did {found.kind} {found.name!r} before, and now "
                f"wants {kind} {name!r}. It must do the same each time it begins again: put clocks, random numbers and "
                "requests into steps. A new input begins anew."
            )
        if found.of != of:
            raise PathChanged(
                f"The function took another path: at place {at} it did {kind} {name!r} with something else before. It "
                "must ask the same each time it begins again. A new input begins anew."
            )
        for inner in [place for place in self.unread if place.startswith(f"{at}/")]:
            del self.unread[inner]  # done within this one
        return found

    def expects(self, path: str) -> bool:
        """Whether anything at or below ``path`` was done and not come by yet."""
        return any(place.startswith(path) for place in self.unread)

    def later(self, entry: StepRecord) -> None:
        """Add ``entry`` with the next commit."""
        self._waiting.append(entry)

    def add(self, *entries: StepRecord) -> dict[str, Any]:
        """Add ``entries`` and those that wait; the update of the state that keeps them. Raises ``JournalFull``."""
        fresh = [*self._waiting, *entries]
        self._waiting = []
        for entry in fresh:
            if len(bytes(entry.result)) > MAX_RESULT_BYTES:
                raise JournalFull(
                    f"{entry.kind} {entry.name!r} gave back {len(bytes(entry.result))} bytes of JSON, more than "
                    f"{MAX_RESULT_BYTES}: keep large things elsewhere and give back where they are."
                )
            self._take_in(entry, encode(entry))
        if self._size > MAX_JOURNAL_BYTES:
            raise JournalFull(
                f"The steps of this run gave back {self._size} bytes of JSON together, more than {MAX_JOURNAL_BYTES}: "
                "keep large things elsewhere and give back where they are."
            )
        self.kept = True
        return {JOURNAL: [msgspec.Raw(element) for element in self._elements]}

    def _take_in(self, entry: StepRecord, element: bytes) -> None:
        self._elements.append(element)
        self._size += len(element)
        self.said.update(entry.said)
        for name, value in entry.before.items():
            self.before.setdefault(name, value)


def begin(agent: str, run: str, given: Any = msgspec.UNSET) -> dict[str, Any]:
    """The update of the state with which work begins anew."""
    return {JOURNAL: [msgspec.Raw(encode(FunctionStart(agent=agent, run=run, input=given)))]}


def begun_in(state: State) -> UUID | None:
    """The run in which the unfinished work in ``state`` began, if there is some."""
    elements = state.elements(JOURNAL)
    return UUID(_begun(elements[0]).run) if elements else None


def unfinished(state: State) -> bool:
    """Whether a function's work is under way in ``state``."""
    return bool(state.elements(JOURNAL))
