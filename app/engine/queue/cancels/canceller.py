"""Cancel runs: queued ones at once, live ones through their owner.

Actions: ``interrupt`` keeps what the run has committed; ``rollback`` deletes the run and restores its thread;
``supersede`` is an interrupt by a run that takes the thread over.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from app.domain.lifecycle import Reason
from app.engine.entries import ClaimedRun
from app.engine.queue.cancels.sql import (
    BY_ID,
    CANCEL_LIVE,
    DELETE_PENDING,
    END_PENDING,
    END_UNENFORCED,
    LOCK_THREAD,
    LOCK_THREADS,
    MATCHING,
    MATCHING_OWNED,
    ON_THREAD,
    ROLL_BACK,
    ROLL_BACK_PENDING,
    UNENFORCED,
)
from app.infra.db.engine import Database

REASONS = {"interrupt": Reason.CANCELLED, "supersede": Reason.SUPERSEDED}


class RunCanceller:
    """Cancels runs of any process, in the database first, so that the death of an owner does not undo it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(self, tenant_id: UUID, run_ids: Sequence[UUID], action: str) -> None:
        """Record the cancel of ``run_ids``; queued runs are ended or deleted at once."""
        async with self._database.tenant_connection(tenant_id) as connection, connection.transaction():
            await connection.execute(LOCK_THREADS, tenant_id, list(run_ids))
            await _stop(connection, tenant_id, BY_ID, list(run_ids), action)

    async def matching(
        self,
        tenant_id: UUID,
        statuses: Sequence[str],
        thread_id: UUID | None,
        run_ids: Sequence[UUID] | None,
        owned: str | None = None,
    ) -> list[UUID]:
        """Return the runs with one of ``statuses``, on one thread or among ``run_ids``, whose threads are ``owned``."""
        which = tenant_id, list(statuses), thread_id, run_ids and list(run_ids)
        async with self._database.tenant_connection(tenant_id) as connection:
            if owned is None:
                rows = await connection.fetch(MATCHING, *which)
            else:
                rows = await connection.fetch(MATCHING_OWNED, *which, owned)
        return [row["run_id"] for row in rows]

    async def roll_back(self, claimed: ClaimedRun) -> int | None:
        """Delete ``claimed`` and all it did; return how many runs are queued, None if it has another owner."""
        async with self._database.tenant_connection(claimed.tenant_id) as connection:
            queued: int | None = await connection.fetchval(
                ROLL_BACK, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner, claimed.thread_id
            )
        return queued

    async def finish_expired(self) -> int:
        """End cancelled runs whose owner is dead or does not respond; return how many."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(UNENFORCED)
            for row in rows:
                if row["cancel"] == "rollback":
                    await connection.fetchval(ROLL_BACK, row["tenant_id"], row["run_id"], None, None, row["thread_id"])
                else:
                    reason = REASONS[row["cancel"]]
                    await connection.execute(END_UNENFORCED, row["tenant_id"], row["run_id"], reason, row["thread_id"])
        return len(rows)


async def supersede(connection: asyncpg.Connection, tenant_id: UUID, thread_id: UUID, action: str) -> None:
    """Cancel all runs of a thread for a run that takes it over; the thread stays locked until the transaction ends."""
    await connection.execute(LOCK_THREAD, tenant_id, thread_id)
    await _stop(connection, tenant_id, ON_THREAD, thread_id, action)


async def _stop(connection: asyncpg.Connection, tenant_id: UUID, which: str, what: Any, action: str) -> None:
    if action == "rollback":
        await connection.execute(ROLL_BACK_PENDING.replace("<which>", which), tenant_id, what)
        await connection.execute(DELETE_PENDING.format(which=which), tenant_id, what)
    else:
        await connection.execute(END_PENDING.format(which=which), tenant_id, what, REASONS[action])
    await connection.execute(CANCEL_LIVE.format(which=which), tenant_id, what, action)
