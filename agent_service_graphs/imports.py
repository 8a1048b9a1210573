"""Checkpoints that LangGraph's PostgreSQL checkpointer has stored, as values of the engine's state.

The rows come as they are; only the project's own environment can read them, by the types in its graphs' schemas.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.types import TASKS
from langgraph.checkpoint.serde.types import _DeltaSnapshot as Snapshot

from agent_service_graphs.checkpoints import COUNTERS, Document, Record
from agent_service_graphs.describing import Graph, next_nodes, serializer, shown_channels
from agent_service_graphs.documents import CannotStore
from agent_service_graphs.projection import value_of

SENDS_IN_CHECKPOINT = 4
"""Version of checkpoints that hold their sends; before it they were writes of the parent's tasks."""


class ImportedThread:
    """A thread's checkpoints, in the order in which they were made. Raises ``CannotStore``."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._serde = serializer(graph)
        self._document = Document({}, "", self._serde, shown_channels(graph))
        self._versions: dict[str, Any] = {}
        self._values: dict[str, Any] = {}
        self._changed: list[str] = []
        self._dumps: dict[str, list[Any]] = {}
        self._parents: dict[str, Record] = {}
        """Earlier checkpoints by id, of graphs whose channels may be stored as differences."""

    def add(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Take the rows of a checkpoint and of its subgraphs' checkpoints; return the changes, and what runs next."""
        root, others = self._read(stored)
        for record in (root, *others):
            writes, record.writes = record.writes, {}
            self._document.put(record, self._changed)
            record.writes = writes  # not before: they come with the checkpoint
        return {"changes": self._document.take_changes(), "next": next_nodes(self._graph, root.checkpoint)}

    def differences(self, stored: dict[str, Any], values: dict[str, Any]) -> list[str]:
        """Return where the engine's ``values`` of a checkpoint are not what its rows say; takes them in order too."""
        root, others = self._read(stored)
        ours = Document(values, "", self._serde, shown_channels(self._graph))
        found: list[str] = []
        for record in (root, *others):
            mine = ours.find(record.namespace, record.checkpoint["id"])
            if mine is None:
                found.append(f"checkpoint {record.checkpoint['id']} of {record.namespace or 'the graph'}")
                continue
            for what, theirs, kept in (
                ("channels", record.checkpoint["channel_values"], mine.checkpoint["channel_values"]),
                ("writes", record.writes, mine.writes),
                ("versions", record.checkpoint["channel_versions"], mine.checkpoint["channel_versions"]),
                ("parent", record.parent, mine.parent),
            ):
                if not self._are_equal(theirs, kept):
                    found.append(f"{what} of checkpoint {record.checkpoint['id']}")
        return found

    def _are_equal(self, theirs: Any, kept: Any) -> bool:
        """Whether two values have the same types and content. A set may give its elements in any order."""
        dump = self._serde.dumps_typed
        if type(theirs) is not type(kept):
            return False
        if dump(theirs) == dump(kept):
            return True
        if isinstance(theirs, dict):
            return theirs.keys() == kept.keys() and all(self._are_equal(theirs[name], kept[name]) for name in theirs)
        if isinstance(theirs, (list, tuple)):
            return len(theirs) == len(kept) and all(map(self._are_equal, theirs, kept))
        if isinstance(theirs, (set, frozenset)):
            return sorted(map(dump, theirs)) == sorted(map(dump, kept))
        members = _members(theirs)
        return bool(members) and self._are_equal(members, _members(kept))

    def _read(self, stored: dict[str, Any]) -> tuple[Record, list[Record]]:
        blocked: list[str] = []

        def on_event(event: SerdeEvent) -> None:
            if "blocked" in event["kind"]:
                blocked.append(f"{event['module']}.{event['name']}")

        forget = register_serde_event_listener(on_event)
        try:
            root = self._record(stored, self._values)
            others = [self._record(one, {}) for one in stored["subgraphs"]]
        finally:
            forget()
        if blocked:
            raise CannotStore(
                f"A value has type {blocked[0]}, which would not be read: name that type in the state's schema."
            )
        return root, others

    def _record(self, stored: dict[str, Any], before: dict[str, Any]) -> Record:
        """Return the checkpoint with the rows ``stored``; channels that they lack have the values ``before``."""
        checkpoint: Any = value_of(stored["checkpoint"])
        namespace = stored["namespace"]
        load = self._serde.loads_typed
        blobs = {name: load((kind, body)) for name, kind, body in stored["blobs"] if kind != "empty"}
        versions = checkpoint["channel_versions"]
        same = {
            name: value
            for name, value in before.items()
            if name in versions and versions[name] == self._versions.get(name)
        }
        values = {**(checkpoint.get("channel_values") or {}), **same, **blobs}
        if not namespace:
            values = {name: self._with_known_elements(name, value) for name, value in values.items()}
        if checkpoint["v"] < SENDS_IN_CHECKPOINT and stored["sends"]:
            values[TASKS] = [load((kind, body)) for kind, body in stored["sends"]]
            versions[TASKS] = max(versions.values()) if versions else 1
        numbers = {name: _number(version) for name, version in versions.items()}
        seen = {
            node: {name: _number(version) for name, version in many.items()}
            for node, many in checkpoint["versions_seen"].items()
        }
        checkpoint = {
            "updated_channels": None,
            **checkpoint,
            "channel_values": values,
            "channel_versions": numbers,
            "versions_seen": seen,
        }
        record = Record(checkpoint, value_of(stored["metadata"]), stored["parent"], namespace)
        for task, path, index, channel, kind, body in stored["writes"]:
            record.writes[task, index] = (path, channel, load((kind, body)))
        if not namespace:
            self._replay(record)
            self._changed = [name for name, version in versions.items() if self._versions.get(name) != version]
            self._versions, self._values = versions, dict(values)
        return record

    def _with_known_elements(self, name: str, value: Any) -> Any:
        """Return ``value`` with the leading elements of the list before that are equal: they are stored already."""
        if type(value) is not list or value is self._values.get(name):
            return value
        known, before = self._values.get(name), self._dumps.get(name, [])
        dumps = self._dumps[name] = [self._serde.dumps_typed(one) for one in value]
        if type(known) is not list:
            return value
        return [
            known[at] if at < min(len(known), len(before)) and before[at] == dumps[at] else one
            for at, one in enumerate(value)
        ]

    def _replay(self, record: Record) -> None:
        """Give ``record`` the values of channels that are stored as differences, from its parent's and the writes."""
        deltas = {name: spec for name, spec in self._graph.channels.items() if isinstance(spec, DeltaChannel)}
        if not deltas:
            return
        values, parent = record.checkpoint["channel_values"], self._parents.get(record.parent or "")
        counted: Any = record.metadata.get(COUNTERS) or {}
        for name, spec in deltas.items():
            if counted.get(name, (0, 0))[0] and name in record.checkpoint["channel_versions"] and name not in values:
                if record.parent and parent is None:
                    raise CannotStore(
                        f"The channel {name!r} of checkpoint {record.checkpoint['id']} is stored as the difference to "
                        f"{record.parent}, which is not there."
                    )
                known = {} if parent is None else parent.checkpoint["channel_values"]
                channel = spec.from_checkpoint(known.get(name))
                written = [] if parent is None else parent.tuple_for("").pending_writes or []
                channel.replay_writes([one for one in written if one[1] == name])
                values[name] = Snapshot(channel.get())
        self._parents[record.checkpoint["id"]] = record


def _number(version: Any) -> Any:
    """Return the version of a channel as this server's checkpointer counts it.

    That for PostgreSQL writes the number as text, and after a dot what makes it unique.
    """
    return int(version.partition(".")[0]) if isinstance(version, str) else version


def _members(value: Any) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return getattr(value, "__dict__", None)
