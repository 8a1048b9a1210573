"""Threads for hosted graphs: the operations of LangGraph's checkpointers, with the rights of each run's caller.

A graph names threads by any text; one that is no UUID stands for an id derived from it within the tenant.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import Row

from app.agents.langgraph.session import update_of, values_of
from app.agents.langgraph.store import read_operation
from app.agents.langgraph.wire import Changes
from app.base import json_scan
from app.base.errors import Conflict, Invalid
from app.base.offload import offload
from app.domain.caller import Caller
from app.domain.state import State
from app.engine.checkpoints.codec import pack
from app.engine.checkpoints.entry import FIRST_STEP, AmendedCheckpoint, CheckpointEntry
from app.engine.checkpoints.snapshot import read, size_of
from app.features.threads import queries
from app.features.threads.queries import HistoryRange, NewCheckpoint
from app.infra.db.engine import Database
from app.infra.db.repeating import repeated, write_once
from app.infra.db.session import Writer
from app.security.access.structs import ActingUser, Principal

MAX_PAGE = 100
MAX_THREADS = 1000
"""Bounds of one operation."""

Value = TypeVar("Value")
CheckLease = Callable[[], None]


class ReadCheckpoints(msgspec.Struct):
    """Read a page of a thread's checkpoints, newest first."""

    thread: str
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = MAX_PAGE


class WriteCheckpoint(msgspec.Struct):
    """Apply ``changes`` to the checkpoint ``at``, as a new one (``added``) or in place.

    A new one follows the thread's newest, which must be ``at``: None for a thread without any.
    """

    thread: str
    at: UUID | None = None
    added: bool = False
    run_id: str = ""
    source: str = ""
    changes: Changes = {}


class CopyThread(msgspec.Struct):
    """Copy ``thread`` to the new thread ``target``."""

    thread: str
    target: str


class SomeThreads(msgspec.Struct):
    """Prune or delete ``threads``."""

    threads: list[str]


class SomeRuns(msgspec.Struct):
    """Delete what ``runs`` have stored."""

    runs: list[str]


