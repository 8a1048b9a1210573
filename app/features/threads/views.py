"""Rows of threads and checkpoints, as clients see them.

Looking into values: does an object contain another, and what is at a path.
"""

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.port import START_NODE
from app.base.errors import Invalid
from app.base.ids import origin_id, task_id
from app.domain.state import ListChannel, ValueChannel, shown
from app.engine.checkpoints.codec import unpack_head
from app.engine.checkpoints.entry import FIRST_STEP
from app.engine.checkpoints.snapshot import StoredCheckpoint, read, size_of
from app.features.threads.structs import KEEP_LATEST, CheckpointRef, Thread, ThreadState

MAX_PATHS = 10
MAX_COMPARISONS = 1_000_000
MAX_BYTES = 64 * 1024 * 1024
"""What one search may compare, and the bytes of the states that it may look into: some tenths of a second."""
_ROOTS = ("values", "metadata", "interrupts", "error", "config")
_PART = re.compile(r"\.?([A-Za-z0-9_-]+)|\[(-?[0-9]{1,9})\]")

Path = list[str | int]


class StateMatcher:
    """Finds the states that contain ``wanted``, within a budget of comparisons and of bytes.

    An object contains one whose members it has; a list one whose elements it has in any order; others are equal: as
    PostgreSQL's ``@>`` on jsonb has it.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._comparisons = 0
        self._bytes = 0

    def look_into(self, row: Any) -> bool:
        """Whether the latest state in ``row`` (as ``app.engine.checkpoints.snapshot.read`` takes it) contains it.

        Raises ``Invalid`` once all states looked into were too much.
        """
        if row.head is None:
            return False
        self._bytes += size_of(row)
        if self._bytes > MAX_BYTES:
            raise _too_much()
        channels = shown(read(row, row.last_number).state.channels)
        return all(name in channels and self.contains(_decoded(channels[name]), w) for name, w in self._wanted.items())

    def contains(self, value: Any, wanted: Any) -> bool:
        """Whether ``value`` contains ``wanted``. Raises as ``look_into`` does."""
        self._count(1)
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                return False
            return all(k in value and self.contains(value[k], w) for k, w in wanted.items())
        if isinstance(wanted, list):
            return isinstance(value, list) and self._contains_all(value, wanted)
        return type(value) is type(wanted) and bool(value == wanted)

    def _contains_all(self, value: list[Any], wanted: list[Any]) -> bool:
        self._count(len(value) + len(wanted))
        plain = {(type(one), one) for one in value if not isinstance(one, dict | list)}
        nested = [one for one in value if isinstance(one, dict | list)]
        for one in wanted:
            if not isinstance(one, dict | list):
                if (type(one), one) not in plain:
                    return False
            elif not any(self.contains(other, one) for other in nested):
                return False
        return True

    def _count(self, comparisons: int) -> None:
        self._comparisons += comparisons
        if self._comparisons > MAX_COMPARISONS:
            raise _too_much()


def _decoded(channel: ListChannel | ValueChannel) -> Any:
    """Element by element: no call takes long."""
    if isinstance(channel, ListChannel):
        return [msgspec.json.decode(element) for element in channel.elements]
    return msgspec.json.decode(channel.value)


def _too_much() -> Invalid:
    return Invalid(
        "The values of these threads are too much to look into: narrow the search by metadata, status or ids.",
        (("/values", "too much to compare"),),
    )


def read_paths(extract: dict[str, str]) -> dict[str, Path]:
    """Alias → path. Raises ``Invalid`` for more than ten, or for one like no ``values.messages[-1].content``."""
    if len(extract) > MAX_PATHS:
        raise Invalid(f"extract has at most {MAX_PATHS} paths.", (("/extract", "too many"),))
    return {alias: _path(alias, text) for alias, text in extract.items()}


def _path(alias: str, text: str) -> Path:
    path: Path = []
    place = 0
    while place < len(text):
        match = _PART.match(text, place)
        if match is None:
            break
        path.append(match[1] if match[1] is not None else int(match[2]))
        place = match.end()
    if place < len(text) or not path or path[0] not in _ROOTS:
        pointer = "/extract/" + alias.replace("~", "~0").replace("/", "~1")
        raise Invalid(
            f"{text[:100]!r} is no path: begin with one of {', '.join(_ROOTS)} and go on like values.messages[-1].",
            ((pointer, "is no path"),),
        )
    return path


def value_at(value: Any, path: Path) -> Any:
    """What is at ``path`` in ``value``; None where nothing is."""
    for part in path:
        if isinstance(part, int):
            if not isinstance(value, list) or not -len(value) <= part < len(value):
                return None
            value = value[part]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


NULL = msgspec.Raw(b"null")
EMPTY = msgspec.Raw(b"{}")


def fresh(thread_id: UUID, metadata: dict[str, Any], created: datetime) -> Thread:
    """A thread that was just created."""
    return Thread(
        thread_id=thread_id,
        created_at=created,
        updated_at=created,
        state_updated_at=created,
        metadata=metadata,
        status="idle",
        config={},
        values=NULL,
    )


def thread_view(row: Row[Any], *, ttl: bool = False) -> Thread:
    """The thread in ``row``, on request with its lifetime."""
    touched = row.runs > 0 or row.head is not None
    return Thread(
        thread_id=row.thread_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        state_updated_at=row.state_updated_at,
        metadata=row.metadata,
        status=row.status,
        config=row.config,
        values=NULL if row.head is None else msgspec.Raw(read(row, row.last_number).state.json()),
        error=row.error if touched else msgspec.UNSET,
        interrupts=(row.interrupts or {}) if touched else msgspec.UNSET,
        ttl=_ttl(row) if ttl else msgspec.UNSET,
    )


def state_of(thread_id: UUID, row: Row[Any]) -> ThreadState:
    """The state in ``row``: empty for a thread that has no checkpoint."""
    if row.checkpoint_id is None:
        return ThreadState(
            values=EMPTY,
            next=[],
            tasks=[],
            metadata=None,
            created_at=None,
            checkpoint=None,
            parent_checkpoint=None,
            interrupts=[],
            checkpoint_id=None,
            parent_checkpoint_id=None,
        )
    snapshot = read(row, row.last_number)
    waiting = [one for many in (row.interrupts or {}).values() for one in many] if row.latest else []
    parent = parent_of(thread_id, row)
    return ThreadState(
        values=msgspec.Raw(snapshot.state.json()),
        next=list(snapshot.next),
        tasks=[_task(snapshot, node, row, waiting) for node in snapshot.next],
        metadata={
            **(row.run_metadata or {}),
            **(snapshot.metadata or {}),
            "run_id": snapshot.run_id,
            "thread_id": thread_id,
            "source": snapshot.source,
            "step": snapshot.step,
            "parents": {},
        },
        created_at=snapshot.created_at,
        checkpoint=CheckpointRef(checkpoint_id=snapshot.checkpoint_id, thread_id=thread_id),
        parent_checkpoint=None if parent is None else CheckpointRef(checkpoint_id=parent, thread_id=thread_id),
        interrupts=waiting,
        checkpoint_id=snapshot.checkpoint_id,
        parent_checkpoint_id=parent,
    )


def parent_of(thread_id: UUID, row: Row[Any]) -> UUID | None:
    """The checkpoint before the one in ``row``: the origin before a first one, none where the past was pruned."""
    if row.parent_id is not None:
        parent: UUID = row.parent_id
        return parent
    return origin_id(thread_id) if row.step == FIRST_STEP else None


def origin_of(thread_id: UUID, created_at: datetime) -> ThreadState:
    """The state before a thread's first input, for clients that start again from there (``origin_id``)."""
    checkpoint_id = origin_id(thread_id)
    return ThreadState(
        values=EMPTY,
        next=[START_NODE],
        tasks=[_shown_task(checkpoint_id, START_NODE)],
        metadata={"run_id": None, "thread_id": thread_id, "source": "input", "step": FIRST_STEP - 1, "parents": {}},
        created_at=created_at,
        checkpoint=CheckpointRef(checkpoint_id=checkpoint_id, thread_id=thread_id),
        parent_checkpoint=None,
        interrupts=[],
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=None,
    )


