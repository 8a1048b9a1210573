"""A run with the runs that continue it: each answers a question of the one before.

Protocols that know tasks rather than runs show such a chain as one task, under the id of its first run.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Row

from app.base.errors import NotFound
from app.base.offload import offload
from app.domain.lifecycle import LIVE
from app.engine.checkpoints.snapshot import read, size_of
from app.engine.structs import RunRequest
from app.features.runs import queries
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.security.access.structs import Principal


class ChainedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a chain. ``waiting``: people have not answered its questions, and still can.

    ``request`` is its stored request, empty if it was not asked for.
    """

    run_id: UUID
    thread_id: UUID
    assistant_id: UUID
    ordinal: int
    status: str
    waiting: bool
    updated_at: datetime
    metadata: dict[str, Any]
    error: dict[str, Any] | None
    interrupts: list[dict[str, Any]] | None
    request: bytes | None

    @property
    def requested(self) -> RunRequest | None:
        """The request, if it was asked for."""
        return None if self.request is None else msgspec.json.decode(self.request, type=RunRequest)


class RunChain(NamedTuple):
    """A chain of runs, first to last."""

    runs: Sequence[ChainedRun]

    @property
    def first(self) -> ChainedRun:
        """The run that began it."""
        return self.runs[0]

    @property
    def last(self) -> ChainedRun:
        """The newest run, whose state is that of the whole."""
        return self.runs[-1]


class ChainPage(NamedTuple):
    """A page of chains, the last changed first; ``total``: of all that match. ``more``: another page follows."""

    chains: Sequence[RunChain]
    total: int
    more: bool


class ChainFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which chains to list: of an assistant, a thread, in states, changed since. ``before`` is the page's cursor.

    ``statuses``: of the last run, as LangGraph names them; ``waiting`` tells apart interrupted runs that still wait.
    """

    assistant_id: UUID
    thread_id: UUID | None = None
    statuses: tuple[str, ...] = ()
    waiting: bool | None = None
    since: datetime | None = None
    before: tuple[datetime, UUID] | None = None
    limit: int = 50

    def parameters(self, tenant_id: UUID) -> dict[str, Any]:
        """Return the parameters of the statement, with room for one chain of the next page."""
        at, run_id = self.before or (None, None)
        return {
            "tenant": tenant_id,
            "assistant": self.assistant_id,
            "thread": self.thread_id,
            "statuses": list(self.statuses) or None,
            "waiting": self.waiting,
            "since": self.since,
            "at": at,
            "run": run_id,
            "limit": self.limit + 1,
        }


class RunChains:
    """Chains of runs of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, principal: Principal, run_id: UUID, *, requests: bool = True) -> RunChain:
        """Return the chain that the run begins. Raises ``NotFound``."""
        async with self._database.reading(principal.tenant_id) as session:
            rows = await queries.chains(session, principal.tenant_id, [run_id], requests=requests)
        about = {"run_id": run_id} | ({"thread_id": rows[0].thread_id} if rows else {})
        owned = await principal.permit("threads", "read", **about)
        if rows and owned is not None:
            async with self._database.reading(principal.tenant_id, owned) as session:
                if not await queries.thread_exists(session, principal.tenant_id, rows[0].thread_id):
                    rows = []
        if not rows:
            raise NotFound(f"Run with ID {run_id} not found")
        return RunChain([from_row(ChainedRun, row) for row in rows])

    async def page(self, principal: Principal, wanted: ChainFilter, *, requests: bool) -> ChainPage:
        """Return a page of chains, the last changed first."""
        about = {} if wanted.thread_id is None else {"thread_id": wanted.thread_id}
        owned = await principal.permit("threads", "search", limit=wanted.limit, offset=0, **about)
        async with self._database.reading(principal.tenant_id, owned) as session:
            found = await queries.newest_chains(session, wanted.parameters(principal.tenant_id))
            page = found[: wanted.limit]
            roots = [row.first_run for row in page]
            rows = await queries.chains(session, principal.tenant_id, roots, requests=requests) if roots else []
        by_root: dict[UUID, list[ChainedRun]] = {root: [] for root in roots}
        for row in rows:
            by_root[row.first_run].append(from_row(ChainedRun, row))
        chains = [RunChain(by_root[root]) for root in roots if by_root[root]]
        return ChainPage(chains, found[0].total if found else 0, len(found) > wanted.limit)

    async def values(self, principal: Principal, chain: RunChain) -> dict[str, Any]:
        """Return the thread's values after the last run of the chain that has ended; none before."""
        ended = next((run for run in reversed(chain.runs) if run.status not in LIVE), None)
        if ended is None:
            return {}
        async with self._database.reading(principal.tenant_id) as session:
            row = await queries.final_state(session, principal.tenant_id, ended.thread_id, ended.run_id)
        if row is None or row.head is None:
            return {}
        return await offload(size_of(row), _values_in, row)

    async def forget_keys(self, principal: Principal, chain: RunChain, route: str, *, but: UUID | None = None) -> None:
        """Forget the idempotency keys of ``route`` on the chain's thread, except that of the run ``but``."""
        async with self._database.writing(principal.tenant_id) as session:
            await queries.forget_keys(session, principal.tenant_id, chain.first.thread_id, route, but)


def _values_in(row: Row[Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(read(row, row.last_number).state.json())
    return found
