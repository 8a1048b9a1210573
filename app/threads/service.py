"""What clients do with threads."""

import functools
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.errors import Conflict, Invalid, NotFound
from app.base.ids import new_id, task_id
from app.checkpoints.snapshot import Snapshot, read
from app.db.engine import Database
from app.db.session import Writer
from app.idempotency.once import once
from app.idempotency.structs import Key
from app.threads import queries
from app.threads.creation import NewThread, ThreadCreation, create
from app.threads.structs import (
    CheckpointRef,
    HistoryQuery,
    Thread,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    ThreadState,
)

MOST = 1000
NULL = msgspec.Raw(b"null")
EMPTY = msgspec.Raw(b"{}")
encode = msgspec.json.Encoder().encode


class ThreadService:
    """Threads of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._creation = ThreadCreation(database)
        self.start = self._creation.start
        self.aclose = self._creation.aclose

    async def create(self, tenant_id: UUID, body: ThreadCreate, key: Key | None = None) -> Thread | msgspec.Raw:
        """Make a thread, once for a ``key``.

        Raises ``Conflict`` for an id that is taken, unless ``if_exists`` is ``do_nothing``.
        """
        if key is None:
            return await self._create(tenant_id, body)
        async with self._database.writing(tenant_id) as session:
            return await once(session, tenant_id, key, functools.partial(self._create, tenant_id, body, session))

    async def _create(self, tenant_id: UUID, body: ThreadCreate, session: Writer | None = None) -> Thread:
        body.check()
        thread_id = body.thread_id or new_id()
        metadata = body.metadata or {}
        new = NewThread(tenant_id=tenant_id, thread_id=thread_id, metadata=encode(metadata).decode())
        if session is None:
            created = await self._creation.create(new)
        else:
            (created,) = await create(await session.driver(), [new])
        if created is not None:
            return _fresh(thread_id, metadata, created)
        if body.if_exists == "do_nothing":
            return await self.get(tenant_id, thread_id)
        raise Conflict(f"Thread with ID {thread_id} already exists")

    async def get(self, tenant_id: UUID, thread_id: UUID) -> Thread:
        """A thread with its values. Raises ``NotFound``."""
        async with self._database.reading(tenant_id) as session:
            row = await queries.get(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return _shown(row)

    async def patch(self, tenant_id: UUID, thread_id: UUID, body: ThreadPatch) -> Thread:
        """Merge metadata. Raises ``NotFound``."""
        async with self._database.writing(tenant_id) as session:
            if not await queries.merge_metadata(session, tenant_id, thread_id, body.metadata or {}):
                raise _unknown(thread_id)
            row = await queries.get(session, tenant_id, thread_id)
        assert row is not None
        return _shown(row)

    async def delete(self, tenant_id: UUID, thread_id: UUID) -> None:
        """Remove a thread and everything on it. Raises ``Conflict`` while a run lives there, ``NotFound``."""
        async with self._database.writing(tenant_id) as session:
            row = await queries.lock(session, tenant_id, thread_id)
            if row is None:
                raise _unknown(thread_id)
            if row.live_run is not None:
                raise Conflict(f"Thread {thread_id} has a live run: cancel it first.")
            await queries.delete(session, tenant_id, thread_id)

    async def search(self, tenant_id: UUID, wanted: ThreadSearch) -> tuple[list[Thread], int]:
        """A page of threads, and how many match on all pages."""
        wanted.check()
        if not 1 <= wanted.limit <= MOST or not 0 <= wanted.offset < 2**31:
            raise Invalid(f"limit must be from 1 to {MOST} and offset at least 0.", (("/limit", "out of range"),))
        async with self._database.reading(tenant_id) as session:
            rows = await queries.search(session, tenant_id, wanted)
            total = await queries.count(session, tenant_id, wanted)
        return [_shown(row) for row in rows], total

    async def count(self, tenant_id: UUID, wanted: ThreadSearch) -> int:
        """How many threads match."""
        wanted.check()
        async with self._database.reading(tenant_id) as session:
            return await queries.count(session, tenant_id, wanted)

    async def state(self, tenant_id: UUID, thread_id: UUID) -> ThreadState:
        """A thread's latest state. Raises ``NotFound``."""
        async with self._database.reading(tenant_id) as session:
            row = await queries.latest_state(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return _state(thread_id, row)

    async def state_at(self, tenant_id: UUID, thread_id: UUID, checkpoint: Any) -> ThreadState:
        """A thread's state at a checkpoint, given by its id or its reference. Raises ``NotFound``, ``Invalid``."""
        checkpoint_id = checkpoint_id_of(checkpoint)
        async with self._database.reading(tenant_id) as session:
            row = await queries.state_at(session, tenant_id, thread_id, checkpoint_id)
        if row is None:
            raise _unknown(thread_id)
        if row.checkpoint_id is None:
            raise NotFound(f"Checkpoint {checkpoint_id} not found in thread {thread_id}")
        return _state(thread_id, row)

    async def history(self, tenant_id: UUID, thread_id: UUID, wanted: HistoryQuery) -> list[ThreadState]:
        """States of a thread, newest first. Raises ``NotFound``."""
        if not 1 <= wanted.limit <= MOST:
            raise Invalid(f"limit must be from 1 to {MOST}.", (("/limit", "out of range"),))
        async with self._database.reading(tenant_id) as session:
            span = queries.Span(
                limit=wanted.limit,
                before=None if wanted.before is None else checkpoint_id_of(wanted.before),
                at=checkpoint_id_of(wanted.checkpoint) if (wanted.checkpoint or {}).get("checkpoint_id") else None,
                metadata=encode(wanted.metadata).decode() if wanted.metadata else None,
            )
            rows = await queries.history(session, tenant_id, thread_id, span)
            if not rows and await queries.latest_state(session, tenant_id, thread_id) is None:
                raise _unknown(thread_id)
        return [_state(thread_id, row) for row in rows]


def checkpoint_id_of(value: Any) -> UUID:
    """The checkpoint id in any of the forms that clients send. Raises ``Invalid``."""
    if isinstance(value, dict):
        inner = value.get("configurable") or value
        value = inner.get("checkpoint_id") if isinstance(inner, dict) else None
    try:
        return UUID(str(value))
    except ValueError as error:
        raise Invalid("Invalid checkpoint ID: must be a UUID") from error


def _unknown(thread_id: UUID) -> NotFound:
    return NotFound(f"Thread with ID {thread_id} not found")


def _fresh(thread_id: UUID, metadata: dict[str, Any], created: datetime) -> Thread:
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


def _shown(row: Row[Any]) -> Thread:
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
    )


def _state(thread_id: UUID, row: Row[Any]) -> ThreadState:
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
    parent = snapshot.parent_id
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


def _task(snapshot: Snapshot, node: str, row: Row[Any], waiting: list[Any]) -> dict[str, Any]:
    error = row.error if row.latest else None
    return {
        "id": task_id(snapshot.checkpoint_id, node),
        "name": node,
        "path": ["__pregel_pull", node],
        "error": f"{error['error']}({error['message']!r})" if error else None,
        "interrupts": waiting,
        "checkpoint": None,
        "state": None,
        "result": None,
    }
