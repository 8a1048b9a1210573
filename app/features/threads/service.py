"""What clients do with threads.

New threads, created in groups: the first request of most conversations.
"""

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
from app.features.threads.views import (
    Path,
    StateMatcher,
    extracted,
    fresh,
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


class NewThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread to create; ``metadata`` is JSON."""

    tenant_id: UUID
    thread_id: UUID
    metadata: str


async def create(connection: asyncpg.Connection, new: Sequence[NewThread]) -> list[datetime | None]:
    """Create threads in one statement: when each was created, None where its id is taken."""
    rows = await connection.fetch(
        CREATE, [n.tenant_id for n in new], [n.thread_id for n in new], [n.metadata for n in new]
    )
    made = {(row["tenant_id"], row["thread_id"]): row["created_at"] for row in rows}
    return [made.get((n.tenant_id, n.thread_id)) for n in new]


class ThreadCreator:
    """Creates threads; many at once share a round trip and a commit."""

    def __init__(self, database: Database) -> None:
        self._groups: GroupCommitter[NewThread, datetime | None] = GroupCommitter(
            "threads", database, create, key=lambda new: (new.tenant_id, new.thread_id), slots=1
        )
        self.start = self._groups.start
        self.aclose = self._groups.aclose

    async def create(self, new: NewThread) -> datetime | None:
        """When the thread was created; None when its id is taken."""
        return await self._groups.submit(new)


MAX_PAGE_SIZE = 1000
MAX_CANDIDATES = 10_000
"""Threads whose values one search may look into."""
LOOK_AT_ONCE = 200
encode = msgspec.json.Encoder().encode


class ThreadService:
    """Threads of all tenants."""

    def __init__(self, database: Database, agents: Agents, on_deleted: Callable[[UUID, UUID], None]) -> None:
        """``on_deleted`` is told of threads (tenant, thread) that were removed."""
        self._database = database
        self._on_deleted = on_deleted
        self._states = StateWriter(agents)
        self._creation = ThreadCreator(database)
        self.start = self._creation.start
        self.aclose = self._creation.aclose

    async def create(
        self, principal: Principal, body: ThreadCreate, key: IdempotencyKey | None = None
    ) -> Thread | msgspec.Raw:
        """Make a thread, once for a ``key``.

        Raises ``Conflict`` for an id that is taken, unless ``if_exists`` is ``do_nothing``.
        """
        thread_id = body.thread_id or new_id()
        about = {"thread_id": thread_id, "if_exists": body.if_exists, "ttl": body.ttl}
        owned, metadata = await principal.stamp("threads", "create", body.metadata, **about)
        body = msgspec.structs.replace(body, thread_id=thread_id, metadata=metadata)
        if key is None and not body.supersteps and body.ttl is None:
            return await self._create(principal.tenant_id, body, owned)
        past = await self._states.past(metadata or {}, body.supersteps) if body.supersteps else []
        async with self._database.writing(principal.tenant_id) as session:

            async def make() -> Thread:
                return await self._create_in(session, (principal.tenant_id, thread_id), body, owned, past)

            return await once(session, principal.tenant_id, key, make)

    async def _create(self, tenant_id: UUID, body: ThreadCreate, owned: MetadataFilter) -> Thread:
        thread_id = body.thread_id or new_id()
        metadata = body.metadata or {}
        new = NewThread(tenant_id=tenant_id, thread_id=thread_id, metadata=encode(metadata).decode())
        created = await self._creation.create(new)
        if created is not None:
            return fresh(thread_id, metadata, created)
        if body.if_exists == "do_nothing":
            return await self._get(tenant_id, thread_id, owned)
        raise Conflict(f"Thread with ID {thread_id} already exists")

    async def _create_in(
        self,
        session: Writer,
        place: tuple[UUID, UUID],
        body: ThreadCreate,
        owned: MetadataFilter,
        past: Sequence[NewCheckpoint],
    ) -> Thread:
        """Create the thread at ``place`` (tenant, thread) in a transaction, with its lifetime and its past."""
        tenant_id, thread_id = place
        new = NewThread(tenant_id=tenant_id, thread_id=thread_id, metadata=encode(body.metadata or {}).decode())
        (created,) = await create(await session.driver(), [new])
        if created is None:
            if body.if_exists != "do_nothing":
                raise Conflict(f"Thread with ID {thread_id} already exists")
            session.owned = owned
        else:
            if (ttl := lifetime(body.ttl)) is not None:
                await queries.set_ttl(session, tenant_id, thread_id, ttl)
            if past:
                await queries.add_checkpoints(session, place, past)
        row = await queries.get(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return thread_view(row)

    async def get(self, principal: Principal, thread_id: UUID, *, ttl: bool = False) -> Thread:
        """A thread with its values, and with its ``ttl`` if asked for. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        return await self._get(principal.tenant_id, thread_id, owned, ttl=ttl)

    async def _get(self, tenant_id: UUID, thread_id: UUID, owned: MetadataFilter, *, ttl: bool = False) -> Thread:
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.get(session, tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return thread_view(row, ttl=ttl)

    async def patch(self, principal: Principal, thread_id: UUID, body: ThreadPatch) -> Thread:
        """Merge metadata, set the lifetime. Raises ``NotFound``."""
        ttl = lifetime(body.ttl)
        owned, metadata = await principal.stamp("threads", "update", body.metadata, thread_id=thread_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            if ttl is not None:
                await queries.set_ttl(session, principal.tenant_id, thread_id, ttl)
            if not await queries.merge_metadata(session, principal.tenant_id, thread_id, metadata or {}):
                raise _unknown(thread_id)
            session.owned = None  # it was in reach
            row = await queries.get(session, principal.tenant_id, thread_id)
        assert row is not None
        return thread_view(row)

    async def delete(self, principal: Principal, thread_id: UUID) -> None:
        """Remove a thread and everything on it. Raises ``Conflict`` while a run lives there, ``NotFound``."""
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
        """Write the state as a node of the thread's agent would, once for a ``key``.

        Raises as ``StateWriter.written`` does.
        """
        owned = await principal.permit("threads", "update", thread_id=thread_id)
        async with self._database.writing(principal.tenant_id, owned) as session:
            make = functools.partial(self._states.written, session, principal.tenant_id, thread_id, body)
            return await once(session, principal.tenant_id, key, make)

    async def copy(self, principal: Principal, thread_id: UUID, key: IdempotencyKey | None) -> Thread | msgspec.Raw:
        """A new thread with the values and the history of another. Raises ``NotFound``."""
        copy_id = new_id()
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        _, metadata = await principal.stamp("threads", "create", None, thread_id=copy_id)

        async def make() -> Thread:
            more = encode(metadata or {}).decode()
            if not await queries.copy(session, principal.tenant_id, thread_id, copy_id, more):
                raise _unknown(thread_id)
            session.owned = None  # it was in reach
            row = await queries.get(session, principal.tenant_id, copy_id)
            assert row is not None
            return thread_view(row)

        async with self._database.writing(principal.tenant_id, owned) as session:
            return await once(session, principal.tenant_id, key, make)

    async def prune(self, principal: Principal, which: Prune) -> Pruned:
        """Remove threads, or all but their newest checkpoints; those that are busy stay as they are."""
        if len(which.thread_ids) > MAX_PAGE_SIZE:
            raise Invalid(f"At most {MAX_PAGE_SIZE} threads at once.", (("/thread_ids", "too many"),))
        reach: dict[MetadataFilter, list[UUID]] = {} if principal.rules is not None else {None: which.thread_ids}
        for thread_id in which.thread_ids if principal.rules is not None else ():
            reach.setdefault(await principal.permit("threads", "delete", thread_id=thread_id), []).append(thread_id)
        free: list[UUID] = []
        async with self._database.writing(principal.tenant_id) as session:
            for owned, thread_ids in reach.items():
                session.owned = owned
                free += await queries.lock_idle(session, principal.tenant_id, thread_ids)
            if which.strategy == "delete":
                await queries.delete(session, principal.tenant_id, free)
                removed = free
            else:
                await queries.keep_latest(session, principal.tenant_id, free)
                removed = []
        for thread_id in removed:
            self._on_deleted(principal.tenant_id, thread_id)
        return Pruned(len(free))

    async def storage(self, principal: Principal, thread_id: UUID) -> dict[str, Any]:
        """What a thread takes on disk. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            if await queries.latest_state(session, principal.tenant_id, thread_id) is None:
                raise _unknown(thread_id)
            heads, items = await queries.sizes(session, principal.tenant_id, thread_id)
        return storage_of(thread_id, list(heads), list(items))

    async def search(self, principal: Principal, wanted: ThreadSearch) -> tuple[list[Thread], int]:
        """A page of threads, shorter where their values are large, and how many match on all pages.

        Raises ``Invalid``.
        """
        if not 1 <= wanted.limit <= MAX_PAGE_SIZE or not 0 <= wanted.offset < 2**31:
            raise Invalid(
                f"limit must be from 1 to {MAX_PAGE_SIZE} and offset at least 0.", (("/limit", "out of range"),)
            )
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
        fitting, size = _within(rows)
        return await offload(size, _found, fitting, paths), total

    async def count(self, principal: Principal, wanted: ThreadSearch) -> int:
        """How many threads match. Raises ``Invalid``."""
        owned, wanted = await _authorised_search(principal, wanted)
        async with self._database.reading(principal.tenant_id, owned) as session:
            if wanted.values:
                return len(await self._matching(session, principal.tenant_id, wanted))
            return await queries.count(session, principal.tenant_id, wanted)

    async def _matching(self, session: Reader, tenant_id: UUID, wanted: ThreadSearch) -> list[UUID]:
        """The threads whose values contain ``wanted.values``: states are no columns, so they are looked into here."""
        ids = await queries.candidates(session, tenant_id, wanted, MAX_CANDIDATES + 1)
        if len(ids) > MAX_CANDIDATES:
            raise Invalid(
                f"More than {MAX_CANDIDATES} threads would have to be looked into: narrow the search by metadata, "
                "status or ids.",
                (("/values", "too many threads"),),
            )
        assert wanted.values is not None
        match = StateMatcher(wanted.values)
        found: list[UUID] = []
        at = 0
        while at < len(ids):
            part = ids[at : at + LOOK_AT_ONCE]
            rows = await queries.states_within(session, tenant_id, part)
            matching = await asyncio.to_thread(lambda rows: list(map(match.look_into, rows)), rows)
            found += [row.thread_id for row, matches in zip(rows, matching, strict=True) if matches]
            at += rows[-1].place if rows else len(part)
        return found

    async def state(self, principal: Principal, thread_id: UUID) -> ThreadState:
        """A thread's latest state. Raises ``NotFound``."""
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        async with self._database.reading(principal.tenant_id, owned) as session:
            row = await queries.latest_state(session, principal.tenant_id, thread_id)
        if row is None:
            raise _unknown(thread_id)
        return await offload(size_of(row), state_of, thread_id, row)

    async def state_at(self, principal: Principal, thread_id: UUID, checkpoint: Any) -> ThreadState:
        """A thread's state at a checkpoint, given by its id or its reference. Raises ``NotFound``, ``Invalid``."""
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
        return await offload(size_of(row), state_of, thread_id, row)

    async def history(
        self, principal: Principal, thread_id: UUID, wanted: HistoryQuery
    ) -> tuple[list[ThreadState], UUID | None]:
        """States of a thread, newest first, and the checkpoint before which the next page begins.

        There is one only where this page was cut because its states are large. Raises ``NotFound``.
        """
        if not 1 <= wanted.limit <= MAX_PAGE_SIZE:
            raise Invalid(f"limit must be from 1 to {MAX_PAGE_SIZE}.", (("/limit", "out of range"),))
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
        rows, size = _within(rows)
        states = await offload(size, _states, thread_id, rows)
        if len(rows) < matched:
            return states, rows[-1].checkpoint_id
        begins = last.checkpoint_id is not None and parent_of(thread_id, last) == origin
        if span.at == origin or (span.at is None and span.metadata is None and begins and len(rows) < wanted.limit):
            states.append(origin_of(thread_id, last.created_at))
        return states, None


ROW_BYTES = 1024
"""What a row costs beside its values."""


def _within(rows: Sequence[Row[Any]]) -> tuple[Sequence[Row[Any]], int]:
    """The first of ``rows``, one at least, whose states together are no larger than an answer may be; their bytes."""
    total = 0
    for count, row in enumerate(rows):
        size = size_of(row) + ROW_BYTES
        if count and total + size > MAX_ANSWER_BYTES:
            return rows[:count], total
        total += size
    return rows, total


def _states(thread_id: UUID, rows: Sequence[Row[Any]]) -> list[ThreadState]:
    return [state_of(thread_id, row) for row in rows]


def _found(rows: Sequence[Row[Any]], paths: dict[str, Path]) -> list[Thread]:
    found = [thread_view(row) for row in rows]
    if paths:
        for thread in found:
            thread.extracted = extracted(thread, paths)
    return found


def _unknown(thread_id: UUID) -> NotFound:
    return NotFound(f"Thread with ID {thread_id} not found")


async def _authorised_search(principal: Principal, wanted: ThreadSearch) -> tuple[MetadataFilter, ThreadSearch]:
    """What ``principal`` reaches of the threads that are sought, and which those are."""
    if principal.rules is None:
        return None, wanted
    about = {name: getattr(wanted, name) for name in ("values", "status", "limit", "offset", "ids")}
    owned, metadata = await principal.stamp("threads", "search", wanted.metadata, **about)
    return owned, msgspec.structs.replace(wanted, metadata=metadata)
