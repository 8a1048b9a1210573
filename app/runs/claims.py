"""How a run gets its turn: accepted with the thread free, or claimed when it becomes free (docs/decisions/0001)."""

import functools
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import AgentServiceError, Conflict, NotFound
from app.db.engine import Database
from app.db.groups import Groups
from app.db.tracing import query
from app.domain.lifecycle import Reason
from app.idempotency import queries as keys
from app.idempotency.structs import Key, Made
from app.runs.cancels import supersede
from app.runs.creation import created
from app.runs.entries import Accept, Claimed
from app.runs.turns import (
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
from app.telemetry.tracing import NO_TRACER, Tracer

TAKE_OVER = {"interrupt": "supersede", "rollback": "rollback"}
"""Strategies that stop what the thread does, and the action that each takes."""

MOST_ATTEMPTS = 5
"""Claims of a run whose process died each time before it is given up. Hand-overs do not count."""

MOST_DEATHS = 25
"""Deaths of its process after which a run is given up even if it committed steps between them."""

LEFT_TO_OTHERS = 5.0
"""Seconds for which a server that died with a run leaves it to others, and idle ones have before busy ones make way."""

CLAIM_SECONDS = 10.0
"""How long a claim may take, which waits for no lock: then its connection is dead, and the next one uses another."""

ACCEPTING = query("accept runs")

_decode = msgspec.json.decode
encode = msgspec.json.Encoder().encode


class Claims:
    """Accepts runs in groups, and claims those whose turn has come, for the owner token of this process."""

    def __init__(self, database: Database, owner: UUID, lease_seconds: float, tracer: Tracer = NO_TRACER) -> None:
        self._tracer = tracer
        self._database = database
        self.owner = owner
        self.lease_seconds = lease_seconds
        self._groups: Groups[Accept, Claimed | Exception] = Groups(
            "accept", database, self._accept, key=lambda entry: (entry.tenant_id, entry.thread_id), lanes=2
        )
        self._takeovers: Groups[Accept, Claimed | Exception] = Groups(
            "takeover", database, self._take_over, key=lambda entry: (entry.tenant_id, entry.thread_id), lanes=1
        )

    def start(self) -> None:
        """Begin to accept."""
        self._groups.start()
        self._takeovers.start()

    async def aclose(self) -> None:
        """Accept no more."""
        await self._groups.aclose()
        await self._takeovers.aclose()

    async def accept(self, entry: Accept) -> Claimed:
        """Commit ``entry`` as a run. ``started`` tells whether its turn has come at once.

        Raises ``NotFound`` for an unknown thread or assistant, ``Conflict`` when ``reject`` meets a busy thread, or
        ``strict`` one that asks nothing.
        """
        groups = self._takeovers if entry.strategy in TAKE_OVER else self._groups
        span = self._tracer.start(ACCEPTING)
        result: Claimed | Exception | None = None
        try:
            result = await groups.submit(entry)
        finally:
            if span is not None:
                span.end("" if isinstance(result, Claimed) else type(result).__name__)
        if isinstance(result, Exception):
            raise result
        return result

    async def accept_once(self, entry: Accept, key: Key) -> Claimed | Made:
        """Accept ``entry``, or tell which run a request with the same ``key`` has made already.

        Raises what ``accept`` raises, and ``Invalid`` for a key that came with another body before.
        """
        async with self._database.writing(entry.tenant_id) as session:
            made = await keys.take(session, entry.tenant_id, key)
            if made is not None:
                return made
            (claimed,) = await self.accept_on(await session.driver(), [entry])
            made = Made(run_id=claimed.run_id, thread_id=claimed.thread_id, answer=encode(created(claimed)))
            await keys.keep(session, entry.tenant_id, key, made)
            return claimed

    async def accept_all(self, entries: Sequence[Accept]) -> list[Claimed]:
        """Commit ``entries``, each on a thread of its own, together. Raises what ``accept`` raises."""
        async with self._database.engine_connection() as connection, connection.transaction():
            return await self.accept_on(connection, entries)

    async def accept_on(self, connection: asyncpg.Connection, entries: Sequence[Accept]) -> list[Claimed]:
        """Accept ``entries``, each on a thread of its own, in a transaction of the caller's: all of them or none."""
        claims = []
        for entry in entries:
            if entry.strategy in TAKE_OVER and await _in_reach(connection, entry):
                await supersede(connection, entry.tenant_id, entry.thread_id, TAKE_OVER[entry.strategy])
        for result in await self._accept(connection, entries):
            if isinstance(result, Exception):
                raise result
            claims.append(result)
        return claims

    async def _take_over(self, connection: asyncpg.Connection, entries: Sequence[Accept]) -> list[Claimed | Exception]:
        """Stop what each entry's thread does and accept the entry, both or neither."""
        results: list[Claimed | Exception] = []
        for entry in entries:
            try:
                async with connection.transaction():
                    results += await self.accept_on(connection, [entry])
            except AgentServiceError as error:
                results.append(error)
        return results

    async def _accept(self, connection: asyncpg.Connection, entries: Sequence[Accept]) -> list[Claimed | Exception]:
        columns: list[list[Any]] = [
            list(column)
            for column in zip(
                *(
                    (
                        e.tenant_id,
                        e.thread_id,
                        e.run_id,
                        e.assistant_id,
                        e.request,
                        e.metadata.decode(),
                        e.strategy,
                        e.create_thread,
                        e.temporary,
                        e.owner,
                        e.delay,
                        e.parent_id,
                        e.strict,
                        e.webhook,
                        e.traceparent,
                    )
                    for e in entries
                ),
                strict=True,
            )
        ]
        statement = ACCEPT
        if any(e.stamped or e.owned is not None for e in entries):
            statement = ACCEPT_OWNED
            columns += [[e.owned for e in entries], [e.stamped for e in entries]]
        if any(e.answering is not None for e in entries):
            columns += [] if statement is ACCEPT_OWNED else [[None] * len(entries), [False] * len(entries)]
            columns += [
                [None if e.answering is None else ",".join(e.answering) for e in entries],
                [e.ends_pause for e in entries],
            ]
            statement = ACCEPT_ANSWERS
        until = time.monotonic() + self.lease_seconds
        rows = await connection.fetch(statement, *columns, self.lease_seconds)
        found = {row["n"]: row for row in rows}
        return [_outcome(entry, found[n], until) for n, entry in enumerate(entries, 1)]

    async def claim(self, limit: int) -> list[Claimed]:
        """Claim up to ``limit`` due runs, fairly between tenants."""
        return await self._claim(CLAIM, limit)

    async def claim_next(self, thread: tuple[UUID, UUID]) -> list[Claimed]:
        """Claim the next due run of ``thread`` (tenant, thread), if there is one and the thread is free."""
        return await self._claim(CLAIM_NEXT, *thread)

    async def claim_suspects(self, attempts: int, limit: int = 1) -> list[Claimed]:
        """Claim up to ``limit`` suspects that were claimed ``attempts`` times at most and may run here."""
        return await self._claim(CLAIM_SUSPECT, attempts, LEFT_TO_OTHERS, limit)

    async def has_suspects(self) -> bool:
        """Whether suspects wait, for this process or another."""
        async with self._database.engine_connection() as connection:
            return bool(await connection.fetchval(HAS_SUSPECTS))

    async def reserve_suspect(self, seconds: float) -> bool:
        """Whether this process shall make way for a suspect within ``seconds``; no other one does so meanwhile."""
        async with self._database.engine_connection() as connection:
            done: str = await connection.execute(RESERVE_SUSPECT, seconds, LEFT_TO_OTHERS)
        return done.endswith(" 1")

    async def acquit(self, claimed: Claimed) -> None:
        """Forget the attempts of a suspect that has shown to be harmless."""
        async with self._database.engine_connection() as connection:
            await connection.execute(ACQUIT, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner)

    async def _claim(self, statement: str, *which: object) -> list[Claimed]:
        until = time.monotonic() + self.lease_seconds
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(statement, self.owner, self.lease_seconds, *which, timeout=CLAIM_SECONDS)
        return [_claimed(row, row, until) for row in rows]

    async def extend(self, run_ids: list[UUID]) -> dict[UUID, str | None]:
        """Extend the leases of ``run_ids``; those still ours → the cancel that was asked for."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(EXTEND, self.owner, self.lease_seconds, run_ids)
        return {row["run_id"]: row["cancel"] for row in rows}

    def doubt(self) -> None:
        """Use no connection again that is open now."""
        self._database.doubt()

    async def release_expired(self) -> int:
        """Put runs whose lease has ended back in line, or give them up after too many attempts; how many."""
        async with self._database.engine_connection() as connection:
            return int((await connection.execute(RELEASE_EXPIRED, MOST_ATTEMPTS, MOST_DEATHS)).rpartition(" ")[2])

    async def hand_over(self, claimed: Claimed, reason: Reason) -> None:
        """Give ``claimed`` back, so that any process may go on with it from its last step.

        ``reason``: at a step boundary (``HANDOVER``), in the middle of one (``CUT``), or because its lease was lost
        (``RECOVERED``), which alone counts as an attempt.
        """
        key = (claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner, claimed.thread_id)
        async with self._database.engine_connection() as connection:
            await connection.execute(HAND_OVER, *key, reason)

    async def vouch(self, claimed: Claimed) -> None:
        """Give ``claimed``, lost for want of the database, back: its process lives, so nothing is held against it.

        Also where another process has found its lease ended meanwhile.
        """
        await self.hand_over(claimed, Reason.CUT)
        async with self._database.engine_connection() as connection:
            await connection.execute(VOUCH, claimed.tenant_id, claimed.run_id, claimed.epoch, claimed.owner)


async def _in_reach(connection: asyncpg.Connection, entry: Accept) -> bool:
    """Whether the thread is one that ``entry`` may do something to; another's must not be stopped."""
    if entry.owned is None:
        return True
    place = entry.tenant_id, entry.thread_id
    return bool(await connection.fetchval(OWN_THREAD, *place, entry.owned))


def _outcome(entry: Accept, row: asyncpg.Record, until: float) -> Claimed | Exception:
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
        return _claimed(row, entry, until)
    return _claimed(row, entry, behind=row["live_run"])


def _claimed(
    row: asyncpg.Record, of: Accept | asyncpg.Record, held_until: float = 0.0, behind: UUID | None = None
) -> Claimed:
    get = of.__getitem__ if isinstance(of, asyncpg.Record) else functools.partial(getattr, of)
    return Claimed(
        tenant_id=get("tenant_id"),
        thread_id=get("thread_id"),
        run_id=get("run_id"),
        assistant_id=get("assistant_id"),
        owner=get("owner"),
        request=get("request"),
        temporary=get("temporary"),
        agent=row["agent"],
        epoch=row["epoch"],
        attempt=row["attempts"],
        metadata=row["metadata"],
        strategy=get("strategy"),
        head=row["head"],
        last_number=row["last_number"],
        assistant_config=row["assistant_config"],
        assistant_context=row["assistant_context"],
        ordinal=row["ordinal"],
        created_at=row["created_at"],
        held_until=held_until,
        answered=_decode(row["answered"]) if row["answered"] else {},
        behind=behind,
        traceparent=get("traceparent") or "",
        torn=isinstance(of, asyncpg.Record) and of["torn"],
        suspect=isinstance(of, asyncpg.Record) and of["suspect"],
        request_bytes=of["request_bytes"] if isinstance(of, asyncpg.Record) else len(of.request),
    )
