"""A thread's checkpoints in memory: the newest in each namespace, writes of tasks included, and what has changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.checkpoint.serde.types import _DeltaSnapshot as Snapshot

from agent_service_graphs.documents import (
    CALL,
    ENDED,
    HEAD,
    NAMESPACE,
    WRITES,
    CannotStore,
    ChannelStore,
    Codec,
    ShownChannels,
    checkpoint_of,
    head_of,
    shown_change,
)
from agent_service_graphs.invocations import Invocations
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.stored_values import Change, StoredValues

COUNTERS = "counters_since_delta_snapshot"
"""The metadata that counts the updates of channels which this checkpoint does not hold (LangGraph's DeltaChannel)."""

ALL_SHOWN = ShownChannels()

BRANCHING = frozenset({"fork", "update"})
"""Sources of checkpoints at which a branch may begin. They count as steps, though no node has run."""


class Record:
    """A checkpoint in one namespace, with the writes of its tasks: (task, index) → (path, channel, value)."""

    def __init__(
        self, checkpoint: Checkpoint, metadata: CheckpointMetadata, parent: str | None, namespace: str = ""
    ) -> None:
        self.checkpoint = checkpoint
        self.metadata = metadata
        self.parent = parent
        self.namespace = namespace
        self.writes: dict[tuple[str, int], tuple[str, str, Any]] = {}

    def tuple_for(self, thread_id: str) -> CheckpointTuple:
        """Return the checkpoint as LangGraph reads it; its dictionaries are copies."""
        at = {"thread_id": thread_id, "checkpoint_ns": self.namespace}
        ordered = sorted(self.writes.items(), key=lambda item: (item[1][0], item[0]))
        checkpoint = self.checkpoint
        return CheckpointTuple(
            config={"configurable": {**at, "checkpoint_id": checkpoint["id"]}},
            checkpoint={
                **checkpoint,
                "channel_values": dict(checkpoint["channel_values"]),
                "channel_versions": dict(checkpoint["channel_versions"]),
                "versions_seen": {node: dict(seen) for node, seen in checkpoint["versions_seen"].items()},
            },
            metadata={**self.metadata},
            parent_config={"configurable": {**at, "checkpoint_id": self.parent}} if self.parent else None,
            pending_writes=[(task, channel, value) for (task, _), (_, channel, value) in ordered],
        )

    def put(self, writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """Add ``writes``; of ordinary ones the first with an index stays, of special ones the last."""
        for position, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, position)
            if index < 0 or (task, index) not in self.writes:
                self.writes[task, index] = (path, channel, value)


class Answers:
    """People's answers that a run brings, by interrupt id, and those that it has used already."""

    def __init__(self, given: Mapping[str, Any], used: Sequence[str] = ()) -> None:
        self.used = list(used)
        self.open = {id_: answer for id_, answer in given.items() if id_ not in self.used}

    def record(self, record: Record, task: str) -> None:
        """Note that ``task`` has received the answer to its interrupt."""
        asked = next(
            (value for (of, _), (_, name, value) in record.writes.items() if of == task and name == INTERRUPT), ()
        )
        for interrupt in asked if isinstance(asked, (list, tuple)) else (asked,):
            if interrupt.id in self.open and interrupt.id not in self.used:
                self.used.append(interrupt.id)


class Document:
    """The thread's graph as stored: its checkpoint, its subgraphs' checkpoints, and what changed since the last report.

    Used from the event loop and from the threads of sync nodes. ``branchings``: how many ancestors of the checkpoint,
    itself included, begin a branch; without them a step has the same number on each branch.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        run_id: str,
        serde: JsonPlusSerializer,
        shown: ShownChannels = ALL_SHOWN,
    ) -> None:
        self.lock = threading.RLock()
        self.values = values if isinstance(values, StoredValues) else StoredValues(values)
        self.codec = Codec(serde)
        self.channels = ChannelStore(self.codec, shown.public)
        self._result, self._initial = shown.result, shown.initial
        self._shown: list[str] = []
        self.run_id = run_id
        self.root: Record | None = None
        self.subgraphs: dict[str, Record] = {}
        self.superseded = False
        self.touched: set[int] = set()
        self._snapshots: set[str] = set()
        self.is_of_run = False
        self.branchings = 0
        self.invocations = Invocations()
        self.dirty = False
        self.used: list[str] = []
        self._sent_writes: list[tuple[str, str, int, int]] = []
        self._changes: dict[str, Change] = {}
        self._stale: set[str] = set()
        if HEAD in values:
            self._load_root(self.values)
        for name, stored in values.items():
            if name.startswith(NAMESPACE):
                namespace = name[len(NAMESPACE) :]
                self.subgraphs[namespace] = self._load_subgraph(namespace, stored)
        for stored in values.get(WRITES, ()):
            namespace, task, path, index, channel, value = value_of(stored)
            found = self.find(namespace, None)
            if found is not None:
                found.writes[task, index] = (path, channel, self.codec.load(value))
        self._sent_writes = self._write_keys()

    def _load_root(self, values: StoredValues) -> None:
        head = value_of(values[HEAD])
        channels = self.channels.load(values, head["kinds"])
        self._snapshots.update(head.get("snapshots", ()))
        channels.update({name: Snapshot(channels[name]) for name in self._snapshots})
        typed = {name: self.codec.load(one) for name, one in head.get("typed", {}).items()}
        ids = {"run_id": head["run"]} if head["run"] else {}
        metadata = {**ids, **head["metadata"], **typed}
        self.root = Record(checkpoint_of(head, channels), metadata, head["parent"])  # type: ignore[arg-type]
        self.is_of_run = head["run"] == self.run_id
        self.branchings = head.get("branchings", int(metadata.get("source") == "fork"))
        self._shown = head.get("shown", [])
        self.used = head.get("used", []) if self.is_of_run else []

    def _load_subgraph(self, namespace: str, stored: bytes) -> Record:
        one = value_of(stored)
        return Record(self.codec.load(one["c"]), self.codec.load(one["m"]), one["p"], namespace)

    def _stored_subgraph(self, namespace: str) -> bytes:
        record = self.subgraphs[namespace]
        checkpoint = self.codec.dump(record.checkpoint, f"subgraph {namespace}")
        metadata = self.codec.dump(dict(record.metadata), f"subgraph {namespace}")
        return json_of({"c": checkpoint, "m": metadata, "p": record.parent})

    def allow(self, types: frozenset[tuple[str, ...]]) -> None:
        """Read ``types`` too, also in what has been read already: those of a graph that a node calls in its code."""
        with self.lock:
            if not self.codec.allow(types):
                return
            for namespace in self.subgraphs.keys() - self._stale:
                stored = self.values.get(NAMESPACE + namespace) or self.values[ENDED + namespace]
                record = self._load_subgraph(namespace, stored)
                record.writes = self.subgraphs[namespace].writes
                self.subgraphs[namespace] = record
            sent = {key: place for place, key in enumerate(self._sent_writes)}
            for stored in self.values.get(WRITES, ()):
                namespace, task, path, index, channel, value = value_of(stored)
                found = self.find(namespace, None)
                if found is None or (task, index) not in found.writes:
                    continue
                place = sent.get((namespace, task, index, id(found.writes[task, index][2])))
                if place is not None:
                    again = self.codec.load(value)
                    found.writes[task, index] = (path, channel, again)
                    self._sent_writes[place] = (namespace, task, index, id(again))

    def shown(self, namespace: str) -> Record | None:
        """Return the checkpoint in ``namespace`` that clients see: also of a subgraph that has ended."""
        if namespace not in self.subgraphs and (stored := self.values.get(ENDED + namespace)) is not None:
            self.subgraphs[namespace] = self._load_subgraph(namespace, stored)
        return self.find(namespace, None)

    def find(self, namespace: str, checkpoint_id: str | None) -> Record | None:
        """Return the newest checkpoint in ``namespace``, if it has that id or none is given."""
        record = self.root if namespace == "" else self.subgraphs.get(namespace)
        if record is None or (checkpoint_id and record.checkpoint["id"] != checkpoint_id):
            return None
        return record

    def put(self, record: Record, changed: Sequence[str]) -> None:
        """Take ``record`` as its namespace's newest checkpoint, in which the channels ``changed`` are new.

        Raises ``CannotStore``; then nothing is reported any more, and the thread stays at its last good checkpoint.
        """
        self.dirty = False
        self._complete(record, self.find(record.namespace, None))
        if record.namespace:
            self.subgraphs[record.namespace] = record
            self._stale.add(record.namespace)
            self.dirty = True
            return
        values = record.checkpoint["channel_values"]
        self._snapshots = {name for name, value in values.items() if type(value) is Snapshot}
        values = {name: value.value if name in self._snapshots else value for name, value in values.items()}
        self._changes.update(self.channels.changes(values, changed, self.touched))
        self.touched.clear()
        for name in self._initial.keys() - values.keys():
            if name not in self.values or self._changes.get(name, ()) is None:
                self._changes[name] = shown_change(self._initial[name])
        if self._result in values:
            shown = members_of(values[self._result])
            self._changes.update({name: None for name in self._shown if name not in shown})
            self._changes.update({name: ["v", json_of(value)] for name, value in shown.items()})
            self._shown = list(shown)
        self.forget_call_results()
        self._end_subgraphs()
        self.root = record
        self.branchings += record.metadata.get("source") in BRANCHING
        self._stale.add("")
        self.dirty = True

    def _end_subgraphs(self) -> None:
        """Put the checkpoints of the subgraphs of tasks, whose superstep has ended, aside for clients."""
        self._changes.update({name: None for name in self.values if name.startswith(ENDED)})
        for namespace in [one for one in self.subgraphs if ":" in one]:
            known = None if namespace in self._stale else self.values.get(NAMESPACE + namespace)
            self._changes[ENDED + namespace] = ["v", known or self._stored_subgraph(namespace)]
            self._changes[NAMESPACE + namespace] = None
            self._stale.discard(namespace)
            del self.subgraphs[namespace]

    def _complete(self, record: Record, before: Record | None) -> None:
        """Give ``record`` the values that it shares with the one ``before``.

        LangGraph leaves out channels that it stores as differences where they have not changed. Raises ``CannotStore``
        for one whose value is not known.
        """
        checkpoint = record.checkpoint
        given, versions = checkpoint["channel_values"], checkpoint["channel_versions"]
        known = {} if before is None else before.checkpoint["channel_values"]
        kept = {
            name: value
            for name, value in known.items()
            if type(value) is Snapshot and name in versions and name not in given
        }
        if kept:
            record.checkpoint = {**checkpoint, "channel_values": {**given, **kept}}
        counted: Any = record.metadata.get(COUNTERS) or {}
        for name, (updates, _) in counted.items():
            if updates and name not in record.checkpoint["channel_values"]:
                raise CannotStore(
                    f"The checkpoint has no value of the DeltaChannel {name!r}, which changed: a class that sets "
                    "its own snapshot_frequency must set it to 1."
                )

    def put_writes(self, record: Record, writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """Add the writes of a task."""
        record.put(writes, task, path)
        self.dirty = True
        for _, value in writes:
            self.touched.add(id(value))
            if isinstance(value, list):
                self.touched.update(map(id, value))

    @staticmethod
    def name_of_result(*call: str) -> str:
        """Return the name under which the result of the call that ``call`` identifies is stored."""
        return CALL + hashlib.blake2b(" ".join(call).encode(), digest_size=16).hexdigest()

    def call_result(self, name: str) -> tuple[bool, Any]:
        """Return whether the result of a call is known in this superstep, and the result."""
        stored = self.values.get(name)
        return (False, None) if stored is None else (True, self.codec.load(value_of(stored)))

    def add_call_result(self, name: str, result: Any, what: str) -> None:
        """Store the result of a call until the superstep has ended. Raises ``CannotStore``."""
        stored = json_of(self.codec.dump(result, what))
        with self.lock:
            self._changes[name] = ["v", stored]
            self.dirty = True

    def forget_call_results(self) -> None:
        """Remove the results of calls: their superstep has ended, or another run goes back to its beginning."""
        for name in [one for one in self.values if one.startswith(CALL)]:
            del self.values[name]
            self._changes[name] = None

    def take_changes(self) -> dict[str, Change]:
        """Return all changes since the last call, and make them to ``values``."""
        changes, self._changes = self._changes, {}
        self.dirty = False
        for namespace in self._stale - {""}:
            changes[NAMESPACE + namespace] = ["v", self._stored_subgraph(namespace)]
        self._stale.clear()
        if self.root is not None:
            changes[HEAD] = ["v", json_of(self._head(self.root))]
        self._write_changes(changes)
        self.values.apply(changes)
        return changes

    def _head(self, root: Record) -> dict[str, Any]:
        about: dict[str, Any] = {"parent": root.parent, "kinds": self.channels.kinds, "run": self.run_id}
        if self._snapshots:
            about["snapshots"] = sorted(self._snapshots)
        if self.used:
            about["used"] = self.used
        if self._shown:
            about["shown"] = self._shown
        if self.branchings:
            about["branchings"] = self.branchings
        return {**head_of(root.checkpoint, root.metadata, self.codec, self.run_id), **about}

    def records(self) -> list[Record]:
        """Return the newest checkpoint of each namespace."""
        return [*([] if self.root is None else [self.root]), *self.subgraphs.values()]

    def _write_keys(self) -> list[tuple[str, str, int, int]]:
        return [(r.namespace, *key, id(value)) for r in self.records() for key, (_, _, value) in r.writes.items()]

    def _write_changes(self, changes: dict[str, Change]) -> None:
        keys = self._write_keys()
        keep = 0
        for old, new in zip(self._sent_writes, keys, strict=False):
            if old != new:
                break
            keep += 1
        if keep == len(keys) == len(self._sent_writes):
            return
        every = [(r.namespace, *key, one) for r in self.records() for key, one in r.writes.items()]
        fresh = [
            json_of([namespace, task, path, index, channel, self.codec.dump(value, channel)])
            for namespace, task, index, (path, channel, value) in every[keep:]
        ]
        self._sent_writes = keys
        changes[WRITES] = ["s", keep, fresh] if keys else None


def members_of(result: Any) -> dict[str, Any]:
    """Return the result of an entry point as a thread's values: its members, or itself as ``output``."""
    if isinstance(result, dict) and all(isinstance(name, str) and not name.startswith("__") for name in result):
        return result
    return {"output": result}