class ThreadOperations:
    """Does the operations on threads that a graph requests (``app.agents.langgraph.store.Operations``)."""

    def __init__(self, database: Database, acting_user: ActingUser, state_bytes: int = 0) -> None:
        """``acting_user`` maps a run's caller to its principal; ``state_bytes``: as ``StateWriter``."""
        self._database = database
        self._state_bytes = state_bytes
        self._acting_user = acting_user

    async def operate(self, caller: Caller, op: dict[str, Any], check_lease: CheckLease) -> Any:
        """Do ``op`` once and return its result, also if the database loses connections.

        Raises ``Invalid``, ``Conflict``, ``Unavailable``, ``LeaseLost``, and what auth handlers raise.
        """
        principal = self._acting_user(caller)
        match op.get("do"):
            case "read":
                return await self._read(principal, check_lease, _typed(op, ReadCheckpoints))
            case "write":
                return await self._write(principal, check_lease, await _read_write(op))
            case "copy":
                return await self._copy(principal, check_lease, _typed(op, CopyThread))
            case "prune" | "delete" as do:
                return await self._remove(principal, check_lease, _typed(op, SomeThreads), whole=do == "delete")
            case "delete_runs":
                return await self._delete_runs(principal, check_lease, _typed(op, SomeRuns))
            case other:
                raise Invalid(f"{other!r} is no operation on threads.")

    async def _read(
        self, principal: Principal, check_lease: CheckLease, which: ReadCheckpoints
    ) -> list[dict[str, Any]]:
        thread_id = _thread_id(principal, which.thread)
        owned = await principal.permit("threads", "read", thread_id=thread_id)
        span = HistoryRange(limit=min(which.limit, MAX_PAGE), before=which.before)

        async def read_rows() -> Sequence[Row[Any]]:
            async with self._database.reading(principal.tenant_id, owned) as session:
                return await queries.history(session, principal.tenant_id, thread_id, span)

        rows = await repeated(read_rows, check_lease)
        return await offload(sum(map(size_of, rows)), _values, rows)

    async def _write(self, principal: Principal, check_lease: CheckLease, write: WriteCheckpoint) -> str:
        tenant_id, thread_id = principal.tenant_id, _thread_id(principal, write.thread)
        if write.at is None:
            owned, metadata = await principal.stamp(
                "threads", "create", None, thread_id=thread_id, if_exists="do_nothing"
            )
        else:
            owned, metadata = await principal.permit("threads", "update", thread_id=thread_id), None

        async def work(session: Writer) -> str:
            if write.at is None:
                await queries.create_thread(session, tenant_id, thread_id, metadata or {})
            session.owned = owned
            thread = await queries.lock(session, tenant_id, thread_id)
            if thread is None or (write.added and thread.head != write.at):
                raise Conflict(f"Thread {write.thread} has been changed meanwhile: read it again, then write.")
            if thread.live_run is not None or thread.queued:
                raise Conflict(f"Thread {write.thread} has a live or queued run, which alone writes its checkpoints.")
            return str(await self._apply(session, (tenant_id, thread_id), thread, write))

        return await write_once(self._database, tenant_id, work, check_lease)

    async def _apply(
        self, session: Writer, thread: tuple[UUID, UUID], locked: Row[Any], write: WriteCheckpoint
    ) -> UUID:
        numbers = (locked.last_number, locked.last_value_number)
        state, step = State(*numbers), FIRST_STEP - 1
        if write.at is not None:
            row = await queries.base(session, *thread, write.at)
            if row is None:
                raise Conflict(f"Thread {write.thread} has been pruned meanwhile: read it again, then write.")
            snapshot = await offload(size_of(row), read, row, *numbers)
            state, step = snapshot.state, snapshot.step
        update = update_of(write.changes)
        state.max_bytes = self._state_bytes
        await offload(state.effort(update), state.apply if write.added else state.amend, update)
        items = [(number, pack(body)) for number, body in state.take_items()]
        if not write.added:
            assert write.at is not None
            await queries.amend(session, thread, AmendedCheckpoint.of(write.at, state), items, state)
            return write.at
        entry = CheckpointEntry.of(
            state, parent_id=write.at, source=write.source or "update", step=step + 1, following=()
        )
        run_id = _uuid(write.run_id)
        await queries.add_checkpoints(session, thread, [NewCheckpoint.of(entry, items, state)], run_id)
        return entry.checkpoint_id

    async def _copy(self, principal: Principal, check_lease: CheckLease, which: CopyThread) -> None:
        source, target = _thread_id(principal, which.thread), _thread_id(principal, which.target)
        owned = await principal.permit("threads", "read", thread_id=source)
        _, metadata = await principal.stamp("threads", "create", None, thread_id=target)

        async def work(session: Writer) -> None:
            if await queries.get(session, principal.tenant_id, target) is not None:
                raise Conflict(f"Thread {which.target} exists already: copy to a new one.")
            session.owned = owned
            stamped = msgspec.json.encode(metadata or {}).decode()
            await queries.copy(session, principal.tenant_id, source, target, stamped)

        await write_once(self._database, principal.tenant_id, work, check_lease)

    async def _remove(self, principal: Principal, check_lease: CheckLease, which: SomeThreads, *, whole: bool) -> None:
        """Delete threads, or all their checkpoints but the newest. Raises ``Conflict`` if one to delete has a run."""
        if len(which.threads) > MAX_THREADS:
            raise Invalid(f"At most {MAX_THREADS} threads at once.")
        names = {_thread_id(principal, name): name for name in which.threads}
        by_filter = await principal.permit_each("threads", "delete", "thread_id", list(names))

        async def work(session: Writer) -> None:
            idle = await queries.lock_idle(session, principal.tenant_id, by_filter)
            if not whole:
                await queries.keep_latest(session, principal.tenant_id, idle)
                return
            await queries.delete(session, principal.tenant_id, idle)
            if len(idle) < len(names) and (busy := await queries.existing(session, principal.tenant_id, by_filter)):
                raise Conflict(f"Thread {names[busy[0]]} has a live or queued run: cancel it first.")

        await write_once(self._database, principal.tenant_id, work, check_lease)

    async def _delete_runs(self, principal: Principal, check_lease: CheckLease, which: SomeRuns) -> None:
        runs = [run_id for run_id in map(_uuid, which.runs) if run_id is not None]
        owned = await principal.permit("threads", "delete")

        async def work(session: Writer) -> None:
            await queries.delete_checkpoints_of(session, principal.tenant_id, runs)

        await write_once(self._database, principal.tenant_id, work, check_lease, owned)


def _typed(op: dict[str, Any], kind: type[Value]) -> Value:
    return read_operation(op, kind, "operation on threads")


async def _read_write(op: dict[str, Any]) -> WriteCheckpoint:
    """Return the operation ``op``, whose changes are JSON texts of a graph's values."""
    write = _typed({name: given for name, given in op.items() if name != "changes"}, WriteCheckpoint)
    try:
        write.changes = msgspec.convert(op.get("changes"), Changes)
    except msgspec.ValidationError as error:
        raise Invalid(f"The changes of the operation on threads 'write' are not valid: {error}.") from error
    texts = [text for change in write.changes.values() for text in _texts(change)]
    await offload(sum(map(len, texts)), _check, texts)
    return write


def _texts(change: list[Any] | None) -> Sequence[Any]:
    return () if change is None else change[1:] if change[0] == "v" else change[2]


def _check(texts: Sequence[Any]) -> None:
    for text in texts:
        json_scan.check(text, "A value of a checkpoint")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _thread_id(principal: Principal, name: str) -> UUID:
    return _uuid(name) or uuid5(principal.tenant_id, name)


def _values(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"id": str(row.checkpoint_id), "values": values_of(read(row, 0).state)} for row in rows]
