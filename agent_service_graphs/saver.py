"""The checkpointer of one run: reads what the engine sent with the run, reports every change to the engine.

The engine commits a superstep's checkpoint with its events in one transaction, if the run still has its lease
(``app.agents.langgraph``). Writes of finished tasks are reported while others of their superstep still run.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME

from agent_service_graphs.documents import HEAD, NAMESPACE, WRITES, Change, ChannelStore, Codec, checkpoint_of, head_of
from agent_service_graphs.projection import json_of, value_of

WRITES_DELAY = 0.005
"""Seconds that the writes of a task wait for the end of its superstep, which makes them obsolete."""
SUPERSEDED = "ffffffff-ffff-6fff-bfff-ffffffffffff"
"""The id of the newest checkpoint as a run sees it that goes back to an earlier one."""


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

    Used from the event loop and from the threads of sync nodes.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        run_id: str,
        serde: SerializerProtocol,
        public: Sequence[str],
        result: str = "",
    ) -> None:
        self.lock = threading.RLock()
        self.codec = Codec(serde)
        self.channels = ChannelStore(self.codec, public)
        self._result = result
        self._shown: list[str] = []
        self.run_id = run_id
        self.root: Record | None = None
        self.subgraphs: dict[str, Record] = {}
        self.superseded = False
        self.touched: set[int] = set()
        self.is_of_run = False
        self.dirty = False
        self.used: list[str] = []
        self._sent_writes: list[tuple[str, str, int, int]] = []
        self._changes: dict[str, Change] = {}
        self._stale: set[str] = set()
        if HEAD in values:
            self._load(values)

    def _load(self, values: Mapping[str, Any]) -> None:
        head = value_of(values[HEAD])
        channels = self.channels.load(values, head["kinds"])
        typed = {name: self.codec.load(one) for name, one in head.get("typed", {}).items()}
        metadata = {**head["metadata"], **typed}
        self.root = Record(checkpoint_of(head, channels), metadata, head["parent"])  # type: ignore[arg-type]
        self.is_of_run = head["run"] == self.run_id
        self._shown = head.get("shown", [])
        self.used = head.get("used", []) if self.is_of_run else []
        for name, stored in values.items():
            if name.startswith(NAMESPACE):
                one = value_of(stored)
                record = Record(self.codec.load(one["c"]), self.codec.load(one["m"]), one["p"], name[len(NAMESPACE) :])
                self.subgraphs[record.namespace] = record
        for stored in values.get(WRITES, ()):
            namespace, task, path, index, channel, value = value_of(stored)
            found = self.find(namespace, None)
            if found is not None:
                found.writes[task, index] = (path, channel, self.codec.load(value))
        self._sent_writes = self._write_keys()

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
        if record.namespace:
            self.subgraphs[record.namespace] = record
            self._stale.add(record.namespace)
            self.dirty = True
            return
        values = record.checkpoint["channel_values"]
        self._changes.update(self.channels.changes(values, changed, self.touched))
        self.touched.clear()
        if self._result in values:
            shown = members_of(values[self._result])
            self._changes.update({name: None for name in self._shown if name not in shown})
            self._changes.update({name: ["v", json_of(value)] for name, value in shown.items()})
            self._shown = list(shown)
        for namespace in [one for one in self.subgraphs if ":" in one]:  # of tasks of the superstep that has ended
            del self.subgraphs[namespace]
            self._stale.discard(namespace)
            self._changes[NAMESPACE + namespace] = None
        self.root = record
        self._stale.add("")
        self.dirty = True

    def put_writes(self, record: Record, writes: Sequence[tuple[str, Any]], task: str, path: str) -> None:
        """Add the writes of a task."""
        record.put(writes, task, path)
        self.dirty = True
        for _, value in writes:
            self.touched.add(id(value))
            if isinstance(value, list):
                self.touched.update(map(id, value))

    def take_changes(self) -> dict[str, Change]:
        """Return all changes since the last call."""
        changes, self._changes = self._changes, {}
        self.dirty = False
        for namespace in self._stale - {""}:
            record = self.subgraphs[namespace]
            checkpoint = self.codec.dump(record.checkpoint, f"subgraph {namespace}")
            metadata = self.codec.dump(dict(record.metadata), f"subgraph {namespace}")
            stored = {"c": checkpoint, "m": metadata, "p": record.parent}
            changes[NAMESPACE + namespace] = ["v", json_of(stored)]
        self._stale.clear()
        if self.root is not None:
            changes[HEAD] = ["v", json_of(self._head(self.root))]
            self._write_changes(changes)
        return changes

    def _head(self, root: Record) -> dict[str, Any]:
        about: dict[str, Any] = {"parent": root.parent, "kinds": self.channels.kinds, "run": self.run_id}
        if self.used:
            about["used"] = self.used
        if self._shown:
            about["shown"] = self._shown
        return {**head_of(root.checkpoint, root.metadata, self.codec), **about}

    def _records(self) -> list[Record]:
        return [] if self.root is None else [self.root, *self.subgraphs.values()]

    def _write_keys(self) -> list[tuple[str, str, int, int]]:
        return [(r.namespace, *key, id(value)) for r in self._records() for key, (_, _, value) in r.writes.items()]

    def _write_changes(self, changes: dict[str, Change]) -> None:
        keys = self._write_keys()
        keep = 0
        for old, new in zip(self._sent_writes, keys, strict=False):
            if old != new:
                break
            keep += 1
        if keep == len(keys) == len(self._sent_writes):
            return
        every = [(r.namespace, *key, one) for r in self._records() for key, one in r.writes.items()]
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


class RunSaver(BaseCheckpointSaver[int]):
    """The checkpointer of one run.

    ``on_step`` reports a checkpoint of the graph and ``on_change`` what changed inside of a superstep; both return what
    the engine's acknowledgement sets, and their second argument says whether it is wanted.
    """

    def __init__(
        self,
        document: Document,
        answers: Answers,
        on_step: Callable[[Record, bool], asyncio.Future[None] | None],
        on_change: Callable[[bool], asyncio.Future[None] | None],
        *,
        waits: bool,
        unreported: Collection[str] = ("input", "fork"),
    ) -> None:
        """``unreported``: sources of checkpoints that the engine has a checkpoint of already."""
        super().__init__(serde=None)
        self._unreported = unreported
        self.document = document
        self._answers = answers
        self._on_step, self._on_change, self._waits = on_step, on_change, waits
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the newest checkpoint in the namespace of ``config``; None for another one."""
        at = config["configurable"]
        checkpoint_id = at.get("checkpoint_id")
        with self.document.lock:
            record = self.document.find(at.get("checkpoint_ns") or "", checkpoint_id)
            found = None if record is None else record.tuple_for(str(at["thread_id"]))
        if found is not None and self.document.superseded and not checkpoint_id and not at.get("checkpoint_ns"):
            found.checkpoint["id"] = SUPERSEDED
        return found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  the interface's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the newest checkpoint in the namespace of ``config``, if it matches: a run sees no older ones."""
        found = None if config is None or before is not None or limit == 0 else self.get_tuple(config)
        if found is not None and all(found.metadata.get(name) == value for name, value in (filter or {}).items()):
            yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Report ``checkpoint``, from a thread that runs a sync node; waits where the run's durability says so."""
        if threading.get_ident() == self._thread:
            self._put(config, checkpoint, metadata, new_versions)
        else:
            asyncio.run_coroutine_threadsafe(self.aput(config, checkpoint, metadata, new_versions), self._loop).result()
        return self._config(config, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Report the writes of a task, from a thread that runs a sync node."""
        if threading.get_ident() == self._thread:
            self._put_writes(config, writes, task_id, task_path)
        else:
            asyncio.run_coroutine_threadsafe(self.aput_writes(config, writes, task_id, task_path), self._loop).result()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the newest checkpoint in the namespace of ``config``; None for another one."""
        return self.get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  the interface's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield the newest checkpoint in the namespace of ``config``, if it matches."""
        for found in self.list(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Report ``checkpoint``; returns once the engine has committed it, where the run's durability says so."""
        acknowledged = self._put(config, checkpoint, metadata, new_versions)
        if acknowledged is not None:
            await acknowledged
        return self._config(config, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Report the writes of a task."""
        self._put_writes(config, writes, task_id, task_path)

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> asyncio.Future[None] | None:
        at = config["configurable"]
        namespace = at.get("checkpoint_ns") or ""
        about = get_checkpoint_metadata(config, metadata)
        record = Record(checkpoint, about, at.get("checkpoint_id"), namespace)
        with self.document.lock:
            self.document.put(record, list(new_versions))
            if namespace:
                return self._on_change(self._waits)
            if metadata["source"] in self._unreported:
                self.document.superseded = False
                return None
            return self._on_step(record, self._waits)

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        at = config["configurable"]
        with self.document.lock:
            record = self.document.find(at.get("checkpoint_ns") or "", at.get("checkpoint_id"))
            if record is None:
                return
            if any(channel == RESUME for channel, _ in writes):
                self._answers.record(record, task_id)
                self.document.used = self._answers.used
            self.document.put_writes(record, writes, task_id, task_path)
        self._loop.call_later(WRITES_DELAY, self._on_change, False)

    @staticmethod
    def _config(config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
        at = config["configurable"]
        kept = {"thread_id": at["thread_id"], "checkpoint_ns": at.get("checkpoint_ns", "")}
        return {"configurable": {**kept, "checkpoint_id": checkpoint_id}}
