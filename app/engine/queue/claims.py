"""Run queue: accept runs, claim them once their thread is free, release them (docs/decisions/0001).

Also admission: what a tenant's run may use is reserved before it is accepted.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import AgentServiceError, Conflict, NotFound
from app.domain.lifecycle import Reason
from app.engine.entries import AcceptEntry, ClaimedRun, created
from app.engine.queue.cancels.canceller import supersede
from app.engine.queue.sql import (
    ACCEPT,
    ACCEPT_ANSWERS,
    ACCEPT_OWNED,
    ACQUIT,
    CLAIM,
    CLAIM_NEXT,
    CLAIM_SUSPECT,
    EXTEND,
    HAND_OVER,
    HAS_SUSPECTS,
    OWN_THREAD,
    RELEASE_EXPIRED,
    RESERVE_SUSPECT,
    VOUCH,
)
from app.engine.streams.frames import with_member
from app.engine.structs import RunRequest
from app.infra.db.engine import ROLLED_BACK_ERRORS, Database, unavailable
from app.infra.db.group_commit import Execute, GroupCommitter
from app.infra.db.statement_tracing import query
from app.infra.telemetry.tracing import NO_TRACER, Tracer
from app.security.idempotency import queries as keys
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse
from app.security.limits.budgets import Budgets, RunAccount
from app.security.limits.storage_quota import StorageQuota
from app.security.limits.structs import BudgetReservation, TenantLimits

TAKE_OVER = {"interrupt": "supersede", "rollback": "rollback"}
"""Strategies that cancel the thread's runs → the cancel action."""

MAX_ATTEMPTS = 5
"""Claims after which a run whose process died each time is poisoned. Hand-overs do not count."""

MAX_CRASHES = 25
"""Process deaths after which a run is poisoned even if it committed steps between them."""

LEFT_TO_OTHERS = 5.0
"""Seconds for which a server that died with a run leaves it to others, and idle processes come before busy ones."""

CLAIM_SECONDS = 10.0
"""Timeout of a claim, which waits for no lock: after it the connection is taken for dead."""

ACCEPTING = query("accept runs")

_decode = msgspec.json.decode
encode = msgspec.json.Encoder().encode

_ACCEPTED = (
    "agent", "metadata", "epoch", "attempt", "head", "last_number", "last_value_number", "assistant_config",
    "assistant_context", "ordinal", "created_at",
)  # fmt: skip
"""Fields of a run that the accept statement returns; the others are those of its entry."""


