"""Use cases of threads: create, read, search, update state, copy, prune, delete."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import Row

from app.agents.port import Agents
from app.base.errors import Conflict, Invalid, NotFound
from app.base.ids import new_id, origin_id
from app.base.offload import MAX_ANSWER_BYTES, offload
from app.base.page_bounds import MAX_PAGE_SIZE, check_page
from app.engine.checkpoints.snapshot import size_of
from app.features.threads import queries
from app.features.threads.queries import CREATE, NewCheckpoint
from app.features.threads.states import StateWriter, checkpoint_id_of
from app.features.threads.structs import (
    HistoryQuery,
    Prune,
    Pruned,
    StateUpdate,
    StateUpdated,
    Thread,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    ThreadState,
    lifetime,
)
from app.features.threads.subgraphs import SubgraphStates, place_of
from app.features.threads.views import (
    Path,
    StateMatcher,
    extracted,
    is_partly_done,
    new_thread_view,
    origin_of,
    parent_of,
    read_paths,
    state_of,
    storage_of,
    thread_view,
)
from app.infra.db.engine import Database
from app.infra.db.group_commit import GroupCommitter
from app.infra.db.session import Reader, Writer
from app.security.access.structs import MetadataFilter, Principal
from app.security.idempotency.queries import once
from app.security.idempotency.structs import IdempotencyKey

MAX_CANDIDATES = 10_000
"""Threads whose values one search may compare."""

MATCH_BATCH_SIZE = 200

ROW_BYTES = 1024
"""Bytes of a row in addition to its values."""


class NewThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread to create; ``metadata`` is JSON."""

    tenant_id: UUID
    thread_id: UUID
    metadata: str


async def create(connection: asyncpg.Connection, new: Sequence[NewThread]) -> list[datetime | None]:
    """Create threads in one statement; return the creation time of each, None if its id is taken."""
    rows = await connection.fetch(
        CREATE, [n.tenant_id for n in new], [n.thread_id for n in new], [n.metadata for n in new]
    )
    created = {(row["tenant_id"], row["thread_id"]): row["created_at"] for row in rows}
    return [created.get((n.tenant_id, n.thread_id)) for n in new]


encode = msgspec.json.Encoder().encode


