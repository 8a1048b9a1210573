"""The checkpointer of a run: reads what the engine sent with the run, reports every change to the engine.

The engine commits a superstep's checkpoint with its events in one transaction, if the run still has its lease
(``app.agents.langgraph``). Writes of finished tasks are reported while others of their superstep still run. What the
run does not have in memory, older checkpoints and other threads, goes through ``ThreadStore``.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import RESUME

from agent_service_graphs.checkpoints import Answers, Document, Record
from agent_service_graphs.threads import ThreadStore

WRITES_DELAY = 0.005
"""Seconds that the writes of a task wait for the end of its superstep, which makes them obsolete."""
SUPERSEDED = "ffffffff-ffff-6fff-bfff-ffffffffffff"
"""The id of the newest checkpoint as a run sees it that goes back to an earlier one."""


class RunSaver(BaseCheckpointSaver[int]):
    """The checkpointer of one run.

    ``on_step`` reports a checkpoint of the graph and ``on_change`` what changed inside of a superstep; both return what
    the engine's acknowledgement sets, None where the run's durability does not wait. The argument of ``on_change`` says
    whether the caller would wait.
    """

    def __init__(
        self,
        document: Document,
        answers: Answers,
        on_step: Callable[[Record], asyncio.Future[None] | None],
        on_change: Callable[[bool], asyncio.Future[None] | None],
        *,
        threads: ThreadStore | None = None,
        unreported: Collection[str] = ("input", "fork"),
    ) -> None:
        """``threads``: None in a use without a run, which has its own thread alone.

        ``unreported``: sources of checkpoints that the engine has a checkpoint of already.
        """
        super().__init__(serde=document.codec.serde)
        self._unreported = unreported
        self.document = document
        self._threads = threads
        self._answers = answers
        self._on_step, self._on_change = on_step, on_change
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> RunSaver:
        """Return this checkpointer, which has the types in the schemas of another graph too.

        LangGraph asks at the start of each graph; those that a walk over the graphs finds are known already.
        """
        types = frozenset(extra_allowlist)
        self.document.allow(types)
        self.serde = self.document.codec.serde
        if self._threads is not None:
            self._threads.types |= types
        return self

    def _is_own(self, at: Mapping[str, Any]) -> bool:
        return self._threads is None or str(at["thread_id"]) == self._threads.own

    def _stored(self) -> ThreadStore:
        if self._threads is None:
            raise RuntimeError("A graph has no other threads and no older checkpoints outside of a run.")
        return self._threads

    def _in_memory(self, at: Mapping[str, Any]) -> CheckpointTuple | None:
        """Return the newest checkpoint in the namespace of ``at`` on the run's own thread, if ``at`` means that."""
        if not self._is_own(at):
            return None
        self.document.invocations.note(at)
        checkpoint_id = at.get("checkpoint_id")
        with self.document.lock:
            record = self.document.find(at.get("checkpoint_ns") or "", checkpoint_id)
            found = None if record is None else record.tuple_for(str(at["thread_id"]))
        if found is not None and self.document.superseded and not checkpoint_id and not at.get("checkpoint_ns"):
            found.checkpoint["id"] = SUPERSEDED
        return found

    def _is_stored(self, at: Mapping[str, Any]) -> bool:
        """Whether the engine may have the checkpoint ``at`` if it is not in memory."""
        return self._threads is not None and (bool(at.get("checkpoint_id")) or not self._is_own(at))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that ``config`` names, else the newest in its namespace."""
        at = config["configurable"]
        found = self._in_memory(at)
        if found is not None or not self._is_stored(at):
            return found
        stored: CheckpointTuple | None = self._stored().wait_for(self.aget_tuple(config))
        return stored

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that ``config`` names, else the newest in its namespace."""
        at = config["configurable"]
        found = self._in_memory(at)
        if found is not None or not self._is_stored(at):
            return found
        place = (str(at["thread_id"]), at.get("checkpoint_ns") or "", at.get("checkpoint_id"))
        return await self._stored().get(*place)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  the interface's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints as ``alist`` does, from a thread that runs a sync node."""
        found: Sequence[CheckpointTuple] = self._stored().wait_for(self._all(config, filter, before, limit))
        yield from found

    async def _all(
        self,
        config: RunnableConfig | None,
        filter_: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Sequence[CheckpointTuple]:
        return [one async for one in self.alist(config, filter=filter_, before=before, limit=limit)]

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  the interface's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints in the namespace of ``config``, newest first; without one those of the run's thread.

        ``filter``: metadata that they have. ``before``: they are older than this one.
        """
        at = (config or {}).get("configurable") or {"thread_id": self._stored().own}
        wanted, last = at.get("checkpoint_id"), ((before or {}).get("configurable") or {}).get("checkpoint_id")
        left = float("inf") if limit is None else limit
        async for found in self._history(at):
            if left <= 0:
                return
            id_ = found.checkpoint["id"]
            if (wanted and id_ != wanted) or (last and id_ >= last):
                continue
            if all(found.metadata.get(name) == value for name, value in (filter or {}).items()):
                left -= 1
                yield found

    async def _history(self, at: Mapping[str, Any]) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints in the namespace of ``at``, newest first."""
        thread_id, namespace = str(at["thread_id"]), at.get("checkpoint_ns") or ""
        newest = self._in_memory({"thread_id": thread_id, "checkpoint_ns": namespace})
        if newest is not None:
            yield newest
        async for found in self._stored().history(thread_id, namespace):
            if newest is None or found.checkpoint["id"] != newest.checkpoint["id"]:
                yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Report ``checkpoint``, from a thread that runs a sync node; waits where the run's durability says so."""
        if threading.get_ident() == self._thread and self._is_own(config["configurable"]):
            self._put(self._record(config, checkpoint, metadata), new_versions)
            return self._config(config, checkpoint["id"])
        work = self.aput(config, checkpoint, metadata, new_versions)
        if self._threads is not None:
            stored: RunnableConfig = self._threads.wait_for(work)
            return stored
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Report ``checkpoint``; returns once the engine has committed it, where the run's durability says so."""
        at = config["configurable"]
        record = self._record(config, checkpoint, metadata)
        if not self._is_own(at):
            await self._stored().put(str(at["thread_id"]), record)
        elif (acknowledged := self._put(record, new_versions)) is not None:
            await acknowledged
        return self._config(config, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Report the writes of a task, from a thread that runs a sync node."""
        if threading.get_ident() == self._thread and self._is_own(config["configurable"]):
            self._put_writes(config, writes, task_id, task_path)
            return
        work = self.aput_writes(config, writes, task_id, task_path)
        if self._threads is not None:
            self._threads.wait_for(work)
        else:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Report the writes of a task."""
        at = config["configurable"]
        if self._is_own(at):
            self._put_writes(config, writes, task_id, task_path)
        else:
            await self._stored().put_writes(at, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, from a thread that runs a sync node."""
        self._stored().wait_for(self.adelete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread; refused while it has a run, as the run's own thread has."""
        await self._stored().delete(str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete what runs have stored, from a thread that runs a sync node."""
        self._stored().wait_for(self.adelete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs on threads without a live run."""
        await self._stored().delete_runs(run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread, from a thread that runs a sync node."""
        self._stored().wait_for(self.acopy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with its history to a new one."""
        await self._stored().copy(str(source_thread_id), str(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads, from a thread that runs a sync node."""
        self._stored().wait_for(self.aprune(thread_ids, strategy=strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete threads, or all their checkpoints but the newest; those with a run are skipped."""
        await self._stored().prune([str(one) for one in thread_ids], strategy)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the history of channels, from a thread that runs a sync node."""
        found: Mapping[str, DeltaChannelHistory] = self._stored().wait_for(
            self.aget_delta_channel_history(config=config, channels=channels)
        )
        return found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return for each channel its value at the nearest ancestor that has one, and the writes since, oldest first.

        A parent is older than its child, so one pass over the history finds all ancestors.
        """
        at = config["configurable"]
        writes: dict[str, list[PendingWrite]] = {name: [] for name in channels}
        seeds: dict[str, Any] = {}
        wanted, target = at.get("checkpoint_id"), True
        async for found in self._history(at) if channels else _nothing():
            if wanted and found.checkpoint["id"] != wanted:
                continue
            if not target:
                for name in writes.keys() - seeds.keys():
                    writes[name] += [one for one in reversed(found.pending_writes or ()) if one[1] == name]
                    if name in found.checkpoint["channel_values"]:
                        seeds[name] = found.checkpoint["channel_values"][name]
            if found.parent_config is None or len(seeds) == len(writes):
                break
            wanted, target = found.parent_config["configurable"]["checkpoint_id"], False
        history: dict[str, DeltaChannelHistory] = {name: {"writes": many[::-1]} for name, many in writes.items()}
        for name, seed in seeds.items():
            history[name]["seed"] = seed
        return history

    @staticmethod
    def _record(config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> Record:
        at = config["configurable"]
        about = get_checkpoint_metadata(config, metadata)
        return Record(checkpoint, about, at.get("checkpoint_id"), at.get("checkpoint_ns") or "")

    def _put(self, record: Record, new_versions: ChannelVersions) -> asyncio.Future[None] | None:
        with self.document.lock:
            self.document.put(record, list(new_versions))
            if record.namespace:
                return self._on_change(True)
            if record.metadata["source"] in self._unreported:
                self.document.superseded = False
                return None
            return self._on_step(record)

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


# LangGraph inspects this method in each run; a signature that it finds here is not worked out again
RunSaver.aput_writes.__signature__ = inspect.signature(RunSaver.aput_writes)  # type: ignore[attr-defined]


async def _nothing() -> AsyncIterator[CheckpointTuple]:
    no_checkpoints: tuple[CheckpointTuple, ...] = ()
    for found in no_checkpoints:
        yield found
