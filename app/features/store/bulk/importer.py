"""A file of items into the store of a tenant, batch by batch: each is stored whole or not at all."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime

import asyncpg
import msgspec
from msgspec.structs import astuple

from app.base.clock import now
from app.base.errors import AgentServiceError, Conflict, Invalid, StartError
from app.base.tasks import Tasks
from app.features.store.bulk.bulk_copy import BulkLoader, BulkResult, ConflictPolicy
from app.features.store.bulk.json_lines import MAX_LINE_BYTES, PreparedItem, prepared_item, read
from app.features.store.index.versions import IndexVersions

BATCH = 1000
BATCH_BYTES = 8 << 20
"""A batch ends with whichever comes first."""
TRIES = 5
"""Of a batch that gets in the way of somebody's puts."""
YIELD_EVERY = 100
"""Lines that are read before the batch on its way has its turn."""

NumberedLines = Iterator[tuple[int, bytes | None]]
"""The number of each line, and its text; None for one that is too long."""


NumberedItem = tuple[int, PreparedItem]
"""An item, and the line that it came from."""


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to import. Lines before ``first`` and items not at or below ``path`` are passed over.

    ``skip_bad``: lines that cannot be are left out, and the rest goes on. ``dry``: nothing is stored. ``ttl``: minutes
    that an item stays whose line does not say; 0: for ever. ``vectors`` false: those in the file are not taken.
    """

    policy: ConflictPolicy = "replace"
    first: int = 1
    path: str = ""
    skip_bad: bool = False
    dry: bool = False
    ttl: float = 0
    vectors: bool = True


class ImportCounts(msgspec.Struct):
    """What has come of the lines so far; ``line`` is the last one of which nothing is left to do.

    ``bare``: items that were stored and lack vectors.
    """

    line: int = 0
    new: int = 0
    replaced: int = 0
    kept: int = 0
    bad: int = 0
    passed: int = 0
    bare: int = 0

    @property
    def done(self) -> int:
        """Items that were stored, or would have been."""
        return self.new + self.replaced


class ImportBatch:
    """Items that go out together, each place once."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], NumberedItem] = {}
        self.size = 0
        self.last = 0

    @property
    def full(self) -> bool:
        """Whether it should go."""
        return len(self.items) >= BATCH or self.size >= BATCH_BYTES


class ItemImporter:
    """Reads lines and hands them to ``loader``. ``bad`` hears of lines that are left out, ``on_progress`` of
    progress.
    """

    def __init__(
        self,
        loader: BulkLoader,
        versions: IndexVersions,
        rules: ImportOptions,
        bad: Callable[[int, str], None],
        on_progress: Callable[[ImportCounts], None],
    ) -> None:
        self.counts = ImportCounts()
        self._loader = loader
        self._versions = versions
        self.rules = rules
        self._bad = bad
        self._on_progress = on_progress
        self._began: datetime = now()

    async def run(self, lines: NumberedLines) -> None:
        """Import all of ``lines``; ``counts`` says how far it came. Raises ``StartError`` that names the line.

        While a batch is on its way the next one is read.
        """
        tasks = Tasks("import")
        sending: asyncio.Task[StartError | None] | None = None
        batch = ImportBatch()
        try:
            for number, raw in lines:
                self._take(batch, number, raw)
                if number % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if batch.full:
                    await _sent(sending)
                    sending = tasks.start(self._send(batch), name="batch")
                    batch = ImportBatch()
        except StartError:
            await _sent(sending)  # what is wrong with a later line does not undo it
            raise
        else:
            await _sent(sending)
            await _sent(tasks.start(self._send(batch), name="batch"))
        finally:
            await tasks.aclose()

    def _take(self, batch: ImportBatch, number: int, raw: bytes | None) -> None:
        batch.last = number
        if number < self.rules.first or (raw is not None and not raw.strip()):
            return
        try:
            if raw is None:
                raise Invalid(f"The line is longer than {MAX_LINE_BYTES} bytes.")
            item = self._item(raw)
            if item is not None:
                self._add(batch, (number, item), len(raw))
        except AgentServiceError as error:
            self.counts.bad += 1
            if not self.rules.skip_bad:
                raise StartError(f"line {number}: {error}") from error
            self._bad(number, str(error))

    def _item(self, raw: bytes) -> PreparedItem | None:
        """The item of a line; None where it is passed over."""
        line = read(raw)
        if not self.rules.vectors:
            line = msgspec.structs.replace(line, vector=None, vectors=())
        item = prepared_item(line, self.rules.ttl, self._versions.serving, self._versions.building)
        if not item.path.startswith(self.rules.path) or (line.expires_at and line.expires_at <= self._began):
            self.counts.passed += 1
            return None
        return item

    def _add(self, batch: ImportBatch, item: NumberedItem, size: int) -> None:
        place = (item[1].path, item[1].key)
        if place in batch.items:
            if self.rules.policy == "fail":
                raise Conflict("Another line before has the same namespace and key.")
            if self.rules.policy == "keep":
                self.counts.kept += 1
                return
            self.counts.replaced += 1
        batch.items[place] = item
        batch.size += size

    async def _send(self, batch: ImportBatch) -> StartError | None:
        """What has kept the batch from being stored."""
        items = list(batch.items.values())
        if items and not self.rules.dry:
            try:
                stored = await self._store(items)
            except StartError as error:
                return error
            self.counts.new += stored.new
            self.counts.replaced += stored.replaced
            self.counts.kept += stored.kept
            self.counts.bare += stored.bare
        else:
            self.counts.new += len(items)
        self.counts.line = batch.last
        self._on_progress(self.counts)
        return None

    async def _store(self, items: list[NumberedItem]) -> BulkResult:
        for _ in range(TRIES):
            try:
                return await self._loader.store([item for _, item in items])
            except asyncpg.DeadlockDetectedError:
                continue
            except Conflict as error:
                raise StartError(f"{error}: give --on-conflict keep or replace") from error
            except asyncpg.DataError as error:
                return await self._halves(items, str(error))
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise StartError(f"the database fails ({type(error).__name__}: {error})") from error
        raise StartError("the database is too busy with the same items: try again")

    async def _halves(self, items: list[NumberedItem], reason: str) -> BulkResult:
        """Store ``items``, among which there is one that the database does not take, without it."""
        number = items[0][0]
        if not self.rules.skip_bad:
            where = f"line {number}" if len(items) == 1 else f"one of the lines {number} to {items[-1][0]}"
            raise StartError(f"{where}: the database does not take it: {reason}")
        if len(items) == 1:
            self.counts.bad += 1
            self._bad(number, f"The database does not take it: {reason}.")
            return BulkResult()
        middle = len(items) // 2
        first, second = await self._store(items[:middle]), await self._store(items[middle:])
        return BulkResult(*(sum(both) for both in zip(astuple(first), astuple(second), strict=True)))


async def _sent(sending: "asyncio.Task[StartError | None] | None") -> None:
    """Wait for a batch. Raises what has kept it from being stored."""
    if sending is not None and (error := await sending) is not None:
        raise error