class ThreadService:
    """Threads of all tenants."""

    def __init__(
        self, database: Database, agents: Agents, on_deleted: Callable[[UUID, UUID], None], state_bytes: int = 0
    ) -> None:
        """``on_deleted``: called with (tenant, thread) for each deleted thread; ``state_bytes``: as ``StateWriter``."""
        self._database = database
        self._on_deleted = on_deleted
        self._states = StateWriter(agents, state_bytes)
        self.subgraphs = SubgraphStates(database, agents)
        self._creations: GroupCommitter[NewThread, datetime | None] = GroupCommitter(
            "threads",
            database,
            create,
            key=lambda new: (new.tenant_id, new.thread_id),
            tenant=lambda new: new.tenant_id,
            slots=1,
        )

    def start(self) -> None:
        """Start the group commit of new threads: concurrent requests share a round trip and a commit."""
        self._creations.start()

    async def aclose(self) -> None:
        """Create what is queued, then stop."""
        await self._creations.aclose()

    async def create(
        self, principal: Principal, body: ThreadCreate, key: IdempotencyKey | None = None
    ) -> Thread | msgspec.Raw:
        """Create a thread, once per ``key``. Raises ``Conflict`` if the id is taken and ``if_exists`` is ``raise``."""
        thread_id = body.thread_id or new_id()
        about = {"thread_id": thread_id, "if_exists": body.if_exists, "ttl": body.ttl}
        owned, metadata = await principal.stamp("threads", "create", body.metadata, **about)
        body = msgspec.structs.replace(body, thread_id=thread_id, metadata=metadata)
        if key is None and not body.supersteps and body.ttl is None:
            return await self._create(principal.tenant_id, body, owned)
        history = await self._states.history(principal, metadata or {}, body.supersteps) if body.supersteps else []
        async with self._database.writing(principal.tenant_id) as session:

            async def make() -> Thread:
                return await self._create_in(session, (principal.tenant_id, thread_id), body, owned, history)

            return await once(session, principal.tenant_id, key, make)

    async def _create(self, tenant_id: UUID, body: ThreadCreate, owned: MetadataFilter) -> Thread:
        thread_id = body.thread_id or new_id()
        metadata = body.metadata or {}
        new = NewThread(tenant_id=tenant_id, thread_id=thread_id, metadata=encode(metadata).decode())
        created = await self._creations.submit(new)
        if created is not None:
            return new_thread_view(thread_id, metadata, created)
        if body.if_exists == "do_nothing":
            return await self._get(tenant_id, thread_id, owned)
        raise Conflict(f"Thread with ID {thread_id} already exists")

    async def _create_in(
        self,
        session: Writer,
        thread: tuple[UUID, UUID],
        body: ThreadCreate,
        owned: MetadataFilter,
        history: Sequence[NewCheckpoint],
    ) -> Thread:
        """Create a thread (tenant, thread) with its TTL and history, in the transaction of ``session``."""
        tenant_id, thread_id = thread
        new = NewThread(tenant_id=tenant_id, thread_id=thread_id, metadata=encode(body.metadata or {}).decode())
        (created,) = await create(await session.driver(), [new])
        if created is None:
            if body.if_exists != "do_nothing":
                raise Conflict(f"Thread with ID {thread_id} already exists")
            session.owned = owned
        else:
            if (ttl := lifetime(body.ttl)) is not None:
                await queries.set_ttl(session, tenant_id, thread_id, ttl)
            if history:
                await queries.add_checkpoints(session, thread, history)
        row = await queries.get(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return await _view(row)

    async def get(self, principal: Principal, thread_id: UUID, *, ttl: bool = False) -> Thread:
        """Return a thread with its values and, on request, its ``ttl``. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        return await self._get(principal.tenant_id, thread_id, owned, ttl=ttl)

    async def _get(self, tenant_id: UUID, thread_id: UUID, owned: MetadataFilter, *, ttl: bool = False) -> Thread:
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.get(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return await _view(row, ttl=ttl)

    async def patch(self, principal: Principal, thread_id: UUID, body: ThreadPatch) -> Thread:
        """Merge metadata and set the TTL. Raises ``NotFound``."""
        ttl = lifetime(body.ttl)
        owned, metadata = await principal.stamp("threads", "update", body.metadata, thread_id=thread_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            if ttl is not None:
                await queries.set_ttl(session, principal.tenant_id, thread_id, ttl)
            if not await queries.merge_metadata(session, principal.tenant_id, thread_id, metadata or {}):
                raise _unknown(thread_id)
            session.owned = None  # already authorised; the new metadata may no longer match
            row = await queries.get(session, principal.tenant_id, thread_id)
        assert row is not None
        return await _view(row)

    async def delete(self, principal: Principal, thread_id: UUID) -> None:
        """Delete a thread and everything on it. Raises ``Conflict`` if it has a live run, ``NotFound``."""
        owned = await principal.permit("threads", "delete", thread_id=thread_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            row = await queries.lock(session, principal.tenant_id, thread_id)
            if row is None:
                raise _unknown(thread_id)
            if row.live_run is not None:
                raise Conflict(f"Thread {thread_id} has a live run: cancel it first.")
            await queries.delete(session, principal.tenant_id, [thread_id])
        self._on_deleted(principal.tenant_id, thread_id)

    async def update_state(
        self, principal: Principal, thread_id: UUID, body: StateUpdate, key: IdempotencyKey | None = None
    ) -> StateUpdated | msgspec.Raw:
        """Write the state as a node of the thread's agent, once per ``key``. Raises as ``StateWriter.apply``."""
        owned = await principal.permit("threads", "update", thread_id=thread_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            make = functools.partial(self._states.apply, session, principal, thread_id, body)
            return await once(session, principal.tenant_id, key, make)

    async def copy(self, principal: Principal, thread_id: UUID, key: IdempotencyKey | None) -> Thread | msgspec.Raw:
        """Copy a thread with its values and history. Raises ``NotFound``."""
        copy_id = new_id()
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        _, metadata = await principal.stamp("threads", "create", None, thread_id=copy_id)

        async def make() -> Thread:
            stamped = encode(metadata or {}).decode()
            if not await queries.copy(session, principal.tenant_id, thread_id, copy_id, stamped):
                raise _unknown(thread_id)
            session.owned = None  # already authorised
            row = await queries.get(session, principal.tenant_id, copy_id)
            assert row is not None
            return await _view(row)

        async with self._database.writing(principal.tenant_id, owned) as session:
            return await once(session, principal.tenant_id, key, make)

    async def prune(self, principal: Principal, which: Prune) -> Pruned:
        """Delete threads, or all their checkpoints but the newest; threads with live or pending runs are skipped."""
        if len(which.thread_ids) > MAX_PAGE_SIZE:
            raise Invalid(f"At most {MAX_PAGE_SIZE} threads at once.", (("/thread_ids", "too many"),))
        by_filter = await principal.permit_each("threads", "delete", "thread_id", which.thread_ids)
        async with self._database.writing(principal.tenant_id) as session:
            idle = await queries.lock_idle(session, principal.tenant_id, by_filter)
            if which.strategy == "delete":
                await queries.delete(session, principal.tenant_id, idle)
                deleted = idle
            else:
                await queries.keep_latest(session, principal.tenant_id, idle)
                deleted = []
        for thread_id in deleted:
            self._on_deleted(principal.tenant_id, thread_id)
        return Pruned(len(idle))

    async def storage(self, principal: Principal, thread_id: UUID) -> dict[str, Any]:
        """Return the stored bytes of a thread. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            if await queries.latest_state(session, principal.tenant_id, thread_id) is None:
                raise _unknown(thread_id)
            heads, items = await queries.sizes(session, principal.tenant_id, thread_id)
        return storage_of(thread_id, list(heads), list(items))

    async def search(self, principal: Principal, wanted: ThreadSearch) -> tuple[list[Thread], int]:
        """Return a page of threads, cut if their values are large, and the total count. Raises ``Invalid``."""
        check_page(wanted.limit, wanted.offset)
        paths = read_paths(wanted.extract or {})
        owned, wanted = await _authorised_search(principal, wanted)
        async with self._database.reading(principal.tenant_id, owned) as session:
            if wanted.values:
                matching = await self._matching(session, principal.tenant_id, wanted)
                page = matching[wanted.offset : wanted.offset + wanted.limit]
                rows, total = await queries.states_within(session, principal.tenant_id, page), len(matching)
            else:
                rows = await queries.search(session, principal.tenant_id, wanted)
                total = await queries.count(session, principal.tenant_id, wanted)
        fitting, size = _fitting(rows)
        return await offload(size, _thread_views, fitting, paths), total

    async def count(self, principal: Principal, wanted: ThreadSearch) -> int:
        """Count matching threads. Raises ``Invalid``."""
        owned, wanted = await _authorised_search(principal, wanted)
        async with self._database.reading(principal.tenant_id, owned) as session:
            if wanted.values:
                return len(await self._matching(session, principal.tenant_id, wanted))
            return await queries.count(session, principal.tenant_id, wanted)

    async def _matching(self, session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> list[UUID]:
        """Return the threads whose values contain ``wanted.values``; states are compressed, so compare them here."""
        ids = await queries.candidates(session, tenant_id, wanted, MAX_CANDIDATES + 1)
        if len(ids) > MAX_CANDIDATES:
            raise Invalid(
                f"The values of more than {MAX_CANDIDATES} threads would be compared: narrow the search by metadata, "
                "status or ids.",
                (("/values", "too many threads"),),
            )
        assert wanted.values is not None
        match = StateMatcher(wanted.values)
        found: list[UUID] = []
        at = 0
        while at < len(ids):
            batch = ids[at : at + MATCH_BATCH_SIZE]
            rows = await queries.states_within(session, tenant_id, batch)
            matching = await asyncio.to_thread(lambda rows: list(map(match.matches, rows)), rows)
            found += [row.thread_id for row, matches in zip(rows, matching, strict=True) if matches]
            at += rows[-1].place if rows else len(batch)
        return found

    async def state(self, principal: Principal, thread_id: UUID, *, subgraphs: bool = False) -> ThreadState:
        """Return a thread's latest state; ``subgraphs``: with those of its tasks' subgraphs. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.latest_state(session, principal.tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        found = await offload(size_of(row), state_of, thread_id, row)
        if is_partly_done(row) or (subgraphs and row.checkpoint_id is not None):
            await self.subgraphs.add_tasks(principal, found, row, recorded=False, subgraphs=subgraphs)
        return found

    async def state_at(
        self, principal: Principal, thread_id: UUID, checkpoint: Any, *, subgraphs: bool = False
    ) -> ThreadState:
        """Return the state at a checkpoint, given by id or reference, as ``state`` does.

        Raises ``NotFound``, ``Invalid``.
        """
        checkpoint_id = checkpoint_id_of(checkpoint)
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        if checkpoint_id == origin_id(thread_id):
            async with self._database.reading(principal.tenant_id, owned) as session:
                row = await queries.latest_state(session, principal.tenant_id, thread_id)
            if row is None:
                raise _unknown(thread_id)
            return origin_of(thread_id, row.created_at)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.state_at(session, principal.tenant_id, thread_id, checkpoint_id)
        if row is None:
            raise _unknown(thread_id)
        if row.checkpoint_id is None:
            raise NotFound(f"Checkpoint {checkpoint_id} not found in thread {thread_id}")
        found = await offload(size_of(row), state_of, thread_id, row)
        if subgraphs or is_partly_done(row):
            await self.subgraphs.add_tasks(principal, found, row, recorded=True, subgraphs=subgraphs)
        return found

    async def history(
        self, principal: Principal, thread_id: UUID, wanted: HistoryQuery
    ) -> tuple[list[ThreadState], UUID | None]:
        """Return states of a thread, newest first, and the next ``before`` if the page was cut for its size.

        Raises ``NotFound``, ``Invalid``.
        """
        check_page(wanted.limit)
        if (place := place_of(wanted.checkpoint)) is not None:
            return await self.subgraphs.history(principal, thread_id, place, wanted), None
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            span = queries.HistoryRange(
                limit=wanted.limit,
                before=None if wanted.before is None else checkpoint_id_of(wanted.before),
                at=checkpoint_id_of(wanted.checkpoint) if (wanted.checkpoint or {}).get("checkpoint_id") else None,
                metadata=encode(wanted.metadata).decode() if wanted.metadata else None,
            )
            origin = origin_id(thread_id)
            rows = [] if span.before == origin else await queries.history(session, principal.tenant_id, thread_id, span)
            last = rows[-1] if rows else await queries.latest_state(session, principal.tenant_id, thread_id)
            if last is None:
                raise _unknown(thread_id)
            if not rows and span.before is not None:
                last = await queries.state_at(session, principal.tenant_id, thread_id, span.before) or last
        matched = rows[0].matched if rows else 0
        rows, size = _fitting(rows)
        states = await offload(size, _states, thread_id, rows)
        if rows and is_partly_done(rows[0]):
            await self.subgraphs.add_tasks(principal, states[0], rows[0], recorded=True, subgraphs=False)
        if len(rows) < matched:
            return states, rows[-1].checkpoint_id
        at_start = last.checkpoint_id is not None and parent_of(thread_id, last) == origin
        if span.at == origin or (span.at is None and span.metadata is None and at_start and len(rows) < wanted.limit):
            states.append(origin_of(thread_id, last.created_at))
        return states, None


def _fitting(rows: Sequence[Row[Any]]) -> tuple[Sequence[Row[Any]], int]:
    """Return the first rows, at least one, that fit ``MAX_ANSWER_BYTES``, and their bytes."""
    total = 0
    for count, row in enumerate(rows):
        size = size_of(row) + ROW_BYTES
        if count and total + size > MAX_ANSWER_BYTES:
            return rows[:count], total
        total += size
    return rows, total


async def _view(row: Row[Any], *, ttl: bool = False) -> Thread:
    return await offload(size_of(row), thread_view, row, ttl=ttl)


def _states(thread_id: UUID, rows: Sequence[Row[Any]]) -> list[ThreadState]:
    return [state_of(thread_id, row) for row in rows]


def _thread_views(rows: Sequence[Row[Any]], paths: dict[str, Path]) -> list[Thread]:
    views = [thread_view(row) for row in rows]
    if paths:
        for view in views:
            view.extracted = extracted(view, paths)
    return views


def _unknown(thread_id: UUID) -> NotFound:
    return NotFound(f"Thread with ID {thread_id} not found")


async def _authorised_search(principal: Principal, wanted: ThreadSearch) -> tuple[MetadataFilter, ThreadSearch]:
    """Authorise a search; return the principal's metadata filter and the search with stamped metadata."""
    if principal.rules is None:
        return None, wanted
    about = {name: getattr(wanted, name) for name in ("values", "status", "limit", "offset", "ids")}
    owned, metadata = await principal.stamp("threads", "search", wanted.metadata, **about)
    return owned, msgspec.structs.replace(wanted, metadata=metadata)
