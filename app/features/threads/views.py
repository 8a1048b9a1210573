"""Wire views of thread and checkpoint rows; containment and paths in values."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.agents.langgraph.wire import NAMESPACE, WRITES
from app.agents.port import START_NODE
from app.base.errors import Invalid
from app.base.ids import origin_id, task_id
from app.domain.state import ListChannel, ValueChannel, shown
from app.engine.checkpoints.codec import unpack_head
from app.engine.checkpoints.entry import FIRST_STEP
from app.engine.checkpoints.snapshot import StoredCheckpoint, read, size_of
from app.features.threads.structs import KEEP_LATEST, CheckpointRef, Thread, ThreadState
from app.infra.db.columns import from_row

MAX_PATHS = 10
MAX_COMPARISONS = 1_000_000
MAX_BYTES = 64 * 1024 * 1024
"""Bounds of one search: comparisons and bytes of states; some tenths of a second."""
_VALUE = "values."
_ROOTS = ("values", "metadata", "interrupts", "error", "config")
_PART = re.compile(r"\.?([A-Za-z0-9_-]+)|\[(-?[0-9]{1,9})\]")

Path = list[str | int]


class StateMatcher:
    """Find states that contain ``wanted``, within a budget of comparisons and bytes.

    Containment follows PostgreSQL's ``@>`` on jsonb: objects by members, lists by elements in any order, others by
    equality.
    """

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._comparisons = 0
        self._bytes = 0

    def matches(self, row: Any) -> bool:
        """Return whether the latest state in ``row`` (see ``app.engine.checkpoints.snapshot.read``) contains it.

        Raises ``Invalid`` if the budget is exceeded.
        """
        if row.head is None:
            return False
        self._bytes += size_of(row)
        if self._bytes > MAX_BYTES:
            raise _too_much()
        channels = shown(read(row, row.last_number).state.channels)
        return all(name in channels and self.contains(_decoded(channels[name]), w) for name, w in self._wanted.items())

    def contains(self, value: Any, wanted: Any) -> bool:
        """Return whether ``value`` contains ``wanted``. Raises as ``matches``."""
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
    """Decode element by element, so that no single call takes long."""
    if isinstance(channel, ListChannel):
        return [msgspec.json.decode(element) for element in channel.elements]
    return msgspec.json.decode(channel.value)


def _too_much() -> Invalid:
    return Invalid(
        "The values of these threads are too large to compare: narrow the search by metadata, status or ids.",
        (("/values", "too much to compare"),),
    )


def read_paths(extract: dict[str, str]) -> dict[str, Path]:
    """Parse ``extract`` into alias → path, as in ``values.messages[-1].content``. Raises ``Invalid``."""
    if len(extract) > MAX_PATHS:
        raise Invalid(f"extract has at most {MAX_PATHS} paths.", (("/extract", "too many"),))
    return {alias: _path(alias, text) for alias, text in extract.items()}


def _path(alias: str, text: str) -> Path:
    path: Path = []
    offset = 0
    while offset < len(text):
        match = _PART.match(text, offset)
        if match is None:
            break
        path.append(match[1] if match[1] is not None else int(match[2]))
        offset = match.end()
    if offset < len(text) or not path or path[0] not in _ROOTS:
        pointer = "/extract/" + alias.replace("~", "~0").replace("/", "~1")
        raise Invalid(
            f"{text[:100]!r} is not a valid path: begin with one of {', '.join(_ROOTS)}, as in values.messages[-1].",
            ((pointer, "invalid path"),),
        )
    return path


def value_at(value: Any, path: Path) -> Any:
    """Return the element at ``path`` in ``value``; None if missing."""
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


def new_thread_view(thread_id: UUID, metadata: dict[str, Any], created: datetime) -> Thread:
    """Return the view of a new thread."""
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
    """Return the view of a thread row, on request with its TTL."""
    has_run = row.runs > 0 or row.head is not None
    return from_row(
        Thread,
        row,
        values=NULL if row.head is None else msgspec.Raw(read(row, row.last_number).state.json()),
        error=row.error if has_run else msgspec.UNSET,
        interrupts=(row.interrupts or {}) if has_run else msgspec.UNSET,
        ttl=_ttl(row) if ttl else msgspec.UNSET,
    )


def state_of(thread_id: UUID, row: Row[Any]) -> ThreadState:
    """Return the state in ``row``; empty if the thread has no checkpoint."""
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
        tasks=[_task(thread_id, snapshot, node, row, waiting) for node in snapshot.next],
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


def is_partly_done(row: Row[Any]) -> bool:
    """Whether tasks of a graph have finished in the superstep after the latest checkpoint, which is in ``row``."""
    if not row.latest or row.checkpoint_id is None:
        return False
    return list(row.next) != [START_NODE] and WRITES in unpack_head(row.head).lists


def parent_of(thread_id: UUID, row: Row[Any]) -> UUID | None:
    """Return the parent of the checkpoint in ``row``: the origin for the first one, None if it was pruned."""
    if row.parent_id is not None:
        parent: UUID = row.parent_id
        return parent
    return origin_id(thread_id) if row.step == FIRST_STEP else None


def origin_of(thread_id: UUID, created_at: datetime) -> ThreadState:
    """Return the state before a thread's first input, for clients that fork from there (``origin_id``)."""
    checkpoint_id = origin_id(thread_id)
    return ThreadState(
        values=EMPTY,
        next=[START_NODE],
        tasks=[_task_view(checkpoint_id, START_NODE)],
        metadata={"run_id": None, "thread_id": thread_id, "source": "input", "step": FIRST_STEP - 1, "parents": {}},
        created_at=created_at,
        checkpoint=CheckpointRef(checkpoint_id=checkpoint_id, thread_id=thread_id),
        parent_checkpoint=None,
        interrupts=[],
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=None,
    )