def _task(snapshot: StoredCheckpoint, node: str, row: Row[Any], waiting: list[Any]) -> dict[str, Any]:
    error = row.error if row.latest else None
    said = f"{error['error']}({error['message']!r})" if error else None
    return {**_shown_task(snapshot.checkpoint_id, node), "error": said, "interrupts": waiting}


def _shown_task(checkpoint_id: UUID, node: str) -> dict[str, Any]:
    return {
        "id": task_id(checkpoint_id, node),
        "name": node,
        "path": ["__pregel_pull", node],
        "error": None,
        "interrupts": [],
        "checkpoint": None,
        "state": None,
        "result": None,
    }


def extracted(thread: Thread, paths: dict[str, Path]) -> dict[str, Any]:
    """Alias → what is at its path in ``thread``."""
    whole = msgspec.json.decode(msgspec.json.encode(thread))
    return {alias: value_at(whole, path) for alias, path in paths.items()}


def _ttl(row: Row[Any]) -> dict[str, Any] | None:
    strategy, minutes = ("delete", row.ttl_minutes) if row.keep_minutes is None else (KEEP_LATEST, row.keep_minutes)
    if minutes is None:
        return None
    return {"strategy": strategy, "ttl_minutes": minutes, "expires_at": row.updated_at + timedelta(minutes=minutes)}


def storage_of(thread_id: UUID, heads: list[Row[Any]], items: list[Row[Any]]) -> dict[str, Any]:
    """The bytes that a thread takes: of its checkpoints, and of its values by channel."""
    sizes = {row.number: row.bytes for row in items}
    channels: dict[str, set[int]] = {}
    for row in heads:
        head = unpack_head(row.head)
        for name, ranges in head.lists.items():
            named = channels.setdefault(name, set())
            for first, last in zip(ranges[::2], ranges[1::2], strict=True):
                named.update(range(first, last + 1))
        for name, number in head.items.items():
            channels.setdefault(name, set()).add(number)
    checkpoints = sum(row.bytes for row in heads)
    values = sum(sizes.values())
    return {
        "thread_id": thread_id,
        "total_bytes": checkpoints + values,
        "checkpoints": {"count": len(heads), "bytes": checkpoints},
        "channel_values": {
            "count": len(sizes),
            "bytes": values,
            "by_channel": {
                name: {"versions": len(named), "bytes": sum(sizes.get(number, 0) for number in named)}
                for name, named in channels.items()
            },
        },
        "pending_writes": {"count": 0, "bytes": 0},
    }
