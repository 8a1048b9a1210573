"""Who waits for the next run of a thread in this process: small, for thousands of idle streams may wait so."""

import asyncio
from collections.abc import Iterable
from uuid import UUID

import asyncpg

ThreadKey = tuple[UUID, UUID]
"""Tenant and thread."""

MISSED = """
select w.tenant_id, w.thread_id from unnest($1::uuid[], $2::uuid[], $3::int[]) as w (tenant_id, thread_id, ordinal)
left join threads t on t.tenant_id = w.tenant_id and t.thread_id = w.thread_id
where t.thread_id is null or t.runs >= w.ordinal
"""
"""Threads that have the run that is waited for, or are gone."""


class Watch:
    """Waits for run number ``ordinal`` of a thread, a block long: its future is done when there is news of it."""

    __slots__ = ("_watches", "news", "ordinal", "thread")

    def __init__(self, watches: "Watches", thread: ThreadKey, ordinal: int) -> None:
        self._watches = watches
        self.thread = thread
        self.ordinal = ordinal

    def __enter__(self) -> "asyncio.Future[None]":
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watches.add(self)
        return self.news

    def __exit__(self, *_: object) -> None:
        self._watches.discard(self)


class Watches:
    """All of them."""

    def __init__(self) -> None:
        self._of: dict[ThreadKey, set[Watch]] = {}

    def __contains__(self, thread: ThreadKey) -> bool:
        return thread in self._of

    def threads(self) -> list[ThreadKey]:
        """The threads that somebody waits for."""
        return list(self._of)

    def add(self, watch: Watch) -> None:
        """``watch`` begins."""
        self._of.setdefault(watch.thread, set()).add(watch)

    def discard(self, watch: Watch) -> None:
        """``watch`` is over."""
        watches = self._of.get(watch.thread)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._of[watch.thread]

    def wake(self, threads: Iterable[ThreadKey]) -> None:
        """There is news of ``threads``."""
        for thread in threads:
            for watch in self._of.get(thread, ()):
                if not watch.news.done():
                    watch.news.set_result(None)

    async def look(self, connection: asyncpg.Connection) -> None:
        """Wake those whose news came by no signal: one statement, however many wait."""
        waited = [(*thread, min(watch.ordinal for watch in watches)) for thread, watches in self._of.items()]
        if waited:
            rows = await connection.fetch(MISSED, *map(list, zip(*waited, strict=True)))
            self.wake((row["tenant_id"], row["thread_id"]) for row in rows)
