"""The journal: commits the steps and ends of this process's runs, in groups (docs/decisions/0002)."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg

from app.base.errors import LeaseLost, Unavailable
from app.engine.entries import EndEntry, JournalEntry
from app.engine.execution.sql import COMMIT, COMMIT_AMENDING, COMMIT_ASKING, HAS_ENDED
from app.infra.db.engine import Database
from app.infra.db.group_commit import GroupCommitter
from app.infra.db.statement_tracing import query
from app.infra.telemetry.labels import CANCELLED
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, TraceRecorder

_END = ("status", "reason", "thread_status", "error", "interrupts", "task", "answered", "usage")

PAUSE = 0.2
"""Seconds between retries while the database is unavailable."""

AWAY = "Unavailable"
"""Trouble of an entry abandoned while the database was unavailable: counts against the service."""

VAIN_SECONDS = 5.0
"""A commit takes milliseconds. A writer cancelled after so long (usually as its lease expired) was waiting in vain."""


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _parameters(entries: Sequence[JournalEntry]) -> list[list[Any]]:
    heads: list[tuple[Any, ...]] = []
    checkpoints: list[tuple[Any, ...]] = []
    items: list[tuple[Any, ...]] = []
    steps: list[tuple[Any, ...]] = []
    intents: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    for n, e in enumerate(entries, 1):
        fields = [None] * len(_END) if e.end is None else [getattr(e.end, name) for name in _END]
        heads.append(
            (e.tenant_id, e.thread_id, e.run_id, e.epoch, e.owner, e.head, e.last_number, e.last_value_number, *fields)
        )
        for c in e.checkpoints:
            ranges = (",".join(map(str, c.first_items)), ",".join(map(str, c.last_items)))
            checkpoints.append((n, c.checkpoint_id, c.parent_id, c.source, c.step, "\n".join(c.next), c.head, *ranges))
        items += [(n, number, body) for number, body in e.items]
        steps += [(n, s.step, s.node, s.checkpoint_id, s.usage) for s in e.steps]
        intents += [(n, i.call_id, i.step, i.tool, i.tool_class, i.key, i.args) for i in e.intents]
        events += [(n, seq, body) for seq, body in e.events]
    return [
        *_columns(heads, 16),
        *_columns(checkpoints, 9),
        *_columns(items, 3),
        *_columns(steps, 5),
        *_columns(intents, 7),
        *_columns(events, 3),
    ]


async def _commit(connection: asyncpg.Connection, entries: Sequence[JournalEntry]) -> list[int | None]:
    asking = [(n, e.end.questions) for n, e in enumerate(entries, 1) if e.end is not None and e.end.questions]
    amending = [(n, e.amended) for n, e in enumerate(entries, 1) if e.amended is not None]
    if amending:
        amended = [
            (n, a.checkpoint_id, a.head, ",".join(map(str, a.first_items)), ",".join(map(str, a.last_items)))
            for n, a in amending
        ]
        dropped = [(n, number) for n, e in enumerate(entries, 1) for number in e.dropped]
        parameters = (*_parameters(entries), *_columns(asking, 2), *_columns(amended, 5), *_columns(dropped, 2))
        rows = await connection.fetch(COMMIT_AMENDING, *parameters)
    elif asking:
        rows = await connection.fetch(COMMIT_ASKING, *_parameters(entries), *_columns(asking, 2))
    else:
        rows = await connection.fetch(COMMIT, *_parameters(entries))
    queued: dict[int, int] = {row["n"]: row["queued"] for row in rows}
    return [queued.get(n) for n in range(1, len(entries) + 1)]


COMMITTING = query("commit runs")


class CommitOutcome:
    """Outcome of a write: ``trouble`` is empty once it is durable."""

    trouble = CANCELLED


class Journal:
    """Commits what runs have done, in groups. Entries of one run keep their order.

    A broken connection leaves open whether its group was committed, so an entry is sent again until the answer is
    known: inserts of an entry are idempotent, and an end that is found committed was ours.
    """

    def __init__(self, database: Database, timeout: float, recorder: TraceRecorder | None = None) -> None:
        self._meters, self._tracer = recorder or TraceRecorder(Meters(), NO_TRACER)
        self._database = database
        self._timeout = timeout
        self._groups: GroupCommitter[JournalEntry, int | None] = GroupCommitter(
            "journal", database, _commit, key=lambda entry: entry.run_id, tenant=lambda entry: entry.tenant_id, slots=2
        )

    def start(self) -> None:
        """Start committing."""
        self._groups.start()

    async def aclose(self) -> None:
        """Commit what is queued, then stop."""
        await self._groups.aclose()

    async def write(self, entry: JournalEntry) -> int:
        """Commit ``entry``; return how many runs are queued for the thread.

        Raises ``LeaseLost`` if the run has another owner, or if the database is unavailable for ``timeout`` seconds, by
        which time the lease has expired.
        """
        started_at = time.monotonic()
        span = self._tracer.start(COMMITTING)
        outcome = CommitOutcome()
        try:
            return await self._write(entry, outcome)
        finally:
            took = time.monotonic() - started_at
            if outcome.trouble == CANCELLED and took > VAIN_SECONDS:
                outcome.trouble = AWAY
            self._meters.checkpoints.record(took, outcome.trouble)
            if span is not None:
                span.end(outcome.trouble)

    async def _write(self, entry: JournalEntry, outcome: CommitOutcome) -> int:
        deadline = time.monotonic() + self._timeout
        while True:
            repeated = outcome.trouble == AWAY
            try:
                queued = await self._groups.submit(entry)
                if queued is None and repeated and entry.end is not None and await self._is_committed(entry, entry.end):
                    queued = 1  # perhaps none; claiming the thread's next run shows
            except Unavailable as error:
                outcome.trouble = AWAY
                if time.monotonic() > deadline:
                    raise LeaseLost("The database was unavailable for longer than the lease.") from error
                await asyncio.sleep(PAUSE)
                continue
            if queued is None:
                outcome.trouble = LeaseLost.__name__
                raise LeaseLost("The run has another owner.")
            outcome.trouble = ""
            return queued

    async def _is_committed(self, entry: JournalEntry, end: EndEntry) -> bool:
        what = (entry.tenant_id, entry.run_id, entry.epoch, end.status, end.reason)
        async with self._database.engine_connection() as connection:
            found = await connection.fetchval(HAS_ENDED, *what)
        return found is not None
