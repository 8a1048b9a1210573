"""Frame transport through a PostgreSQL table: inserted by the owner, announced by a signal, read by subscribers."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import msgspec

from app.base.tasks import Tasks
from app.base.wakeup import WakeUp
from app.engine.streams.frame_transport import IDLE_SECONDS, PAUSE_SECONDS, PUBLISH_SECONDS, FrameBatch, RemoteReaders
from app.engine.streams.signals import Signal, Signals
from app.engine.streams.sql import FETCH_FRAMES, INSERT_FRAMES
from app.infra.db.engine import Database

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(FrameBatch).decode


class PostgresFrameTransport:
    """Implements ``app.engine.streams.frame_transport.FrameTransport``."""

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database = database
        self._signals = signals
        self._announced: set[UUID] = set()
        self._wake = WakeUp()
        self._tasks = Tasks("postgres-transport")

    def start(self, readers: RemoteReaders) -> None:
        """Start reading announced frames that ``readers`` want."""
        self._readers = readers
        self._signals.listen(self._on_signal)
        self._tasks.repeat(self._fetch, 0, name="fetch", essential=True, back_off=PAUSE_SECONDS)

    async def aclose(self) -> None:
        """Stop reading."""
        await self._tasks.aclose()

    def subscribe(self, run_id: UUID) -> None:
        """Do nothing: announcements reach every process."""

    def unsubscribe(self, run_id: UUID) -> None:
        """Do nothing, as ``subscribe``."""

    async def publish(self, batches: Sequence[FrameBatch]) -> None:
        """Insert and announce ``batches``. Raises ``Unavailable``."""
        columns = zip(
            *((c.tenant_id, c.run_id, c.epoch, c.seq, c.last, _pack(c)) for c in batches),
            strict=True,
        )
        async with self._database.engine_connection() as connection:
            await connection.execute(INSERT_FRAMES, *map(list, columns))
        self._signals.notify("frames", [batch.run_id for batch in batches])

    def _on_signal(self, signal: Signal) -> None:
        if signal.frames:
            self._announced.update(signal.frames)
            self._wake.set()
        if signal.is_empty:
            self._readers.missed()

    async def _fetch(self) -> None:
        await self._wake.wait(IDLE_SECONDS)
        announced, self._announced = self._announced, set()
        positions = self._readers.positions(announced)
        if not positions:
            return
        try:
            async with asyncio.timeout(PUBLISH_SECONDS), self._database.engine_connection() as connection:
                rows = await connection.fetch(FETCH_FRAMES, *map(list, zip(*positions, strict=True)))
        except BaseException:  # fetch them again
            self._announced |= announced
            self._wake.set()
            raise
        for row in rows:
            self._readers.receive(_unpack(row["body"]))
