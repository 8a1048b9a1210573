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
from app.store.lines import LONGEST_LINE, Loaded, loaded, read
from app.store.loading import Loader, Policy, Stored
from app.store.versions import Versions

BATCH = 1000
BATCH_BYTES = 8 << 20
"""A batch ends with whichever comes first."""
TRIES = 5
"""Of a batch that gets in the way of somebody's puts."""
TURN = 100
"""Lines that are read before the batch on its way has its turn."""

Lines = Iterator[tuple[int, bytes | None]]
"""The number of each line, and its text; None for one that is too long."""


Numbered = tuple[int, Loaded]
"""An item, and the line that it came from."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How to import. Lines before ``first`` and items not at or below ``path`` are passed over.

    ``skip_bad``: lines that cannot be are left out, and the rest goes on. ``dry``: nothing is stored. ``ttl``: minutes
    that an item stays whose line does not say; 0: for ever. ``vectors`` false: those in the file are not taken.
    """

    policy: Policy = "replace"
    first: int = 1
    path: str = ""
    skip_bad: bool = False
    dry: bool = False
    ttl: float = 0
    vectors: bool = True


class Counts(msgspec.Struct):
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


class Batch:
    """Items that go out together, each place once."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Numbered] = {}
        self.size = 0
        self.last = 0

    @property
    def full(self) -> bool:
        """Whether it should go."""
        return len(self.items) >= BATCH or self.size >= BATCH_BYTES


class Import:
    """Reads lines and hands them to ``loader``. ``bad`` hears of lines that are left out, ``told`` of progress."""

    def __init__(
        self,
        loader: Loader,
        versions: Versions,
        rules: Rules,
        bad: Callable[[int, str], None],
        told: Callable[[Counts], None],
    ) -> None:
        self.counts = Counts()
        self._loader = loader
        self._versions = versions
        self.rules = rules
        self._bad = bad
        self._told = told
        self._began: datetime = now()

    async def run(self, lines: Lines) -> None:
        """Import all of ``lines``; ``counts`` says how far it came. Raises ``StartError`` that names the line.

        While a batch is on its way the next one is read.
        """
        tasks = Tasks("import")
        sending: asyncio.Task[StartError | None] | None = None
        batch = Batch()
        try:
            for number, raw in lines:
                self._take(batch, number, raw)
                if number % TURN == 0:
                    await asyncio.sleep(0)
                if batch.full:
                    await _sent(sending)
                    sending = tasks.start(self._send(batch), name="batch")
                    batch = Batch()
        except StartError:
            await _sent(sending)  # what is wrong with a later line does not undo it
            raise
        else:
            await _sent(sending)
            await _sent(tasks.start(self._send(batch), name="batch"))
        finally:
            await tasks.aclose()

    def _take(self, batch: Batch, number: int, raw: bytes | None) -> None:
        batch.last = number
        if number < self.rules.first or (raw is not None and not raw.strip()):
            return
        try:
            if raw is None:
                raise Invalid(f"The line is longer than {LONGEST_LINE} bytes.")
            item = self._item(raw)
            if item is not None:
                self._add(batch, (number, item), len(raw))
        except AgentServiceError as error:
            self.counts.bad += 1
            if not self.rules.skip_bad:
                raise StartError(f"line {number}: {error}") from error
            self._bad(number, str(error))

    def _item(self, raw: bytes) -> Loaded | None:
        """The item of a line; None where it is passed over."""
        line = read(raw)
        if not self.rules.vectors:
            line = msgspec.structs.replace(line, vector=None, vectors=())
        item = loaded(line, self.rules.ttl, self._versions.serving, self._versions.building)
        if not item.path.startswith(self.rules.path) or (line.expires_at and line.expires_at <= self._began):
            self.counts.passed += 1
            return None
        return item

    def _add(self, batch: Batch, item: Numbered, size: int) -> None:
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

    async def _send(self, batch: Batch) -> StartError | None:
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
        self._told(self.counts)
        return None

    async def _store(self, items: list[Numbered]) -> Stored:
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

    async def _halves(self, items: list[Numbered], reason: str) -> Stored:
        """Store ``items``, among which there is one that the database does not take, without it."""
        number = items[0][0]
        if not self.rules.skip_bad:
            where = f"line {number}" if len(items) == 1 else f"one of the lines {number} to {items[-1][0]}"
            raise StartError(f"{where}: the database does not take it: {reason}")
        if len(items) == 1:
            self.counts.bad += 1
            self._bad(number, f"The database does not take it: {reason}.")
            return Stored()
        middle = len(items) // 2
        first, second = await self._store(items[:middle]), await self._store(items[middle:])
        return Stored(*(sum(both) for both in zip(astuple(first), astuple(second), strict=True)))


async def _sent(sending: "asyncio.Task[StartError | None] | None") -> None:
    """Wait for a batch. Raises what has kept it from being stored."""
    if sending is not None and (error := await sending) is not None:
        raise error