def selected(state: ThreadState, fields: Sequence[str]) -> dict[str, Any]:
    """Return the ``fields`` of ``state`` alone; ``values.NAME`` is one of its values. Raises ``Invalid``."""
    names = [field.removeprefix(_VALUE) for field in fields if field.startswith(_VALUE)]
    whole = [field for field in fields if not field.startswith(_VALUE)]
    for field in whole:
        if field not in ThreadState.__struct_fields__:
            known = ", ".join(ThreadState.__struct_fields__)
            raise Invalid(f"Invalid select field: {field[:100]}. Use one of {known}, or values.NAME.")
    shown = {field: getattr(state, field) for field in whole}
    if names and "values" not in shown:
        members = msgspec.json.decode(state.values, type=dict[str, msgspec.Raw])
        shown["values"] = {name: members[name] for name in names if name in members}
    return shown


def parsed_state(text: bytes) -> ThreadState:
    """Return the state that JSON holds."""
    return msgspec.json.decode(text, type=ThreadState)


def _task(thread_id: UUID, snapshot: StoredCheckpoint, node: str, row: Row[Any], waiting: list[Any]) -> dict[str, Any]:
    error = row.error if row.latest else None
    text = f"{error['error']}({error['message']!r})" if error else None
    about = {"error": text, "interrupts": waiting, "checkpoint": _subgraph_of(thread_id, snapshot, node)}
    return {**_task_view(snapshot.checkpoint_id, node), **about}


def _subgraph_of(thread_id: UUID, snapshot: StoredCheckpoint, node: str) -> dict[str, Any] | None:
    """Return where the state of a node's subgraph is found; None if it has none."""
    for name in snapshot.state.channels:
        namespace = name.removeprefix(NAMESPACE)
        if namespace != name and "|" not in namespace and namespace.split(":")[0] == node:
            return {"thread_id": thread_id, "checkpoint_ns": namespace}
    return None


def _task_view(checkpoint_id: UUID, node: str) -> dict[str, Any]:
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
    """Return alias → element at its path in ``thread``."""
    whole = msgspec.json.decode(msgspec.json.encode(thread))
    return {alias: value_at(whole, path) for alias, path in paths.items()}


def _ttl(row: Row[Any]) -> dict[str, Any] | None:
    strategy, minutes = ("delete", row.ttl_minutes) if row.keep_minutes is None else (KEEP_LATEST, row.keep_minutes)
    if minutes is None:
        return None
    return {"strategy": strategy, "ttl_minutes": minutes, "expires_at": row.updated_at + timedelta(minutes=minutes)}


def storage_of(thread_id: UUID, heads: list[Row[Any]], items: list[Row[Any]]) -> dict[str, Any]:
    """Return the bytes of a thread's checkpoints, and of its values by channel."""
    sizes = {row.number: row.bytes for row in items}
    channels: dict[str, set[int]] = {}
    for row in heads:
        head = unpack_head(row.head)
        for name, ranges in head.lists.items():
            numbers = channels.setdefault(name, set())
            for first, last in zip(ranges[::2], ranges[1::2], strict=True):
                numbers.update(range(first, last + 1))
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
                name: {"versions": len(numbers), "bytes": sum(sizes.get(number, 0) for number in numbers)}
                for name, numbers in channels.items()
            },
        },
        "pending_writes": {"count": 0, "bytes": 0},
    }