class RunQueue:
    """Accepts runs in groups, and claims due runs for the owner token of this process."""

    def __init__(self, database: Database, owner: UUID, lease_seconds: float, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._database = database
        self.owner = owner
        self.lease_seconds = lease_seconds
        self._groups = self._committer("accept", self._accept, slots=2)
        self._takeovers = self._committer("takeover", self._take_over, slots=1)

    def _committer(
        self, name: str, execute: Execute[AcceptEntry, ClaimedRun | Exception], slots: int
    ) -> GroupCommitter[AcceptEntry, ClaimedRun | Exception]:
        return GroupCommitter(
            name,
            self._database,
            execute,
            key=lambda entry: (entry.tenant_id, entry.thread_id),
            tenant=lambda entry: entry.tenant_id,
            slots=slots,
        )

    def start(self) -> None:
        """Start accepting."""
        self._groups.start()
        self._takeovers.start()

    async def aclose(self) -> None:
        """Stop accepting."""
        await self._groups.aclose()
        await self._takeovers.aclose()

    async def accept(self, entry: AcceptEntry) -> ClaimedRun:
        """Commit ``entry`` as a run; ``started`` of the result tells whether it started at once.

        Raises ``NotFound`` for an unknown thread or assistant, ``Conflict`` if the strategy is ``reject`` and the
        thread is busy, or if ``strict`` and it answers no open question.
        """
        groups = self._takeovers if entry.multitask_strategy in TAKE_OVER else self._groups
        span = self._tracer.start(ACCEPTING)
        result: ClaimedRun | Exception | None = None
        try:
            result = await groups.submit(entry)
        finally:
            if span is not None:
                span.end("" if isinstance(result, ClaimedRun) else type(result).__name__)
        if isinstance(result, Exception):
            raise result
        return result

    async def accept_once(self, entry: AcceptEntry, key: IdempotencyKey) -> ClaimedRun | ReplayedResponse:
        """Accept ``entry``, or return the response of an earlier request with the same ``key``.

        Raises what ``accept`` raises, and ``Invalid`` if the key was used with another body.
        """
        async with self._database.writing(entry.tenant_id) as session:
            made = await keys.take(session, entry.tenant_id, key)
            if made is not None:
                return made
            (claimed,) = await self.accept_on(await session.driver(), [entry])
            made = ReplayedResponse(run_id=claimed.run_id, thread_id=claimed.thread_id, answer=encode(created(claimed)))
            await keys.save_response(session, entry.tenant_id, key, made)
            return claimed

    async def accept_all(self, entries: Sequence[AcceptEntry]) -> list[ClaimedRun]:
        """Commit ``entries``, each on a thread of its own, in one transaction. Raises what ``accept`` raises."""
        async with self._database.engine_connection() as connection, connection.transaction():
            return await self.accept_on(connection, entries)

    async def accept_on(self, connection: asyncpg.Connection, entries: Sequence[AcceptEntry]) -> list[ClaimedRun]:
        """Accept ``entries``, each on a thread of its own, within the caller's transaction: all or none."""
        claims = []
        for entry in entries:
            if entry.multitask_strategy in TAKE_OVER and await _in_reach(connection, entry):
                await supersede(connection, entry.tenant_id, entry.thread_id, TAKE_OVER[entry.multitask_strategy])
        for result in await self._accept(connection, entries):
            if isinstance(result, Exception):
                raise result
            claims.append(result)
        return claims

    async def _take_over(
        self, connection: asyncpg.Connection, entries: Sequence[AcceptEntry]
    ) -> list[ClaimedRun | Exception]:
        """Cancel the runs of each entry's thread and accept the entry, both or neither."""
        results: list[ClaimedRun | Exception] = []
        locked: dict[UUID, asyncpg.LockNotAvailableError] = {}
        for entry in entries:
            if entry.tenant_id in locked:  # others must not wait once more for its locks
                results.append(locked[entry.tenant_id])
                continue
            try:
                async with connection.transaction():
                    results += await self.accept_on(connection, [entry])
            except asyncpg.LockNotAvailableError as error:
                results.append(error)
                locked[entry.tenant_id] = error
            except AgentServiceError as error:
                results.append(error)
            except ROLLED_BACK_ERRORS as error:  # the others of the group are committed, and must not be sent again
                results.append(unavailable(error) or error)
        return results

    async def _accept(
        self, connection: asyncpg.Connection, entries: Sequence[AcceptEntry]
    ) -> list[ClaimedRun | Exception]:
        statement = ACCEPT
        if any(e.answering is not None for e in entries):
            statement = ACCEPT_ANSWERS
        elif any(e.stamped or e.owned is not None for e in entries):
            statement = ACCEPT_OWNED
        columns = [list(column) for column in zip(*map(statement.parameters, entries), strict=True)]
        until = time.monotonic() + self.lease_seconds
        rows = await connection.fetch(statement.text, *columns, self.lease_seconds)
        found = {row["n"]: row for row in rows}
        return [_outcome(entry, found[n], until) for n, entry in enumerate(entries, 1)]

    async def claim(self, limit: int) -> list[ClaimedRun]:
        """Claim up to ``limit`` due runs, fairly between tenants."""
        return await self._claim(CLAIM, limit)

    async def claim_next(self, thread: tuple[UUID, UUID]) -> list[ClaimedRun]:
        """Claim the next due run of ``thread`` (tenant, thread), if there is one and the thread is free."""
        return await self._claim(CLAIM_NEXT, *thread)

    async def claim_suspects(self, attempts: int, limit: int = 1) -> list[ClaimedRun]:
        """Claim up to ``limit`` suspects that had at most ``attempts`` claims and may run here."""
        return await self._claim(CLAIM_SUSPECT, attempts, LEFT_TO_OTHERS, limit)

    async def has_suspects(self) -> bool:
        """Whether suspects are queued, for this process or another."""
        async with self._database.engine_connection() as connection:
            return bool(await connection.fetchval(HAS_SUSPECTS))

    async def reserve_suspect(self, seconds: float) -> bool:
        """Reserve a suspect for this busy process, for ``seconds``; return whether there was an unreserved one."""
        async with self._database.engine_connection() as connection:
            done: str = await connection.execute(RESERVE_SUSPECT, seconds, LEFT_TO_OTHERS)
        return done.endswith(" 1")

    async def reset_attempts(self, claimed: ClaimedRun) -> None:
        """Reset the attempts of a suspect that has proven harmless."""
        async with self._database.engine_connection() as connection:
            await connection.execute(ACQUIT, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner)

    async def _claim(self, statement: str, *which: object) -> list[ClaimedRun]:
        until = time.monotonic() + self.lease_seconds
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(statement, self.owner, self.lease_seconds, *which, timeout=CLAIM_SECONDS)
        return [_claimed(row, until) for row in rows]

    async def extend(self, run_ids: list[UUID]) -> dict[UUID, str | None]:
        """Renew the leases of ``run_ids``; return those still owned → the cancel action recorded for each, or None."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(EXTEND, self.owner, self.lease_seconds, run_ids)
        return {row["run_id"]: row["cancel"] for row in rows}

    def suspect_connections(self) -> None:
        """Discard all connections that are open now."""
        self._database.suspect_connections()

    async def release_expired(self) -> int:
        """Requeue runs whose lease has expired, or end them after too many attempts; return how many."""
        async with self._database.engine_connection() as connection:
            return int((await connection.execute(RELEASE_EXPIRED, MAX_ATTEMPTS, MAX_CRASHES)).rpartition(" ")[2])

    async def hand_over(self, claimed: ClaimedRun, reason: Reason) -> None:
        """Release ``claimed``, so that any process may resume it from its last step.

        ``reason``: at a step boundary (``HANDOVER``), in the middle of a step (``CUT``), or because its lease was lost
        (``RECOVERED``); only the last counts as an attempt.
        """
        key = (claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner, claimed.thread_id)
        async with self._database.engine_connection() as connection:
            await connection.execute(HAND_OVER, *key, reason)

    async def release_after_outage(self, claimed: ClaimedRun) -> None:
        """Release ``claimed``, lost in a database outage: its process lives, so this does not count as an attempt.

        Also if another process has found the lease expired by now.
        """
        await self.hand_over(claimed, Reason.CUT)
        async with self._database.engine_connection() as connection:
            await connection.execute(VOUCH, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner)


async def _in_reach(connection: asyncpg.Connection, entry: AcceptEntry) -> bool:
    """Whether ``entry`` may act on the thread; runs of another owner's thread must not be cancelled."""
    if entry.owned is None:
        return True
    key = entry.tenant_id, entry.thread_id
    return bool(await connection.fetchval(OWN_THREAD, *key, entry.owned))


def _outcome(entry: AcceptEntry, row: asyncpg.Record, until: float) -> ClaimedRun | Exception:
    if not row["has_assistant"]:
        return NotFound(f"Assistant with ID {entry.assistant_id} not found")
    if row["status"] is None:
        if entry.strict and (row["has_thread"] or entry.create_thread):
            return Conflict(
                "No question that this answers is open on the thread: it was answered, or left behind. Read the "
                "thread's interrupts, or send strict_resume: false to run it anyway."
            )
        if row["has_thread"]:
            return Conflict(
                "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
            )
        return NotFound(f"Thread with ID {entry.thread_id} not found")
    if row["status"] == "running":
        return _accepted(entry, row, held_until=until)
    return _accepted(entry, row, behind=row["live_run"])


_AS_REQUESTED = tuple(
    name for name in ClaimedRun.__struct_fields__ if name in AcceptEntry.__struct_fields__ and name not in _ACCEPTED
)


def _accepted(entry: AcceptEntry, row: asyncpg.Record, **standing: Any) -> ClaimedRun:
    fields = {name: getattr(entry, name) for name in _AS_REQUESTED}
    for name in _ACCEPTED:
        fields[name] = row[name]
    return ClaimedRun(**fields, **standing, answered=_answered(row), request_bytes=len(entry.request))


def _claimed(row: asyncpg.Record, held_until: float) -> ClaimedRun:
    return ClaimedRun(**{**row, "answered": _answered(row)}, held_until=held_until)


def _answered(row: asyncpg.Record) -> dict[str, Any]:
    answered: dict[str, Any] = _decode(row["answered"]) if row["answered"] else {}
    return answered


class RunAdmission:
    """Reserves budget and quota for runs, and releases it for those that were not accepted."""

    def __init__(self, budgets: Budgets, quota: StorageQuota) -> None:
        self._budgets = budgets
        self._quota = quota

    async def count_cron(self, tenant_id: UUID) -> float:
        """Count a run started by a cron of the tenant; return 0, or the seconds to wait if the rate is used up."""
        return await self._budgets.count_cron(tenant_id)

    @contextlib.asynccontextmanager
    async def admitted(
        self, entries: Sequence[AcceptEntry], own: TenantLimits | None
    ) -> AsyncIterator[list[AcceptEntry]]:
        """Yield the entries (all of one tenant) with their reservations in their requests, to be accepted in the block.

        ``own``: the tenant's limits, looked up if None. Raises ``Limited``; then nothing stays reserved.
        """
        if not entries:
            yield []
            return
        tenant_id = entries[0].tenant_id
        self._quota.check(tenant_id)  # runs of crons have not passed the request guards
        limits = own if own is not None else await self._budgets.limits_of(tenant_id)
        admitted: list[AcceptEntry] = []
        async with self._budgets.admission(tenant_id, limits, len(entries)):
            try:
                for entry in entries:
                    reserved = await self._budgets.reserve(tenant_id, limits, entry.agent)
                    admitted.append(entry if reserved is None else _with(entry, reserved))
                yield admitted
            except BaseException:
                self.release(admitted)
                raise

    def release(self, entries: Sequence[AcceptEntry]) -> None:
        """Release the reservations of ``entries`` that were not accepted."""
        for entry in entries:
            if entry.reserved is not None:
                self._budgets.release(entry.tenant_id, entry.reserved)


def _with(entry: AcceptEntry, reserved: BudgetReservation) -> AcceptEntry:
    request = with_member(entry.request, "reserved", msgspec.json.encode(reserved))
    return msgspec.structs.replace(entry, request=request, reserved=reserved)


def account_of(budgets: Budgets, claimed: ClaimedRun, request: RunRequest) -> RunAccount:
    """Return the account that the run spends on; its previous owner has released what it had not used."""
    reserved = None if request.reserved is msgspec.UNSET else request.reserved
    requested_by = "" if request.requested_by is msgspec.UNSET else request.requested_by
    return RunAccount(
        budgets,
        claimed.tenant_id,
        reserved,
        continued=claimed.epoch > 1,
        agent=claimed.agent,
        requested_by=requested_by,
    )
