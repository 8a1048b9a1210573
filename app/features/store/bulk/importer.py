"""Import JSON lines into a tenant's store, batch by batch; each batch is stored as a whole or not at all."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime

import asyncpg
import msgspec
from msgspec.structs import astuple

from app.base.clock import now
from app.base.errors import AgentServiceError, Conflict, Invalid, StartError
from app.base.tasks import Tasks
from app.features.store.bulk.bulk_copy import BulkLoader, BulkResult
from app.features.store.bulk.json_lines import MAX_LINE_BYTES, PreparedItem, parse_line, prepare_item
from app.features.store.bulk.sql import ConflictPolicy
from app.features.store.index.versions import IndexVersions

MAX_BATCH_ITEMS = 1000
MAX_BATCH_BYTES = 8 << 20
MAX_ATTEMPTS = 5
"""Attempts to store a batch that deadlocks with puts of clients."""
YIELD_EVERY = 100
"""Lines read between two yields to the event loop, which lets the batch in progress advance."""

NumberedLines = Iterator[tuple[int, bytes | None]]
"""The number of each line, and its bytes; None if it is too long."""

NumberedItem = tuple[int, PreparedItem]
"""A line number and the item on that line."""


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of an import. Lines before ``first`` and items outside ``path`` are skipped.

    ``skip_bad``: skip invalid lines instead of stopping. ``dry``: store nothing. ``ttl``: default time to live in
    minutes; 0: no expiry. ``vectors`` False: ignore the vectors in the file.
    """

    policy: ConflictPolicy = "replace"
    first: int = 1
    path: str = ""
    skip_bad: bool = False
    dry: bool = False
    ttl: float = 0
    vectors: bool = True


class ImportCounts(msgspec.Struct):
    """Counts so far. ``line``: all lines up to this one are done.

    ``filtered``: items outside the path or expired. ``unembedded``: stored items that lack vectors.
    """

    line: int = 0
    new: int = 0
    replaced: int = 0
    skipped: int = 0
    bad: int = 0
    filtered: int = 0
    unembedded: int = 0

    @property
    def done(self) -> int:
        """Number of items stored, or that a dry run would store."""
        return self.new + self.replaced


class ImportBatch:
    """Items stored in one transaction, each namespace and key once."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], NumberedItem] = {}
        self.size = 0
        self.last = 0

    @property
    def full(self) -> bool:
        """Whether the batch has reached its size."""
        return len(self.items) >= MAX_BATCH_ITEMS or self.size >= MAX_BATCH_BYTES


class ItemImporter:
    """Parses lines and stores them with ``loader``.

    ``on_bad_line`` is called with the number and the error of each skipped line, ``on_progress`` after each batch.
    """

    def __init__(
        self,
        loader: BulkLoader,
        versions: IndexVersions,
        options: ImportOptions,
        on_bad_line: Callable[[int, str], None],
        on_progress: Callable[[ImportCounts], None],
    ) -> None:
        self.counts = ImportCounts()
        self._loader = loader
        self._versions = versions
        self.options = options
        self._on_bad_line = on_bad_line
        self._on_progress = on_progress
        self._started_at: datetime = now()

    async def run(self, lines: NumberedLines) -> None:
        """Import all ``lines``; ``counts`` holds the progress. Raises ``StartError`` that names the line.

        The next batch is parsed while one is stored.
        """
        tasks = Tasks("import")
        sending: asyncio.Task[StartError | None] | None = None
        batch = ImportBatch()
        try:
            for number, raw in lines:
                self._add_line(batch, number, raw)
                if number % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if batch.full:
                    await _finish(sending)
                    sending = tasks.start(self._store_batch(batch), name="batch")
                    batch = ImportBatch()
        except StartError:
            await _finish(sending)  # a bad line does not undo the batch before it
            raise
        else:
            await _finish(sending)
            await _finish(tasks.start(self._store_batch(batch), name="batch"))
        finally:
            await tasks.aclose()

    def _add_line(self, batch: ImportBatch, number: int, raw: bytes | None) -> None:
        batch.last = number
        if number < self.options.first or (raw is not None and not raw.strip()):
            return
        try:
            if raw is None:
                raise Invalid(f"The line is longer than {MAX_LINE_BYTES} bytes.")
            item = self._item(raw)
            if item is not None:
                self._add(batch, (number, item), len(raw))
        except AgentServiceError as error:
            self.counts.bad += 1
            if not self.options.skip_bad:
                raise StartError(f"line {number}: {error}") from error
            self._on_bad_line(number, str(error))

    def _item(self, raw: bytes) -> PreparedItem | None:
        """Parse a line. Return None if the item is filtered out."""
        line = parse_line(raw)
        if not self.options.vectors:
            line = msgspec.structs.replace(line, vector=None, vectors=())
        item = prepare_item(line, self.options.ttl, self._versions.serving, self._versions.building)
        if not item.path.startswith(self.options.path) or (line.expires_at and line.expires_at <= self._started_at):
            self.counts.filtered += 1
            return None
        return item

    def _add(self, batch: ImportBatch, item: NumberedItem, size: int) -> None:
        name = (item[1].path, item[1].key)
        if name in batch.items:
            if self.options.policy == "fail":
                raise Conflict("An earlier line has the same namespace and key.")
            if self.options.policy == "keep":
                self.counts.skipped += 1
                return
            self.counts.replaced += 1
        batch.items[name] = item
        batch.size += size

    async def _store_batch(self, batch: ImportBatch) -> StartError | None:
        """Store ``batch``. Return the error if it failed."""
        items = list(batch.items.values())
        if items and not self.options.dry:
            try:
                stored = await self._store(items)
            except StartError as error:
                return error
            self.counts.new += stored.new
            self.counts.replaced += stored.replaced
            self.counts.skipped += stored.skipped
            self.counts.unembedded += stored.unembedded
        else:
            self.counts.new += len(items)
        self.counts.line = batch.last
        self._on_progress(self.counts)
        return None

    async def _store(self, items: list[NumberedItem]) -> BulkResult:
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._loader.store([item for _, item in items])
            except asyncpg.DeadlockDetectedError:
                continue
            except Conflict as error:
                raise StartError(f"{error}: give --on-conflict keep or replace") from error
            except asyncpg.DataError as error:
                return await self._bisect(items, str(error))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise StartError(f"the database fails ({type(error).__name__}: {error})") from error
        raise StartError("the database is too busy with the same items: try again")

    async def _bisect(self, items: list[NumberedItem], reason: str) -> BulkResult:
        """Store ``items`` without those that the database rejects, by halving the batch."""
        number = items[0][0]
        if not self.options.skip_bad:
            where = f"line {number}" if len(items) == 1 else f"one of the lines {number} to {items[-1][0]}"
            raise StartError(f"{where}: the database rejects it: {reason}")
        if len(items) == 1:
            self.counts.bad += 1
            self._on_bad_line(number, f"The database rejects it: {reason}.")
            return BulkResult()
        middle = len(items) // 2
        first, second = await self._store(items[:middle]), await self._store(items[middle:])
        return BulkResult(*(sum(both) for both in zip(astuple(first), astuple(second), strict=True)))


async def _finish(sending: "asyncio.Task[StartError | None] | None") -> None:
    """Wait for a batch. Raises its ``StartError`` if it failed."""
    if sending is not None and (error := await sending) is not None:
        raise error
